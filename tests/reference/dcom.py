"""DCoM (Mishal & Weinshall 2024, algorithms 1 and 2) in plain NumPy."""

from __future__ import annotations

import numpy as np


def distances(h: np.ndarray) -> np.ndarray:
    u = h / np.linalg.norm(h, axis=1, keepdims=True)
    return np.linalg.norm(u[:, None] - u[None], axis=2)


def covered(d: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """(N,) bool: inside the ball of at least one centre."""
    return (d[:, centres] < radii).any(1)


def radii(
    h: np.ndarray,
    labelled: np.ndarray,
    targets: np.ndarray,
    predicted: np.ndarray,
    start: float = 0.6,
    largest: float = 1.1,
    resolution: float = 0.05,
) -> np.ndarray:
    """Bisection for the largest radius whose ball is predicted as its centre's label for a share 0.2 cov + 0.4."""
    d = distances(h)
    least = 0.2 * covered(d, labelled, np.full(len(labelled), start)).mean() + 0.4
    out = []
    for i, label in zip(labelled, targets, strict=True):
        low, high, middle = 0.0, largest, start
        while high - low > resolution:
            pure = (predicted[d[i] < middle] == label).mean() >= least
            low, high = (middle, high) if pure else (low, middle)
            middle = (low + high) / 2
        out.append(low if low > 0 else middle)
    return np.array(out)


def competence(coverage: float, a: float = 0.8, k: float = 50.0) -> float:
    """S = (1 + e^(-k (1 - a))) / (1 + e^(-k (cov - a)))."""
    return float((1 + np.exp(-k * (1 - a))) / (1 + np.exp(-k * (coverage - a))))


def min_max(x: np.ndarray, over: np.ndarray) -> np.ndarray:
    low, high = x[over].min(), x[over].max()
    return (x - low) / (high - low) if high > low else np.zeros(len(x))


def dcom(
    h: np.ndarray,
    p: np.ndarray,
    labelled: np.ndarray,
    targets: np.ndarray,
    free: np.ndarray,
    budget: int,
    a: float = 0.8,
    k: float = 50.0,
    rescale: bool = False,
) -> list[int]:
    """Largest S (1 - margin) + (1 - S) density; the density scaled by its range at the batch's start, or anew for
    every pick (`rescale`, as in the authors' code)."""
    d = distances(h)
    found = radii(h, labelled, targets, p.argmax(1))
    inside = covered(d, labelled, found)
    S, mean = competence(inside.mean(), a, k), found.mean()
    first_two = np.sort(p, axis=1)[:, -2:]
    unsure = min_max(1 - (first_two[:, 1] - first_two[:, 0]), free)
    low = span = 0.0
    picks: list[int] = []
    for step in range(budget):
        degree = np.array([((d[i] < mean) & ~inside).sum() for i in range(len(h))], dtype=float)
        rest = [int(i) for i in np.flatnonzero(free) if i not in picks]
        if step == 0 or rescale:
            over = rest if rescale else np.flatnonzero(free)
            low, span = degree[over].min(), max(1.0, np.ptp(degree[over]))
        score = S * unsure + (1 - S) * (degree - low) / span
        picks.append(max(rest, key=lambda i: score[i]))
        inside |= d[picks[-1]] < mean
    return picks
