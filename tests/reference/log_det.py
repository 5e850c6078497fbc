"""Log determinant and its query-conditioned form (Kothawade et al. 2021, table 1) in plain NumPy."""

from __future__ import annotations

import numpy as np
from reference.facility_location import greedy


def log_det(
    h: np.ndarray,
    labelled: list[int],
    free: np.ndarray,
    budget: int,
    query: list[int] | None = None,
    ridge: float = 0.01,
    eta: float = 1.0,
) -> list[int]:
    """log det S_A; about a query set Q: log det S_A - log det(S_A - eta^2 S_AQ S_Q^-1 S_QA), A this batch alone."""
    u = h / np.linalg.norm(h, axis=1, keepdims=True)
    s = u @ u.T + ridge * np.eye(len(u))

    def information(A: list[int]) -> float:
        left = s[np.ix_(A, A)] - eta**2 * s[np.ix_(A, query)] @ np.linalg.solve(
            s[np.ix_(query, query)], s[np.ix_(query, A)]
        )
        return float(np.linalg.slogdet(s[np.ix_(A, A)])[1] - np.linalg.slogdet(left)[1])

    if query:
        return greedy(information, [], free, budget)
    return greedy(lambda A: float(np.linalg.slogdet(s[np.ix_(A, A)])[1]), labelled, free, budget)
