"""How small an effect would a paired design have found?"""

from __future__ import annotations

from functools import cache

import numpy as np


def smallest_effect(spread: float, n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """The true mean difference that a two-sided paired t-test at `alpha` finds with probability `power`.

    spread: standard deviation of the paired differences, in whose unit the answer is; n: how many there are. From the
    noncentral t distribution (Cohen 1988, section 2.5). NaN for fewer than two differences or a spread that is not
    known, 0 without spread.
    """
    return float("nan") if n < 2 or not spread >= 0 else spread * _smallest(n, alpha, power)


@cache
def _smallest(n: int, alpha: float, power: float) -> float:
    """For a spread of 1."""
    from scipy import optimize, stats

    limit = stats.t.ppf(1 - alpha / 2, n - 1)

    def found(shift: float) -> float:  # on the right side: the other one is no finding
        return stats.nct.sf(limit, n - 1, shift)

    highest = limit + 1.0
    while found(highest) < power:
        highest *= 2
    return float(optimize.brentq(lambda shift: found(shift) - power, 0.0, highest) / np.sqrt(n))
