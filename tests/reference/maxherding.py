"""MaxHerding (Bae et al. 2024, equation 3 and algorithm 1) in plain NumPy."""

from __future__ import annotations

import numpy as np


def kernel(h: np.ndarray, width: float = 1.0) -> np.ndarray:
    """exp(-(d / width)^2) between unit features, (N, D) -> (N, N)."""
    u = h / np.linalg.norm(h, axis=1, keepdims=True)
    return np.exp(-(np.linalg.norm(u[:, None] - u[None], axis=2) ** 2) / width**2)


def coverage(k: np.ndarray, chosen: list[int]) -> float:
    """mean_n max_{s chosen} k(n, s), 0 for nothing chosen."""
    return float(k[:, chosen].max(1).mean()) if chosen else 0.0


def maxherding(h: np.ndarray, labelled: np.ndarray, free: np.ndarray, budget: int, width: float = 1.0) -> list[int]:
    """Repeatedly the free item with which the coverage is largest, the coverage taken anew every time."""
    k, chosen, picks = kernel(h, width), [int(i) for i in labelled], []
    for _ in range(budget):
        rest = [int(i) for i in np.flatnonzero(free) if i not in picks]
        picks.append(max(rest, key=lambda i: coverage(k, [*chosen, *picks, i])))
    return picks
