"""ParBaLS-EPIG (Hu & Mussmann 2025, algorithm 1) in plain NumPy: every covariance formed, every draw's weights kept."""

from __future__ import annotations

import numpy as np
from reference.epig import epig
from reference.uherding import softmax


def second_order(p: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Draws (M, N, C) and (M, T, C) -> (N,): half the mean chi-square of joint and product, entry by entry."""
    out = np.zeros(p.shape[1])
    for i in range(p.shape[1]):
        for t in range(target.shape[1]):
            joint = p[:, i].T @ target[:, t] / len(p)
            apart = np.outer(p[:, i].mean(0), target[:, t].mean(0))
            out[i] += 0.5 * ((joint - apart) ** 2 / apart).sum()
    return out / target.shape[1]


def parbals_epig(
    phi: np.ndarray,
    bias: np.ndarray,
    head: np.ndarray,
    draws: np.ndarray,
    covariance: np.ndarray,
    rows: np.ndarray,
    targets: np.ndarray,
    budget: int,
    labellings: int,
    exact: bool,
) -> list[int]:
    """Picks among rows. phi (N, D), bias (C,), head (C, D), draws (M, C, D) ~ N(head, covariance (D, D) per class)."""
    C = len(bias)
    pseudo = (phi @ draws[:labellings].transpose(0, 2, 1) + bias).argmax(2)  # (K, N)
    models = [(head.copy(), draws.copy(), covariance.copy()) for _ in range(labellings)]
    picks: list[int] = []
    while len(picks) < budget:
        total = np.zeros(len(rows))
        for _, weights, _ in models:
            p = np.stack([softmax(phi @ w.T + bias) for w in weights])
            total += (epig if exact else second_order)(p[:, rows], p[:, targets])
        order = sorted(range(len(rows)), key=lambda i: (-total[i], i))
        x = int(rows[next(i for i in order if rows[i] not in picks)])
        picks.append(x)
        for k, (mean, weights, sigma) in enumerate(models):
            p = softmax((mean @ phi[x] + bias)[None])[0]
            q = p.max() * (1 - p.max())
            after = np.linalg.inv(np.linalg.inv(sigma) + q * np.outer(phi[x], phi[x]))
            new = mean + np.outer(np.eye(C)[pseudo[k, x]] - p, after @ phi[x])
            # A map that turns the covariance before into the one after, and moves along sigma phi alone.
            s = phi[x] @ sigma @ phi[x]
            turn = np.eye(len(sigma)) - (1 - 1 / np.sqrt(1 + q * s)) / s * np.outer(sigma @ phi[x], phi[x])
            assert np.allclose(turn @ sigma @ turn.T, after)
            models[k] = (new, new + (weights - mean) @ turn.T, after)
    return picks
