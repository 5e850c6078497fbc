"""Which seeds are replicates of their own.

A replicate is what chance made of it: its initial set and its picks. Ten seeds that begin with the same items and
pick the same items are one curve drawn ten times, and no test may count it as ten. So seeds fall into units: those
with the same initial set, or, where all began with one set, those with the same picks.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def units(initial: Iterable[str], *picked: Iterable[str]) -> np.ndarray:
    """Unit of each of n seeds, int64 (n,) in [0, number of units).

    initial: the fingerprint of each seed's initial set; picked: for every strategy compared, the fingerprint of each
    seed's picks. From one initial set the strategy with the fewest different picks decides.
    """
    starts = _numbered(initial)
    if starts.max() > 0:
        return starts
    return min(map(_numbered, picked), key=np.max)


def per_unit(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Mean over the seeds of each unit: (n, ...) -> (number of units, ...)."""
    if unit.max() + 1 == len(unit):
        return values
    return np.stack([values[unit == u].mean(axis=0) for u in range(unit.max() + 1)])


def _numbered(names: Iterable[str]) -> np.ndarray:
    """Equal names, equal numbers, in order of appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
