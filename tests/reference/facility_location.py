"""Facility location and its query-conditioned form (Kothawade et al. 2021, table 1) in plain NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def similarity(h: np.ndarray) -> np.ndarray:
    """Cosines, negative ones count as 0; (N, D) -> (N, N)."""
    u = h / np.linalg.norm(h, axis=1, keepdims=True)
    return np.maximum(u @ u.T, 0)


def greedy(value: Callable[[list[int]], float], start: list[int], free: np.ndarray, budget: int) -> list[int]:
    """Repeatedly the free item that makes a set function largest, the function taken anew every time."""
    picks: list[int] = []
    for _ in range(budget):
        rest = [int(i) for i in np.flatnonzero(free) if i not in picks]
        picks.append(max(rest, key=lambda i: value([*start, *picks, i])))
    return picks


def facility_location(
    h: np.ndarray,
    labelled: list[int],
    free: np.ndarray,
    budget: int,
    query: list[int] | None = None,
    eta: float = 1.0,
    form: str = "flvmi",
) -> list[int]:
    """sum_n max_A s_na, A labelled or picked.

    About a query set Q, A picked alone: `flvmi` sum_n min(max_A s_na, eta max_Q s_nq), `flqmi` sum_Q max_A s_qa + eta
    sum_A max_Q s_aq.
    """
    s = similarity(h)
    if not query:
        return greedy(lambda A: float(s[:, A].max(1).sum()), labelled, free, budget)
    if form == "flqmi":
        like = eta * s[:, query].max(1)
        return greedy(lambda A: float(s[query][:, A].max(1).sum() + like[A].sum()), [], free, budget)
    cap = eta * s[:, query].max(1)
    return greedy(lambda A: float(np.minimum(s[:, A].max(1), cap).sum()), [], free, budget)
