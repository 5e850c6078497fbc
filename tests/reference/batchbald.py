"""BatchBALD (Kirsch et al. 2019, algorithm 1) in plain NumPy: every configuration of the batch's labels listed."""

from __future__ import annotations

import itertools

import numpy as np


def joint_information(p: np.ndarray, batch: list[int]) -> float:
    """I(y_batch; weights) = H(y_batch) - mean_m H(y_batch | m), draws (M, N, C), in nats."""
    M, _, C = p.shape
    total = 0.0
    for labels in itertools.product(range(C), repeat=len(batch)):
        given = np.prod([p[:, i, c] for i, c in zip(batch, labels, strict=True)], axis=0)
        mean = given.mean()
        if mean > 0:
            total -= mean * np.log(mean)
    inner = p[:, batch]
    total += (inner * np.log(inner, out=np.zeros_like(inner), where=inner > 0)).sum() / M
    return float(total)


def batchbald(p: np.ndarray, candidates: list[int], budget: int) -> list[int]:
    """Greedy batch of largest joint information."""
    picks: list[int] = []
    for _ in range(budget):
        rest = [i for i in candidates if i not in picks]
        picks.append(max(rest, key=lambda i: joint_information(p, [*picks, i])))
    return picks
