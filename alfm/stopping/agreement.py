"""How far two models agree on the same items, (n,) class numbers each."""

from __future__ import annotations

import numpy as np


def both_known(*predictions: np.ndarray) -> list[np.ndarray] | None:
    """The same arrays at the items that none leaves out (negative); None where there is no such item.

    Raises ValueError for arrays of different lengths.
    """
    known = np.logical_and.reduce([one >= 0 for one in np.broadcast_arrays(*predictions)])
    return [one[known] for one in predictions] if known.any() else None


def kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Cohen's kappa; 1 for arrays that are the same, those of one class throughout too (where it is 0 / 0)."""
    if np.array_equal(one, other):
        return 1.0
    size = int(max(one.max(), other.max())) + 1
    share = np.bincount(one, minlength=size) / len(one), np.bincount(other, minlength=size) / len(one)
    observed, expected = float((one == other).mean()), float(share[0] @ share[1])
    return (observed - expected) / (1 - expected)


def change_of_f(one: np.ndarray, other: np.ndarray, positive: int | None = None) -> float:
    """1 - F of one's predictions taken for the truth of the other's: 1 - 2a / (2a + b + c) for a class.

    a: items that both give the class, b and c: those that one of them does. positive: this class alone (0 where neither
    gives it); None: the mean over the classes that are given at all.
    """
    size = int(max(one.max(), other.max(), positive or 0)) + 1
    given = np.bincount(one, minlength=size) + np.bincount(other, minlength=size)  # 2a + b + c
    both = np.bincount(one[one == other], minlength=size)
    chosen = given > 0 if positive is None else np.arange(size) == positive
    return float(np.mean(1 - 2 * both[chosen] / np.maximum(given[chosen], 1))) if given[chosen].any() else 0.0
