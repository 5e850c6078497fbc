"""Agglomerative clusters: the two nearest are joined again and again."""

from __future__ import annotations

import numpy as np


def average_linkage(x: np.ndarray, clusters: int) -> np.ndarray:
    """Average-linkage clusters of x (m, D), at most `clusters` of them: int64 (m,), numbered from 0."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(x) <= 2 or clusters <= 1:
        return np.zeros(len(x), dtype=np.int64)
    sq = np.einsum("ij,ij->i", x, x)
    distance = np.sqrt(np.maximum(sq[:, None] + sq - 2 * (x @ x.T), 0))
    tree = linkage(squareform(distance, checks=False), "average")
    return fcluster(tree, clusters, "maxclust").astype(np.int64) - 1
