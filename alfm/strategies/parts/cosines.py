"""Unit features for strategies that need their inner products, which no other origin can make more exact."""

from __future__ import annotations

import warnings

from alfm.features.features import OFFSET, Features, Vectors


def cosines(pool: Features, name: str) -> Vectors:
    """The pool's unit features. Warns, once per pool and strategy name, where float32 cosines are mostly rounding."""
    if pool.offset:
        pool.once(("cosines", name), lambda: warnings.warn(_warning(name), stacklevel=4))
    return pool.unit


def _warning(name: str) -> str:
    return (
        f"{name} compares items by their cosines, and this pool's are above {OFFSET} on average, where float32 hardly "
        "tells them apart: subtract the features' mean before they are cached, or choose maxherding, probcover or "
        "coreset, which measure distances."
    )
