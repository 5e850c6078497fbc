"""REFINE's progressive filter (Huseljic et al. 2025) in plain NumPy, for members that rank items by a score."""

from __future__ import annotations

import math

import numpy as np


def filtered(
    scores: list[np.ndarray],
    free: np.ndarray,
    budget: int,
    rng: np.random.Generator,
    rounds: int = 5,
    part: float = 0.5,
    share: float = 0.5,
    most: int = 2500,
) -> list[int]:
    """Rows left: each round every score (N,) keeps its best share of a random part of them, and the union goes on."""
    left = [int(i) for i in np.flatnonzero(free)]
    for _ in range(rounds):
        size = min(len(left), max(budget, min(math.ceil(part * len(left)), most)))
        count = min(size, max(budget, math.ceil(share * size)))
        union: set[int] = set()
        for score in scores:
            seen = [left[i] for i in np.sort(rng.choice(len(left), size, replace=False))]
            rng.integers(2**31)  # the seed of the member's own draws
            union |= set(sorted(seen, key=lambda i: (-score[i], i))[:count])
        left = sorted(union)
    return left
