"""The items nearest to given centroids, and the objective of k-means, in plain NumPy."""

from __future__ import annotations

import numpy as np


def centroid(x: np.ndarray, centroids: np.ndarray) -> list[int]:
    """One item per centroid, in the centroids' order, all distinct.

    A wanted item goes to the closest of the centroids that want it; the others choose again, in the order of the
    distance they lost at.
    """
    d = np.linalg.norm(x[:, None] - centroids[None], axis=2)
    order = sorted(range(len(centroids)), key=lambda c: (d[:, c].min(), c))
    chosen: dict[int, int] = {}
    losers = []
    for c in order:
        best = int(d[:, c].argmin())
        if best in chosen.values():
            losers.append(c)
        else:
            chosen[c] = best
    for c in losers:
        chosen[c] = min((i for i in range(len(x)) if i not in chosen.values()), key=lambda i: d[i, c])
    return [chosen[c] for c in range(len(centroids))]


def inertia(x: np.ndarray, centroids: np.ndarray) -> float:
    """Sum of squared distances to the nearest centroid."""
    return float((np.linalg.norm(x[:, None] - centroids[None], axis=2).min(1) ** 2).sum())
