"""ALFA-Mix (Parvaneh et al. 2022) in plain NumPy."""

from __future__ import annotations

import numpy as np


def alfamix_flips(
    phi: np.ndarray, weight: np.ndarray, bias: np.ndarray, labelled: np.ndarray, targets: np.ndarray, cap: float
) -> np.ndarray:
    """Does the predicted label of each item flip for any anchor at this cap? The paper's mixing, anchor by anchor."""
    N, D = phi.shape
    eps = cap / np.sqrt(D)
    anchors = [phi[labelled[targets == c]].mean(axis=0) for c in np.unique(targets)]
    flips = np.zeros(N, dtype=bool)
    for i, h in enumerate(phi):
        z = weight @ h + bias
        p = np.exp(z - z.max())
        p /= p.sum()
        y = int(np.argmax(z))
        g = (p - np.eye(len(p))[y]) @ weight  # gradient of the cross-entropy of the predicted label
        for a in anchors:
            with np.errstate(divide="ignore", invalid="ignore"):
                alpha = eps * np.linalg.norm(a - h) / np.linalg.norm(g) * g / (a - h)
            mixed = np.where(a == h, h, (1 - alpha) * h + alpha * a)
            flips[i] |= int(np.argmax(weight @ mixed + bias)) != y
    return flips


def alfamix_candidates(
    phi: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    labelled: np.ndarray,
    targets: np.ndarray,
    free: np.ndarray,
    budget: int,
) -> list[int]:
    """Free items that flip at the first cap 0.2, 0.4, ... 1 with more than `budget` of them, else at cap 1."""
    flips = np.zeros(len(phi), dtype=bool)
    for cap in (0.2, 0.4, 0.6, 0.8, 1.0):
        flips = alfamix_flips(phi, weight, bias, labelled, targets, cap) & free
        if flips.sum() > budget:
            break
    return [int(i) for i in np.flatnonzero(flips)]
