from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_runs import noisy, runs
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from alfm.errors import UserError
from alfm.results.against_random import against_random, runs_against_random
from alfm.results.pairing import paired_curves

LEVELS = {"random": 0.0, "margins": 0.05, "entropy": 0.0005, "coreset": -0.05}


@pytest.fixture
def df() -> pd.DataFrame:
    return pd.concat([runs(name, noisy(mean, i)) for i, (name, mean) in enumerate(LEVELS.items())])


def test_one_paired_t_test_each_adjusted_by_holm(df: pd.DataFrame) -> None:
    table = against_random(paired_curves(df))
    assert table["strategy"].tolist()[0] == "margins"  # the best first
    areas = dict(zip(LEVELS, 100 * paired_curves(df).areas(), strict=True))
    for row in table.itertuples():
        gap = areas[row.strategy] - areas["random"]
        assert row.p == pytest.approx(stats.ttest_rel(areas[row.strategy], areas["random"]).pvalue)
        assert (row.gap, row.low, row.high) == pytest.approx(
            (gap.mean(), *stats.t.interval(0.95, 11, gap.mean(), stats.sem(gap)))
        )
        smallest = TTestPower().solve_power(nobs=12, alpha=0.05 / 3, power=0.8)
        assert row.smallest_effect == pytest.approx(float(np.squeeze(smallest)) * gap.std(ddof=1), rel=1e-4)
    np.testing.assert_allclose(table["p_holm"], multipletests(table["p"], method="holm")[1])
    assert dict(zip(table["strategy"], table["verdict"], strict=True)) == {
        "margins": "better", "entropy": "not better than random", "coreset": "worse",
    }  # fmt: skip


def test_only_holm_depends_on_who_else_is_there(df: pd.DataFrame) -> None:
    new = runs("new", noisy(0.001, 9))
    both = pd.concat([df, new[new["seed"] < 10]])
    alone, together = (runs_against_random(one).set_index("strategy") for one in (df, both))
    own = ["seeds", "units", "gap", "low", "high", "p"]
    pd.testing.assert_frame_equal(together.loc[alone.index, own], alone[own])
    assert together.loc["new", "units"] == 10
    assert (together.loc[alone.index, "smallest_effect"] > alone["smallest_effect"]).all()  # of four tests, not three


def test_lower_is_better_for_nll(df: pd.DataFrame) -> None:
    table = runs_against_random(df, "nll").set_index("strategy")
    assert (table.loc["coreset", "verdict"], table.loc["margins", "verdict"]) == ("better", "worse")


def test_few_seeds_have_an_interval_and_no_verdict(df: pd.DataFrame) -> None:
    table = runs_against_random(df[df["seed"] < 9])
    assert set(table["verdict"]) == {"too few seeds"}
    assert table[["p", "p_holm", "smallest_effect"]].isna().all(axis=None)
    assert table[["gap", "low", "high"]].notna().all(axis=None)


def test_a_strategy_with_few_seeds_is_no_test_of_the_family(df: pd.DataFrame) -> None:
    few = df[(df["query_strategy"] != "coreset") | (df["seed"] < 5)]
    table = runs_against_random(few).set_index("strategy")
    assert table.loc["coreset", "verdict"] == "too few seeds"
    assert table.loc["margins", "p_holm"] == pytest.approx(2 * table.loc["margins", "p"])


def test_without_random_there_is_nothing_to_say(df: pd.DataFrame) -> None:
    df = df[df["query_strategy"] != "random"]
    with pytest.raises(UserError, match="no runs of 'random'"):
        runs_against_random(df)
    with pytest.raises(UserError, match="no runs of 'random'"):
        against_random(paired_curves(df))
