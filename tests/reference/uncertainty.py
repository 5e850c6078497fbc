"""Scores of single predictions, their ranking, and the options shared by ranked strategies, in plain NumPy."""

from __future__ import annotations

import numpy as np


def uncertainty(p: np.ndarray, measure: str = "uncertainty") -> np.ndarray:
    """(N, C) -> (N,): 1 - p1 (Lewis & Gale 1994), entropy in nats, or 1 - (p1 - p2) (Scheffer et al. 2001)."""
    out = []
    for row in p:
        first, second = sorted(row, reverse=True)[:2]
        if measure == "entropy":
            out.append(-sum(q * np.log(q) for q in row if q > 0))
        else:
            out.append(1 - first if measure == "uncertainty" else 1 - (first - second))
    return np.array(out)


def ranked(score: np.ndarray, free: np.ndarray, k: int) -> list[int]:
    """The k free items of highest score, ties to the lower index."""
    return sorted((int(i) for i in np.flatnonzero(free)), key=lambda i: (-score[i], i))[:k]


def typical(score: np.ndarray, free: np.ndarray, k: int) -> list[int]:
    """The k free items nearest to the (lower) median of the free items' scores."""
    values = sorted(score[free])
    return ranked(-np.abs(score - values[(len(values) - 1) // 2]), free, k)
