"""Centre of gravity in plain NumPy."""

from __future__ import annotations

import numpy as np


def cog(phi: np.ndarray, free: np.ndarray, budget: int, label: np.ndarray | None = None) -> list[int]:
    """The free items farthest from the mean embedding, or from the mean of those with the same label."""
    groups = np.zeros(len(phi), dtype=int) if label is None else label
    distance = np.zeros(len(phi))
    for i in range(len(phi)):
        centre = phi[groups == groups[i]].mean(axis=0)
        distance[i] = np.sqrt(((phi[i] - centre) ** 2).sum())
    order = sorted(np.flatnonzero(free), key=lambda i: (-distance[i], i))
    return [int(i) for i in order[:budget]]
