"""Robust k-center: the smallest radius at which `budget` new centres cover all but a few outliers, by mixed integers.

Sener & Savarese 2018 (1708.00489), section 4.2 and algorithm 2: k-center greedy gives a radius at most twice the best
one; a bisection over the distances below it asks a mixed-integer solver (SciPy's HiGHS) whether a radius is feasible.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, hstack, identity


def robust_k_center(
    distance: np.ndarray, centres: np.ndarray, allowed: np.ndarray, greedy: np.ndarray, outliers: int, seconds: float
) -> tuple[np.ndarray, float]:
    """New centres int64 (at most len(greedy),) and the radius they reach.

    distance: float64 (N, N); centres: rows that are centres already; allowed: bool (N,); greedy: the picks of k-center
    greedy, which give the first radius and the answer when nothing better is found; outliers: how many items may stay
    uncovered; seconds: limit of each question to the solver, a question without an answer counts as infeasible (the
    answer may then depend on how busy the machine is).
    """
    reach = distance[:, np.concatenate([centres, greedy]).astype(np.int64)].min(1)
    best = greedy
    upper = float(np.sort(reach)[len(reach) - 1 - outliers])
    candidates = np.flatnonzero(allowed)
    covered_by_old = distance[:, centres].min(1) if len(centres) else np.full(len(distance), np.inf)
    # the best radius is one of the distances, and with no outliers at least half of the greedy one
    lower = upper / 2 if outliers == 0 else 0.0
    values = np.unique(distance[:, candidates])
    values = values[(values >= lower) & (values < upper)]
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        found = _cover(
            distance[:, candidates] <= values[middle], covered_by_old > values[middle], len(greedy), outliers, seconds
        )
        if found is None:
            low = middle + 1
        else:
            high, best, upper = middle, candidates[found], float(values[middle])
    return best, upper


def _cover(inside: np.ndarray, open_: np.ndarray, budget: int, outliers: int, seconds: float) -> np.ndarray | None:
    """Columns of inside (N, m) bool, at most `budget`, that leave at most `outliers` of the open rows uncovered."""
    rows = csr_array(inside[open_].astype(np.float64))
    n, m = rows.shape
    if n <= outliers:
        return np.empty(0, dtype=np.int64)
    # u_j: centre j; z_i: row i stays uncovered. z_i >= 1 - sum_j u_j over the balls that hold i.
    covers = LinearConstraint(hstack([rows, identity(n)], format="csr"), lb=1)
    count = LinearConstraint(np.concatenate([np.ones(m), np.zeros(n)]), ub=budget)
    few = LinearConstraint(np.concatenate([np.zeros(m), np.ones(n)]), ub=outliers)
    answer = milp(
        c=np.zeros(m + n),
        constraints=[covers, count, few],
        integrality=np.concatenate([np.ones(m), np.zeros(n) if outliers == 0 else np.ones(n)]),
        bounds=Bounds(0, np.concatenate([np.ones(m), np.full(n, 1.0 if outliers else 0.0)])),
        options={"time_limit": seconds},
    )
    return None if answer.x is None else np.flatnonzero(answer.x[:m] > 0.5)
