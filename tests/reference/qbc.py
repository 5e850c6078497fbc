"""Query by committee (Settles 2009, section 3.2) in plain NumPy: disagreement of M members."""

from __future__ import annotations

import numpy as np


def qbc(p: np.ndarray, measure: str) -> np.ndarray:
    """Members' predictions (M, N, C) -> (N,): `variation_ratio`, `vote_entropy` or `kl` (to the mean), in nats."""
    M, N, C = p.shape
    out = np.zeros(N)
    for i in range(N):
        votes = np.array([sum(int(p[m, i].argmax()) == c for m in range(M)) for c in range(C)]) / M
        if measure == "variation_ratio":
            out[i] = 1 - votes.max()
        elif measure == "vote_entropy":
            out[i] = -sum(v * np.log(v) for v in votes if v > 0)
        else:
            mean = p[:, i].mean(0)
            out[i] = np.mean([sum(q * np.log(q / s) for q, s in zip(p[m, i], mean, strict=True)) for m in range(M)])
    return out
