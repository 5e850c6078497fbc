from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_runs import noisy, runs
from scipy import stats

from alfm.errors import UserError
from alfm.results.aggregate import _resampled, aggregate, interquartile_mean, probability_of_improvement
from alfm.results.pairing import Curves, paired_curves

# runs x tasks, and below what the test suite of Agarwal et al. expects of them (rliable, tests/rliable/metrics_test.py)
X = np.array([[1, 2], [2, 2], [1, 1], [2, 1]])
Y = np.array([[1, 1], [2, 2], [3, 3]])


def test_published_values() -> None:
    assert interquartile_mean(X.ravel()) == 1.5
    assert interquartile_mean(Y.ravel()) == 2.0
    assert probability_of_improvement(list(X.T), list(Y.T)) == pytest.approx(1 / 3)
    ascending = np.arange(80).reshape(5, 16)
    assert probability_of_improvement(list(ascending.T), list(ascending[::-1].T)) == 0.5


@pytest.mark.parametrize("n", [1, 3, 4, 7, 20, 41])
def test_interquartile_mean_is_that_of_scipy(n: int) -> None:
    scores = np.random.default_rng(n).normal(size=(3, n))
    np.testing.assert_allclose(interquartile_mean(scores), stats.trim_mean(scores, 0.25, axis=1))


def test_probability_of_improvement_is_that_of_mann_whitney() -> None:
    rng = np.random.default_rng(1)
    x, y = ([rng.integers(0, 6, size) / 6 for size in sizes] for sizes in ((9, 12), (8, 12)))
    counts = [stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)) for a, b in zip(x, y, strict=True)]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(counts))


def caches(**levels: float) -> dict[str, Curves]:
    def runs_on(cache: int) -> pd.DataFrame:
        every = {"random": 0.0, **levels}
        return pd.concat([runs(s, noisy(mean, 10 * cache + i)) for i, (s, mean) in enumerate(every.items())])

    return {str(cache): paired_curves(runs_on(cache)) for cache in range(3)}


def test_the_gain_over_random_of_all_seeds_of_all_caches() -> None:
    given = caches(margins=0.004, worse=-0.02)
    table = aggregate(given).set_index("strategy")
    assert list(table.index) == ["margins", "worse"]
    areas = {name: [c.areas()[c.strategies.index(name)] for c in given.values()] for name in ("random", "margins")}
    gains = np.stack(areas["margins"]) - np.stack(areas["random"])
    row = table.loc["margins"]
    assert (row["caches"], row["iqm"]) == (3, pytest.approx(100 * stats.trim_mean(gains, 0.25, axis=None)))
    assert row["improvement"] == pytest.approx(probability_of_improvement(areas["margins"], areas["random"]))
    assert row["low"] < row["iqm"] < row["high"]
    assert row["improvement_low"] < row["improvement"] < row["improvement_high"]
    assert table.loc["worse", "high"] < 0 and table.loc["worse", "improvement_high"] < 0.5


def test_the_bootstrap_draws_seeds_within_caches_and_the_same_for_all() -> None:
    given = caches(margins=0.004, copy=0.0)
    row = aggregate(given, draws=50, seed=3).set_index("strategy").loc["margins"]
    areas = [100 * c.areas() for c in given.values()]
    iqms, rates = [], []
    gaps = [np.subtract.outer(own[1], own[0]) for own in areas]
    doubled = np.mean([((np.diagonal(one) > 0).mean() - (one > 0).mean()) / 12 for one in gaps])
    drawn = [_resampled(12, 50, 3, i) for i in range(3)]
    for t in range(50):
        x, y = ([own[s][at[t]] for own, at in zip(areas, drawn, strict=True)] for s in (1, 0))
        iqms.append(stats.trim_mean(np.concatenate(x) - np.concatenate(y), 0.25))
        rates.append(probability_of_improvement(x, y) - doubled)
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(iqms, [0.025, 0.975])))
    assert (row["improvement_low"], row["improvement_high"]) == pytest.approx(tuple(np.quantile(rates, [0.025, 0.975])))


def test_the_intervals_hold() -> None:
    """Of the true values, in about 95 of 100 experiments: bootstrap intervals are a little short with twelve seeds."""
    rng = np.random.default_rng(0)
    truth = stats.norm.cdf(0.005 / np.hypot(np.hypot(0.01, 0.01), np.hypot(0.005, 0.005)))
    held = np.zeros((200, 2))
    for i in range(len(held)):
        given = {}
        for cache in "ab":
            shared = rng.normal(0, 0.01, (12, 1))
            areas = np.stack([shared, shared + 0.005], axis=0) + rng.normal(0, 0.005, (2, 12, 1))
            picked = np.arange(24).reshape(2, 12, 1).astype(str).astype(object)
            labels = np.array([10])
            given[cache] = Curves(["random", "x"], list(range(12)), labels, areas, "accuracy", picked[0, :, 0], picked)
        row = aggregate(given, draws=400, seed=i).iloc[0]
        held[i] = row["low"] < 0.5 < row["high"], row["improvement_low"] < truth < row["improvement_high"]
    assert (held.mean(axis=0) > 0.88).all() and (held.mean(axis=0) < 0.99).all(), held.mean(axis=0)


def test_pairing_makes_the_interval_as_narrow_as_the_gains_are() -> None:
    """Seeds differ by 5 points, strategies by 0.2 at a seed."""
    row = aggregate(caches(margins=0.004)).iloc[0]
    assert row["high"] - row["low"] < 1


def test_few_seeds_have_no_interval() -> None:
    few = {
        name: paired_curves(pd.concat([runs("random", noisy(0, 1)[:9]), runs("margins", noisy(0, 2)[:9])]))
        for name in "ab"
    }
    row = aggregate(few).iloc[0]
    assert np.isfinite([row["iqm"], row["improvement"]]).all()
    assert row[["low", "high", "improvement_low", "improvement_high"]].isna().all()


def test_strategies_that_not_all_caches_have_are_left_out_and_random_is_needed() -> None:
    given = caches(margins=0.0)
    more = caches(margins=0.0, badge=0.0)
    assert aggregate({**given, "more": more["0"]})["strategy"].tolist() == ["margins"]
    with pytest.raises(UserError, match="no strategy but random has runs on all 2 caches"):
        aggregate({"a": paired_curves(runs("random", noisy(0, 1))), "b": given["0"]})
    with pytest.raises(UserError, match="no runs of 'rand'"):
        aggregate(given, reference="rand")
