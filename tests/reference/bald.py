"""BALD (Houlsby et al. 2011; Gal et al. 2017) in plain NumPy."""

from __future__ import annotations

import numpy as np


def entropy(p: np.ndarray) -> float:
    return -sum(float(q) * float(np.log(q)) for q in p if q > 0)


def bald(p: np.ndarray) -> np.ndarray:
    """Draws (M, N, C) -> (N,): H(mean_m p) - mean_m H(p) in nats."""
    return np.array([entropy(p[:, i].mean(0)) - np.mean([entropy(q) for q in p[:, i]]) for i in range(p.shape[1])])
