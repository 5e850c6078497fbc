"""BoSS (Huseljic et al. 2026) in plain NumPy: which candidate batch wins, for given refitted heads."""

from __future__ import annotations

import numpy as np


def zero_one_loss(weight: np.ndarray, bias: np.ndarray, phi: np.ndarray, labels: np.ndarray) -> float:
    """Share of test items (T, D') that the head (C, D'), (C,) gets wrong."""
    return float(np.mean([(weight @ x + bias).argmax() != y for x, y in zip(phi, labels, strict=True)]))


def boss(losses: list[float]) -> int:
    """Number of the candidate of smallest test loss, the earliest of equals."""
    return min(range(len(losses)), key=lambda i: (losses[i], i))
