from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_runs import noisy, runs
from scipy import stats

from alfm.results.matrix import COLUMNS, comparison_matrix, comparison_over, matrix_of, matrix_over
from alfm.results.pairing import paired_curves

PAIR = ["a", "b"]


def some(seed: int = 0, gain: float = 0.05) -> pd.DataFrame:
    levels = {"random": 0.0, "margins": gain, "entropy": 0.0}
    return pd.concat([runs(name, noisy(mean, 10 * seed + i)) for i, (name, mean) in enumerate(levels.items(), 1)])


def of(df: pd.DataFrame, strategy: str) -> np.ndarray:
    """Areas by seed, in points."""
    table = df[df["query_strategy"] == strategy].pivot(index="seed", columns="round", values="accuracy")
    return 100 * np.trapezoid(table.to_numpy(), axis=1) / (table.shape[1] - 1)


def test_a_cell_equals_scipy() -> None:
    df = some()
    table = comparison_matrix(paired_curves(df))
    assert list(table) == COLUMNS and len(table) == 6
    for row in table.itertuples():
        gap = of(df, row.a) - of(df, row.b)
        low, high = stats.t.interval(0.95, 11, gap.mean(), stats.sem(gap))
        assert (row.difference, row.low, row.high) == pytest.approx((gap.mean(), low, high))
        assert (row.units, row.wins, row.ties, row.losses) == (12, (gap > 0).sum(), 0, (gap < 0).sum())
        assert row.p == pytest.approx(stats.wilcoxon(gap).pvalue)


def test_the_other_way_round_is_the_same_pair() -> None:
    table = comparison_matrix(paired_curves(some())).set_index(PAIR)
    one, other = table.loc["margins", "random"], table.loc["random", "margins"]
    assert one["difference"] > 4.5 and one["wins"] == other["losses"] == 12
    assert (one["difference"], one["low"], one["p"]) == pytest.approx(
        (-other["difference"], -other["high"], other["p"])
    )


def test_lower_is_better_for_nll() -> None:
    table = comparison_matrix(paired_curves(some(), "nll")).set_index(PAIR)
    assert table.loc["margins", "random"]["difference"] < -4.5


def test_ties_are_counted_and_equal_curves_have_p_1() -> None:
    df = pd.concat([runs("random", noisy(0, 1)), runs("copy", noisy(0, 1))])
    row = comparison_matrix(paired_curves(df)).iloc[0]
    assert (row["wins"], row["ties"], row["losses"], row["p"], row["difference"]) == (0, 12, 0, 1, 0)


@pytest.mark.parametrize("joins", ["another", "few seeds", "one start", "fewer rounds"])
def test_a_pair_stays_what_it_is_when_a_strategy_joins(joins: str) -> None:
    """Whatever the newcomer lacks, and whatever it repeats."""
    new = runs("new", noisy(0.02, 9))
    if joins == "few seeds":
        new = new[new["seed"] < 10]
    elif joins == "fewer rounds":
        new = new[new["round"] < 15]
    df = some()
    if joins == "one start":  # then what was picked tells replicates apart
        df, new = df.assign(initial="one"), new.assign(initial="one", picked="the same")
        first = df["round"] == 0
        df.loc[first, ["accuracy", "nll"]] = new.loc[new["round"] == 0, ["accuracy", "nll"]] = 0.5
    before = matrix_of(df)
    after = matrix_of(pd.concat([new, df], ignore_index=True))
    assert len(after) == 12
    kept = after.set_index(PAIR).loc[pd.MultiIndex.from_frame(before[PAIR])].reset_index()
    pd.testing.assert_frame_equal(kept, before)


def test_few_seeds_have_an_interval_and_no_p() -> None:
    df = some()
    table = matrix_of(df[df["seed"] < 9])
    assert table["p"].isna().all() and table[["difference", "low", "high"]].notna().all(axis=None)
    one = matrix_of(df[df["seed"] < 1])
    assert one[["low", "high", "p"]].isna().all(axis=None) and one["difference"].notna().all()


def test_over_caches() -> None:
    frames = {str(i): some(i, gain=0.02 * i).assign(dataset=str(i)) for i in range(1, 7)}
    table = comparison_over({name: paired_curves(df) for name, df in frames.items()})
    pd.testing.assert_frame_equal(matrix_over(frames, "accuracy"), table)
    row = table.set_index(PAIR).loc["margins", "random"]
    gap = np.array([(of(df, "margins") - of(df, "random")).mean() for df in frames.values()])
    assert (row["units"], row["difference"], row["wins"]) == (6, pytest.approx(gap.mean()), 6)
    assert row["p"] == pytest.approx(2 / 64) == stats.wilcoxon(gap).pvalue
    assert (row["low"], row["high"]) == pytest.approx(stats.t.interval(0.95, 5, gap.mean(), stats.sem(gap)))


def test_over_fewer_than_six_caches_there_are_differences_alone() -> None:
    frames = {str(i): some(i).assign(dataset=str(i)) for i in range(5)}
    table = matrix_over(frames, "accuracy")
    assert table[["low", "high", "p"]].isna().all(axis=None)
    assert table["difference"].notna().all() and set(table["units"]) == {5}


def test_a_pair_is_over_the_caches_that_have_both() -> None:
    """In whatever order strategies stand there."""
    frames = {str(i): some(i).assign(dataset=str(i)) for i in range(7)}
    frames["0"] = frames["0"][frames["0"]["query_strategy"] != "entropy"]
    frames["1"] = frames["1"].iloc[::-1]
    table = matrix_over(frames, "accuracy").set_index(PAIR)
    assert (table.loc["margins", "random"]["units"], table.loc["entropy", "random"]["units"]) == (7, 6)
    assert table.loc["margins", "random"]["wins"] == 7 and len(table) == 6
