"""Graph cut and its query-conditioned form (Kothawade et al. 2021, table 1) in plain NumPy."""

from __future__ import annotations

import numpy as np
from reference.facility_location import greedy, similarity


def graph_cut(
    h: np.ndarray,
    labelled: list[int],
    free: np.ndarray,
    budget: int,
    query: list[int] | None = None,
    trade: float = 0.5,
) -> list[int]:
    """sum_n sum_A s_na - trade sum_A sum_A s_ab; about a query set Q: 2 trade sum_A sum_Q s_aq."""
    s = similarity(h)
    if query:
        return greedy(lambda A: float(2 * s[A][:, query].sum()), [], free, budget)
    return greedy(lambda A: float(s[:, A].sum() - trade * s[A][:, A].sum()), labelled, free, budget)
