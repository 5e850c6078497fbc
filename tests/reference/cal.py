"""CAL (Margatina et al. 2021) in plain NumPy."""

from __future__ import annotations

import numpy as np


def cal(
    phi: np.ndarray, p: np.ndarray, labelled: np.ndarray, free: np.ndarray, budget: int, neighbours: int = 10
) -> list[int]:
    """Largest mean KL(p_neighbour || p_x) over the nearest labelled neighbours."""
    score = np.full(len(phi), -np.inf)
    for x in np.flatnonzero(free):
        distance = {m: ((phi[x] - phi[m]) ** 2).sum() for m in labelled}
        nearest = sorted(labelled, key=lambda m: (distance[m], m))[:neighbours]
        score[x] = np.mean([(p[m] * (np.log(p[m]) - np.log(p[x]))).sum() for m in nearest])
    order = sorted(np.flatnonzero(free), key=lambda i: (-score[i], i))
    return [int(i) for i in order[:budget]]
