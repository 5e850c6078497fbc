"""BADGE (Ash et al. 2020, algorithm 1) in plain NumPy: gradient embeddings written out, probabilities of a draw."""

from __future__ import annotations

import numpy as np


def gradients(phi: np.ndarray, p: np.ndarray) -> np.ndarray:
    """g_i = (p_i - e_y) outer phi_i with y the predicted class, (N, C D)."""
    out = []
    for h, q in zip(phi, p, strict=True):
        error = q.copy()
        error[q.argmax()] -= 1
        out.append(np.outer(error, h).ravel())
    return np.array(out)


def badge(phi: np.ndarray, p: np.ndarray, free: np.ndarray, picks: list[int]) -> np.ndarray:
    """Probability (N,) of each item to be the next pick, given the picks so far."""
    g = gradients(phi, p)
    chance = np.zeros(len(g))
    if not picks:
        chance[np.where(free, (g**2).sum(1), -1).argmax()] = 1
        return chance
    for i in np.flatnonzero(free):
        chance[i] = min(((g[i] - g[j]) ** 2).sum() for j in picks)
    chance[picks] = 0
    return chance / chance.sum()
