from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from alfm.results.power import smallest_effect
from alfm.results.statistics import paired_t_test


@pytest.mark.parametrize(
    ("n", "alpha", "power"), [(2, 0.05, 0.8), (10, 0.05, 0.8), (20, 0.05 / 11, 0.9), (400, 0.01, 0.5)]
)
def test_smallest_effect_is_that_of_statsmodels(n: int, alpha: float, power: float) -> None:
    expected = TTestPower().solve_power(nobs=n, alpha=alpha, power=power)
    assert smallest_effect(1.0, n, alpha, power) == pytest.approx(float(np.squeeze(expected)), rel=1e-4)
    assert smallest_effect(2.5, n, alpha, power) == pytest.approx(2.5 * float(np.squeeze(expected)), rel=1e-4)


def test_an_effect_of_that_size_is_found_so_often() -> None:
    shift = smallest_effect(2.0, 10)
    assert shift == pytest.approx(1.992, abs=2e-3)  # ten seeds: an effect as large as the spread
    gaps = np.random.default_rng(0).normal(shift, 2.0, (10, 20_000))
    assert (paired_t_test(gaps) < 0.05).mean() == pytest.approx(0.8, abs=0.01)


def test_without_spread_or_without_a_second_difference() -> None:
    assert smallest_effect(0.0, 10) == 0
    assert np.isnan([smallest_effect(1.0, 1), smallest_effect(float("nan"), 10)]).all()
