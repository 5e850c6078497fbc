"""FALCUN (Gilhuber et al. 2024) in plain NumPy."""

from __future__ import annotations

import numpy as np


def falcun(p: np.ndarray, free: np.ndarray, picks: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """State before the next pick, given the picks so far: remaining items, and their d + u (gamma = 1 relevance)."""
    remaining = [i for i in np.flatnonzero(free) if i not in picks]
    u = np.zeros(len(p))
    for i in range(len(p)):
        first, second = np.sort(p[i])[::-1][:2]
        u[i] = 1 - (first - second)
    d = u.copy()
    for pick in picks:
        for i in range(len(p)):
            d[i] = min(d[i], np.abs(p[i] - p[pick]).sum())
    rest = d[remaining]
    span = rest.max() - rest.min()
    scaled = (rest - rest.min()) / span if span > 0 else np.zeros(len(rest))
    return np.array(remaining), scaled + u[remaining]


def falcun_deterministic(p: np.ndarray, free: np.ndarray, budget: int) -> list[int]:
    """Largest d + u, one after the other."""
    picks: list[int] = []
    for _ in range(budget):
        remaining, value = falcun(p, free, picks)
        picks.append(int(remaining[np.argmax(value)]))
    return picks
