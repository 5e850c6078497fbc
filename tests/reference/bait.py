"""BAIT (Ash et al. 2021) in plain NumPy: every matrix formed, every inverse taken anew."""

from __future__ import annotations

import numpy as np


def fisher_factors(phi: np.ndarray, p: np.ndarray, variant: str, k: int = 2) -> list[np.ndarray]:
    """x_i (rank, d) of every item, so that its Fisher information is x_i^T x_i."""
    factors = []
    for h, q in zip(phi, p, strict=True):
        if variant == "binary":
            p1 = q.max()
            # binary cross-entropy: gradient (p1 - y) phi, with y = 1 at probability p1 and y = 0 at 1 - p1
            x = np.stack([np.sqrt(p1) * (p1 - 1) * h, np.sqrt(1 - p1) * p1 * h])
        else:
            classes = sorted(range(len(q)), key=lambda c: (-q[c], c))[: k if variant == "top_k" else len(q)]
            x = np.stack([np.sqrt(q[c]) * np.kron(np.eye(len(q))[c] - q, h) for c in classes])
        factors.append(x)
    return factors


def bait(
    phi: np.ndarray,
    p: np.ndarray,
    labelled: np.ndarray,
    free: np.ndarray,
    budget: int,
    variant: str = "binary",
    ridge: float = 1e-4,
    k: int = 2,
) -> tuple[list[int], list[int]]:
    """The 2 B forward picks and the B that stay after backward pruning, both in forward order."""
    x = fisher_factors(phi, p, "full" if variant == "diagonal" else variant, k)
    n = len(labelled)
    information = [a.T @ a for a in x]
    if variant == "diagonal":
        information = [np.diag(np.diag(m)) for m in information]
    F = sum(information) / len(phi)
    M = (
        ridge * np.mean((phi**2).sum(axis=1)) * np.eye(len(F))
        + n / (n + budget) * sum(information[i] for i in labelled) / n
    )
    scale = budget / (n + budget)

    def objective(M: np.ndarray) -> float:
        return float(np.trace(np.linalg.solve(M, F)))

    forward: list[int] = []
    for _ in range(min(2 * budget, int(free.sum()))):
        rest = [i for i in np.flatnonzero(free) if i not in forward]
        best = min(rest, key=lambda i: objective(M + scale * information[i]))
        forward.append(int(best))
        M = M + scale * information[best]
    kept = list(forward)
    while len(kept) > budget:
        worst = min(kept, key=lambda i: objective(M - scale * information[i]))
        kept.remove(worst)
        M = M - scale * information[worst]
    return forward, kept
