"""k-center greedy (Sener & Savarese 2018, algorithm 1) in plain NumPy: all distances, one pick after the other."""

from __future__ import annotations

import numpy as np


def distances(x: np.ndarray, metric: str = "l2") -> np.ndarray:
    """(N, D) -> (N, N); cosine: 1 - cos."""
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        return 1 - x @ x.T
    return np.linalg.norm(x[:, None] - x[None], axis=2)


def coreset(x: np.ndarray, labelled: np.ndarray, free: np.ndarray, budget: int, metric: str = "l2") -> list[int]:
    """Repeatedly the free item farthest from its nearest centre; with no centre, from the mean of all items."""
    d = distances(x, metric)
    centres, picks = [int(i) for i in labelled], []
    for _ in range(budget):
        rest = [i for i in np.flatnonzero(free) if i not in picks]
        if centres:
            best = max(rest, key=lambda i: d[i, centres].min())
        else:
            best = max(rest, key=lambda i: np.linalg.norm(x[i] - x.mean(0)))
        picks.append(int(best))
        centres.append(int(best))
    return picks


def radius(x: np.ndarray, centres: list[int], metric: str = "l2") -> float:
    """The objective: the largest distance of an item to its nearest centre."""
    return float(distances(x, metric)[:, centres].min(1).max())
