"""UHerding (Bae et al. 2025, section 3) in plain NumPy: weighted greedy, temperature and kernel width."""

from __future__ import annotations

import numpy as np
from reference.maxherding import kernel


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error of p1 over equal-width bins (lower, upper]."""
    p = softmax(logits)
    confidence, hit = p.max(1), p.argmax(1) == labels
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    return total


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Of 1.0, 1.1, ... 20 the one of smallest calibration error, the lowest of equals."""
    return min((t / 10 for t in range(10, 201)), key=lambda t: (round(calibration_error(logits / t, labels), 12), t))


def width(h: np.ndarray, labelled: np.ndarray) -> float:
    """The smallest positive distance between labelled unit features, 1 if there is none."""
    u = h / np.linalg.norm(h, axis=1, keepdims=True)
    found = [np.linalg.norm(u[i] - u[j]) for i in labelled for j in labelled if i < j]
    return float(min((d for d in found if d > 1e-6), default=1.0))


def uherding(
    h: np.ndarray, logits: np.ndarray | None, tau: float, labelled: np.ndarray, free: np.ndarray, budget: int
) -> list[int]:
    """Repeatedly the free item of largest sum_n U_n max_s k(n, s); U = 1 - margin at temperature tau, 0 if labelled."""
    k, chosen = kernel(h, width(h, labelled)), [int(i) for i in labelled]
    if logits is None:
        U = np.ones(len(h))
    else:
        p = np.sort(softmax(logits / tau), axis=1)
        U = 1 - (p[:, -1] - p[:, -2])
    U[labelled] = 0
    picks: list[int] = []
    for _ in range(budget):
        rest = [int(i) for i in np.flatnonzero(free) if i not in picks]
        picks.append(max(rest, key=lambda i: float(U @ k[:, [*chosen, *picks, i]].max(1))))
    return picks
