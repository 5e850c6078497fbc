"""VeSSAL (Saran et al. 2023) in plain NumPy: matrices of the full gradient dimension, one item after another."""

from __future__ import annotations

import numpy as np


def vessal(
    gradients: np.ndarray, uniform: np.ndarray, budget: int, rate: float | None = None, ridge: float = 0.01
) -> tuple[list[int], list[float]]:
    """Places accepted in a stream of gradients (T, d) with decisions uniform (T,), and every acceptance probability."""
    T, d = gradients.shape
    S = ridge * np.eye(d)
    cov = np.zeros((d, d))
    accepted: list[int] = []
    probabilities: list[float] = []
    for t, x in enumerate(gradients):
        if len(accepted) == budget:
            break
        cov = cov * (t / (t + 1)) + np.outer(x, x) / (t + 1)
        inverse = np.linalg.inv(S)
        trace = np.trace(cov @ inverse)
        wanted = rate if rate is not None else (budget - len(accepted)) / (T - t)
        probability = wanted * (x @ inverse @ x / trace if trace > 0 else 1.0)
        probabilities.append(float(probability))
        if uniform[t] < probability:
            accepted.append(t)
            S = S + np.outer(x, x)
    return accepted, probabilities
