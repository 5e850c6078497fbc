"""CLUE (Prabhu et al. 2021) in plain NumPy: the objective and the last step, for given centroids."""

from __future__ import annotations

import numpy as np


def entropy(p: np.ndarray) -> np.ndarray:
    """H(p) in nats, (N, C) -> (N,)."""
    return np.array([-sum(q * np.log(q) for q in row if q > 0) for row in p])


def clue_objective(phi: np.ndarray, weight: np.ndarray, centroids: np.ndarray) -> float:
    """Weighted sum of squared distances to the nearest centroid."""
    return float(sum(w * min(((x - c) ** 2).sum() for c in centroids) for x, w in zip(phi, weight, strict=True)))
