"""What every source shares: seeded stratified shares, class names to labels, and the fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from alfm.datasets.base import Split
from alfm.errors import UserError
from alfm.streams import stream


def stratified_share(labels: np.ndarray, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cut rows in two, class by class (unlabelled rows count as one class).

    `labels` int64 (N,); `fraction` in (0, 1) is the share of the second part. Returns two int64 index arrays,
    ascending. Each class gives its rounded share of rows, drawn from the stream of (seed, class). `UserError`
    when the fraction is out of range or leaves a part empty.
    """
    if not 0.0 < fraction < 1.0:
        raise UserError(f"test_fraction={fraction}: a share between 0 and 1 is needed, for example 0.2")
    chosen: list[np.ndarray] = []
    owed = 0.0  # what rounding left over is carried on, so that many tiny classes still add up to the share
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        owed += fraction * len(rows)
        take = min(len(rows), int(np.floor(owed + 0.5)))
        owed -= take
        chosen.append(stream(seed, 0, f"test share of class {label}").permutation(rows)[:take])
    second = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)
    first = np.setdiff1d(np.arange(len(labels)), second)
    if len(first) == 0 or len(second) == 0:
        raise UserError(f"test_fraction={fraction} of {len(labels)} items leaves one of the two parts empty")
    return first, second


def labels_from_names(
    names: Mapping[str, Sequence[str | None]],
) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """Class names per split -> int64 labels per split, and the sorted names over all splits; None -> -1."""
    classes = sorted({name for column in names.values() for name in column if name is not None})
    number = {name: index for index, name in enumerate(classes)}
    labels = {
        split: np.array([-1 if name is None else number[name] for name in column], dtype=np.int64)
        for split, column in names.items()
    }
    return labels, classes or None


def fingerprint(splits: Mapping[str, Split], classes: Sequence[str] | None, *content: Iterable[Any]) -> str:
    """SHA-256 (first 32 hex digits) over split names, ids, labels, class names, and what marks the content.

    Each `content` is an iterable of bytes, or of things whose `str` tells them apart (sizes, texts, options).
    """
    digest = hashlib.sha256()

    def add(piece: Any) -> None:
        raw = piece if isinstance(piece, bytes) else str(piece).encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))  # lengths, so that ("ab", "c") and ("a", "bc") differ
        digest.update(raw)

    for name in sorted(splits):
        add(name)
        add(np.ascontiguousarray(splits[name].labels, dtype="<i8").tobytes())
        for item_id in splits[name].ids:
            add(item_id)
    for piece in classes or ():
        add(piece)
    for part in content:
        for piece in part:
            add(piece)
    return digest.hexdigest()[:32]
