"""EPIG (Bickford Smith et al. 2023, equation 5) in plain NumPy: the divergence of joint and product, term by term."""

from __future__ import annotations

import numpy as np


def epig(p: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Draws of items (M, N, C) and of targets (M, T, C) -> (N,): mean_t KL(p(y, y_t) || p(y) p(y_t)) in nats."""
    M, N, C = p.shape
    out = np.zeros(N)
    for i in range(N):
        for t in range(target.shape[1]):
            for y in range(C):
                for z in range(C):
                    joint = np.mean(p[:, i, y] * target[:, t, z])
                    apart = p[:, i, y].mean() * target[:, t, z].mean()
                    if joint > 0:
                        out[i] += joint * np.log(joint / apart)
    return out / target.shape[1]
