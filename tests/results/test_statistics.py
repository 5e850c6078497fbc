from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest
from made_runs import noisy, runs
from scikit_posthocs import posthoc_nemenyi_friedman
from scipy import stats
from statsmodels.stats.multitest import multipletests

from alfm.errors import UserError
from alfm.metrics import METRICS, area_under_budget_curve
from alfm.report.tables import summary_table
from alfm.results.pairing import paired_curves
from alfm.results.setting import settings_of
from alfm.results.statistics import (
    average_ranks,
    better_than_random,
    holm,
    label_efficiency,
    mean_interval,
    paired_t_test,
    penalty_matrix,
    ranks_over_seeds,
    reachable_p,
    regret,
    signed_rank_test,
    wilcoxon_holm,
)

SEEDS = list(range(12))


def three() -> pd.DataFrame:
    return pd.concat([runs("random", noisy(0, 1)), runs("margins", noisy(0.05, 2)), runs("entropy", noisy(0, 3))])


def test_pairing_by_seed_whatever_the_order() -> None:
    df = three().sample(frac=1, random_state=4)
    curves = paired_curves(df)
    assert curves.values.shape == (3, 12, 21)
    row = df[(df["query_strategy"] == "entropy") & (df["seed"] == curves.seeds[5]) & (df["round"] == 3)]
    assert curves.of("entropy")[5, 3] == row["accuracy"].item()
    assert curves.num_labeled.tolist() == list(range(10, 220, 10))
    assert curves.areas()[0, 0] == pytest.approx(np.trapezoid(curves.values[0, 0]) / 20)


def test_only_common_seeds_and_rounds() -> None:
    short = runs("margins", noisy(0.05, 2)[:, :8])
    df = pd.concat([runs("random", noisy(0, 1)), short[short["seed"] > 3]])
    curves = paired_curves(df)
    assert curves.seeds == list(range(4, 12))
    assert curves.values.shape == (2, 8, 8)


def drawn(strategy: str, values: np.ndarray, *partitions: int) -> pd.DataFrame:
    """The first seeds under the first partition, the next under the second: one run each."""
    parts = np.array_split(values, len(partitions))
    frames = [runs(strategy, own, draw=f"partition={p}") for p, own in zip(partitions, parts, strict=True)]
    for p, frame in zip(partitions, frames, strict=True):
        frame["initial"] += f" of {p}"
        frame["picked"] += f" of {p}"
    return pd.concat(frames)


def test_replicates_of_several_draws_are_one_design() -> None:
    values = {"random": noisy(0, 1), "margins": noisy(0.05, 2)}
    plain = paired_curves(pd.concat([runs(name, own) for name, own in values.items()]))
    curves = paired_curves(pd.concat([drawn(name, own, 1, 2, 3) for name, own in values.items()]))
    assert curves.seeds == [f"partition={p}/{seed}" for p in (1, 2, 3) for seed in range(4)]
    np.testing.assert_array_equal(curves.values, plain.values)
    assert curves.sample_size == 12 and not curves.left_out
    for test in (wilcoxon_holm, penalty_matrix):
        pd.testing.assert_frame_equal(test(curves), test(plain))
    df = pd.concat([drawn(name, own, 1, 2, 3) for name, own in values.items()])
    assert better_than_random(df)["verdict"].tolist() == ["better"] * 3


def test_draws_of_different_sizes_are_compared_round_by_round() -> None:
    """5 % of a pool of 300 items and of one of 290 are different numbers of labels, in one round."""
    values = {"random": noisy(0, 1), "margins": noisy(0.05, 2)}
    alike = pd.concat([drawn(name, own, 1, 2, 3) for name, own in values.items()])
    differ = alike.assign(num_labeled=alike["num_labeled"] * 10 + alike["draw"].map(lambda draw: int(draw[-1]) - 1))
    curves, expected = paired_curves(differ), paired_curves(alike)
    np.testing.assert_array_equal(curves.values, expected.values)
    np.testing.assert_array_equal(curves.num_labeled, expected.num_labeled * 10 + 1)
    (setting,) = settings_of(differ)
    assert sorted(setting.shared["num_labeled"].unique()) == curves.num_labeled.tolist()
    costs = dict.fromkeys(("fit_seconds", "query_seconds", "eval_seconds", "peak_memory_bytes"), 0.0)
    table = summary_table(setting.shared.assign(**costs, num_replicates=4), "accuracy", "")
    last = curves.num_labeled[-1]
    assert any(f"of {last - 1} to {last + 1} labels" in note for note in table.notes)
    odd = differ["draw"].eq("partition=2") & differ["query_strategy"].eq("margins")
    with pytest.raises(UserError, match="margins and random label different numbers of items"):
        paired_curves(differ.assign(num_labeled=differ["num_labeled"] + odd))
    with pytest.raises(UserError, match="seeds 0 and 1 of random label different numbers of items"):
        paired_curves(three().assign(num_labeled=lambda df: df["num_labeled"] + df["seed"]))


def test_draws_that_a_strategy_lacks_are_left_out_and_named() -> None:
    df = pd.concat([drawn("random", noisy(0, 1), 1, 2, 3), drawn("margins", noisy(0.05, 2)[:8], 1, 2)])
    curves = paired_curves(df)
    assert len(curves.seeds) == 8
    assert curves.left_out == {"partition=3": ["margins"]}
    apart = pd.concat([drawn("random", noisy(0, 1), 1), drawn("margins", noisy(0.05, 2), 2)])
    with pytest.raises(UserError, match=r"no seed of one draw .* \(missing: partition=1: margins; partition=2: random"):
        paired_curves(apart)


def test_several_seeds_from_one_partition_are_one_observation() -> None:
    df = pd.concat([drawn("random", noisy(0, 1), 1, 2), drawn("margins", noisy(0.05, 2), 1, 2)])
    df["initial"] = df["draw"]
    assert paired_curves(df).sample_size == 2
    with pytest.raises(UserError, match="more draws"):
        wilcoxon_holm(paired_curves(df))


def broken(how: str) -> pd.DataFrame:
    df = three().reset_index(drop=True)
    of_margins = df["query_strategy"] == "margins"
    if how == "initial":
        df.loc[of_margins & (df["seed"] == 3), "initial"] = "elsewhere"
    elif how == "budget":
        df.loc[of_margins, "num_labeled"] += 1
    elif how == "setting":
        df.loc[of_margins, "classifier"] = "dropout"
    elif how == "twice":
        df = pd.concat([df, df[of_margins]])
    elif how == "seeds":
        df.loc[of_margins, "seed"] += 100
    elif how == "nan":
        df.loc[7, "accuracy"] = np.nan
    return df


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("initial", "began seed 3 with different items"),
        ("budget", "different numbers of items"),
        ("setting", r"different classifier \(logistic / dropout\) cannot be paired"),
        ("twice", "several runs of 'margins'"),
        ("seeds", "no seed is common"),
        ("nan", "accuracy is NaN"),
    ],
)
def test_what_cannot_be_paired_is_refused(how: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        paired_curves(broken(how))


def test_misspelt_names() -> None:
    with pytest.raises(UserError, match="did you mean accuracy"):
        paired_curves(three(), "acuracy")
    with pytest.raises(UserError, match="did you mean margins"):
        paired_curves(three()).of("margin")


def test_mean_interval() -> None:
    values = np.random.default_rng(0).normal(size=(9, 4))
    mean, half = mean_interval(values)
    low, high = stats.t.interval(0.95, 8, loc=values.mean(0), scale=stats.sem(values))
    np.testing.assert_allclose([mean - half, mean + half], [low, high])
    assert np.isnan(mean_interval(values[:1])[1]).all()


def test_paired_t_test() -> None:
    gap = np.random.default_rng(0).normal(0.3, 1, size=(11, 5))
    np.testing.assert_allclose(paired_t_test(gap), stats.ttest_1samp(gap, 0).pvalue)


def test_differences_without_variance_have_a_verdict() -> None:
    same, constant = np.zeros((10, 1)), np.full((10, 1), 0.02)
    rounding = np.array([1e-17, -1e-17] * 5)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = paired_t_test(np.hstack([same, constant, -constant, rounding]))
    np.testing.assert_allclose(p, [1, 2**-9, 2**-9, 1])


def test_holm() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1, 1])


def test_penalty_matrix_equals_the_definition() -> None:
    curves = paired_curves(three())
    got = penalty_matrix(curves)
    for a in curves.strategies:
        for b in curves.strategies:
            share = 0.0
            for t in range(1, 21):
                x, y = curves.of(a)[:, t], curves.of(b)[:, t]
                share += a != b and stats.ttest_rel(x, y).pvalue < 0.05 and x.mean() > y.mean()
            assert got.loc[a, b] == pytest.approx(share / 20), (a, b)
    assert got.loc["margins", "random"] > 0.9
    assert penalty_matrix(curves, checkpoints=[4, 20]).loc["margins", "random"] in (0, 0.5, 1)


def test_lower_is_better_for_nll() -> None:
    curves = paired_curves(three(), "nll")
    assert penalty_matrix(curves).loc["random", "margins"] > 0.9
    assert penalty_matrix(curves).loc["margins", "random"] == 0
    table = wilcoxon_holm(curves)
    assert "margins" not in set(table.loc[table["p_holm"] < 0.05, "better"])
    verdicts = better_than_random(three(), metric="nll").set_index(["band", "strategy"])["verdict"]
    assert verdicts["low", "margins"] == "worse"


def test_wilcoxon_holm() -> None:
    curves = paired_curves(pd.concat([three(), runs("copy", noisy(0, 1))]))
    table = wilcoxon_holm(curves)
    assert len(table) == 6
    assert (table["gap"] >= 0).all()
    areas = dict(zip(curves.strategies, curves.areas(), strict=True))
    for row in table.itertuples():
        gap = areas[row.better] - areas[row.worse]
        assert row.gap == pytest.approx(gap.mean())
        if {row.better, row.worse} == {"copy", "random"}:
            assert row.p == 1  # no difference at all, and no NaN
        else:
            assert row.p == pytest.approx(stats.wilcoxon(gap).pvalue)
    np.testing.assert_allclose(table["p_holm"], holm(table["p"].to_numpy()))


@pytest.mark.parametrize("kind", ["plain", "ties", "zeros"])
def test_wilcoxon_is_exact(kind: str) -> None:
    gap = np.random.default_rng(5).normal(0.4, 1, size=11)
    if kind != "plain":
        gap = np.round(2 * gap) / 2  # many equal sizes
    gap = gap if kind == "zeros" else np.where(gap == 0, 0.5, gap)
    left = gap[gap != 0]
    assert (len(left) < 11) == (kind == "zeros")
    # every assignment of signs, counted
    signs = np.array(list(itertools.product([-1, 1], repeat=len(left))))
    ranks = stats.rankdata(np.abs(left))
    sums = (signs > 0) @ ranks
    seen = ranks[left > 0].sum()
    expected = min(1, 2 * min((sums <= seen).mean(), (sums >= seen).mean()))
    assert signed_rank_test(gap) == pytest.approx(expected)
    assert signed_rank_test(-gap) == pytest.approx(expected)


def test_ranks() -> None:
    # Demsar (2006), table 6: four algorithms on 14 data sets
    scores = pd.DataFrame(
        {
            "C4.5": [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1, 0.94, 0.619, 0.972, 0.957],
            "C4.5+m": [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1, 0.962, 0.666, 0.981, 0.978],
            "C4.5+cf": [0.771, 0.59, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1, 0.965, 0.614, 0.9751, 0.946],
            "both": [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1, 0.962, 0.669, 0.975, 0.97],
        }
    )
    ranks = average_ranks(scores)
    assert ranks.average.round(3).to_dict() == {"both": 1.964, "C4.5+m": 2.0, "C4.5+cf": 2.893, "C4.5": 3.143}
    assert ranks.critical_difference == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=2e-3)
    assert ranks.friedman_p == pytest.approx(stats.friedmanchisquare(*scores.to_numpy().T).pvalue)
    assert average_ranks(-scores, higher_is_better=False).average.equals(ranks.average)
    assert average_ranks(pd.DataFrame(np.ones((4, 3)))).friedman_p == 1.0
    with pytest.raises(UserError, match="at least 3 strategies"):
        average_ranks(scores[["C4.5", "both"]])
    with pytest.raises(UserError, match="missing"):
        average_ranks(scores.mask(scores > 0.99))


def test_golden_numbers() -> None:
    """Whole tables against SciPy, statsmodels and scikit-posthocs: the areas of five strategies over twelve seeds."""
    levels = {"random": 0.0, "margins": 0.004, "entropy": 0.001, "coreset": -0.03, "badge": 0.008}
    curves = paired_curves(pd.concat([runs(name, noisy(mean, i)) for i, (name, mean) in enumerate(levels.items())]))
    areas = pd.DataFrame(dict(zip(levels, curves.areas(), strict=True)))
    table = wilcoxon_holm(curves)
    p = [stats.wilcoxon(areas[row.better], areas[row.worse]).pvalue for row in table.itertuples()]
    np.testing.assert_allclose(table["p"], p)
    np.testing.assert_allclose(table["p_holm"], multipletests(p, method="holm")[1])
    assert 0 < (table["p_holm"] < 0.05).sum() < len(table)
    ranks = ranks_over_seeds(curves)
    assert ranks.friedman_p == pytest.approx(stats.friedmanchisquare(*areas.to_numpy().T).pvalue)
    nemenyi = posthoc_nemenyi_friedman(areas)
    apart = {(a, b): abs(ranks.average[a] - ranks.average[b]) > ranks.critical_difference for a, b in both_ways(levels)}
    assert apart == {(a, b): nemenyi.loc[a, b] < 0.05 for a, b in both_ways(levels)}
    assert 0 < sum(apart.values()) < len(apart)
    at = range(1, 21)
    shares = {(a, b): 0.0 for a, b in both_ways(levels)}
    for round_ in at:
        values = dict(zip(levels, curves.values[:, :, round_], strict=True))
        for a, b in shares:
            found = stats.ttest_rel(values[a], values[b])
            shares[a, b] += (found.pvalue < 0.05 and found.statistic > 0) / len(at)
    penalties = penalty_matrix(curves)
    assert {pair: penalties.loc[pair] for pair in shares} == pytest.approx(shares)


def both_ways(names: Iterable[str]) -> list[tuple[str, str]]:
    return list(itertools.permutations(names, 2))


def test_both_areas() -> None:
    """By hand: labels 1, 2, 4, 8. Over rounds (0.2/2 + 0.4 + 0.6 + 0.8/2) / 3; over labels the trapezoids 0.3 x 1,
    0.5 x 2 and 0.7 x 4 over 7."""
    values, labels = np.array([0.2, 0.4, 0.6, 0.8]), np.array([1, 2, 4, 8])
    assert area_under_budget_curve(values, labels) == pytest.approx(0.5)
    assert area_under_budget_curve(values, labels, "labels") == pytest.approx(4.1 / 7)
    assert area_under_budget_curve(values, labels, "labels") == pytest.approx(np.trapezoid(values, labels) / 7)


def test_a_p_that_so_many_pairs_cannot_bring_below_005_is_not_told() -> None:
    df = pd.concat([runs(f"s{i}", noisy(0.01 * i, i, n=10)) for i in range(8)])
    table = wilcoxon_holm(paired_curves(df))  # 28 pairs, 2^-9 each: 0.0547
    assert table["p_holm"].isna().all() and table["p"].min() == 2**-9
    assert reachable_p(10, 28) == 28 / 512 and reachable_p(10, 25) < 0.05 and reachable_p(2, 9) == 1
    assert wilcoxon_holm(paired_curves(df[df["query_strategy"] != "s0"]))["p_holm"].notna().all()


def test_label_efficiency() -> None:
    straight = np.tile(np.array([0.2, 0.4, 0.6, 0.8]), (2, 1))  # random: 10, 20, 30, 40 labels
    fast = np.tile(np.array([0.2, 0.5, 0.1, 0.9]), (2, 1))
    table = label_efficiency(paired_curves(pd.concat([runs("random", straight), runs("fast", fast)])))
    assert table["num_labeled"].tolist() == [10, 20, 30, 40]
    np.testing.assert_allclose(table["efficiency"], [1, 25 / 20, 10 / 30, 1])
    assert table["bound"].tolist() == ["", "", "<", ">"]


def test_label_efficiency_where_the_reference_dips() -> None:
    dip = np.tile(np.array([0.2, 0.6, 0.5, 0.8]), (2, 1))
    half = np.tile(np.array([0.2, 0.4, 0.7, 0.8]), (2, 1))
    table = label_efficiency(paired_curves(pd.concat([runs("random", dip), runs("half", half)])))
    np.testing.assert_allclose(table["efficiency"], [1, 15 / 20, 35 / 30, 1])
    assert (table["bound"] == "").all()


def test_regret() -> None:
    flat = {"random": 0.5, "boss": 0.9, "margins": 0.8, "bad": 0.4}
    df = pd.concat([runs(name, np.full((2, 3), value) * [0, 1, 1]) for name, value in flat.items()])
    got = regret(paired_curves(df))
    assert got == pytest.approx({"random": 1, "boss": 0, "margins": 0.25, "bad": 1.25})
    with pytest.raises(UserError, match="no runs of 'boss'"):
        regret(paired_curves(df[df["query_strategy"] != "boss"]))
    with pytest.raises(UserError, match="no scale"):
        regret(paired_curves(df), oracle="bad")


def test_better_than_random() -> None:
    worse = noisy(0, 5)
    worse[:, 1:7] -= 0.05  # bad at the start, like random later
    df = pd.concat([three(), runs("coreset", worse), runs("copy", noisy(0, 1))])
    table = better_than_random(df).set_index(["band", "strategy"])
    assert len(table) == 3 * 4
    assert set(table.loc[(slice(None), "margins"), "verdict"]) == {"better"}
    assert table.loc["low", "coreset"]["verdict"] == "worse"
    assert table.loc["high", "coreset"]["verdict"] == "not better than random"
    assert table.loc["middle", "copy"][["gap", "p", "verdict"]].tolist() == [0, 1, "not better than random"]
    gap = 100 * (noisy(0.05, 2) - noisy(0, 1))[:, 7:14].mean(axis=1)
    cell = table.loc["middle", "margins"]
    assert cell["gap"] == pytest.approx(gap.mean())
    assert cell["p"] == pytest.approx(stats.ttest_1samp(gap, 0).pvalue)
    assert (cell["low"], cell["high"]) == pytest.approx(stats.t.interval(0.95, 11, gap.mean(), stats.sem(gap)))
    low = table.loc["low"]
    np.testing.assert_allclose(low["p_holm"], holm(low["p"].to_numpy()))


def test_better_than_random_with_few_seeds_or_rounds() -> None:
    df = three()
    table = better_than_random(df[df["seed"] < 9])
    assert set(table["verdict"]) == {"too few seeds"}
    assert table["gap"].notna().all()
    assert set(better_than_random(df[df["round"] < 10])["band"]) == {"low", "middle"}
    for test in (penalty_matrix, wilcoxon_holm):
        with pytest.raises(UserError, match="at least 10 seeds, these runs share 9"):
            test(paired_curves(df[df["seed"] < 9]))


def test_better_than_random_keeps_settings_and_starts_apart() -> None:
    df = pd.concat([three(), three().assign(dataset="dtd"), runs("own", noisy(0, 1), init_strategy="centroid")])
    table = better_than_random(df)
    assert table.groupby("dataset").size().to_dict() == {"digits": 6, "dtd": 6}
    assert "own" not in set(table["strategy"])
    with pytest.raises(UserError, match="no runs of 'random'"):
        better_than_random(df[df["query_strategy"] != "random"])
    with pytest.raises(UserError, match="different items"):
        better_than_random(broken("initial"))
    with pytest.raises(UserError, match="band 'odd'"):
        better_than_random(df, bands={"odd": (0, 3)})


def test_runs_of_unknown_start_are_not_paired() -> None:
    with pytest.raises(UserError, match="without the column `initial`"):
        paired_curves(three().drop(columns="initial"))


# -- seeds that repeat one another ------------------------------------------------------------------------------------


def from_one_start(strategy: str, different: int, mean: float = 0.0, seeds: int = 12) -> pd.DataFrame:
    """Runs that all begin with the same items; seeds beyond `different` pick what one before them picked."""
    of = np.arange(seeds) % different
    df = runs(strategy, noisy(mean, len(strategy), n=1)[:, :1] + 0 * noisy(0, 1, n=seeds), initial="one set")
    df["picked"] = [
        f"{strategy} of {of[s]} to {r}" if r else "one set" for s, r in zip(df["seed"], df["round"], strict=True)
    ]
    for metric in METRICS:
        values = noisy(mean, len(strategy), n=different)[of]
        values[:, 0] = 0.5
        df[metric] = values.reshape(-1)
    return df


def test_copies_of_one_curve_are_one_observation() -> None:
    df = pd.concat(
        [from_one_start(name, 1, mean) for name, mean in (("random", 0), ("margins", 0.05), ("entropy", -0.1))]
    )
    curves = paired_curves(df)
    assert curves.sample_size == 1
    for test in (penalty_matrix, wilcoxon_holm, ranks_over_seeds):
        with pytest.raises(
            UserError, match=r"all 12 seeds began with the same items .*margins 1.*init_strategy=random"
        ):
            test(curves)
    table = better_than_random(df)
    assert set(table["verdict"]) == {"one start"}
    assert table[["low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert table["gap"].notna().all() and set(table["seeds"]) == {12} and set(table["units"]) == {1}


def test_one_deterministic_curve_against_many_random_ones_is_one_observation() -> None:
    df = pd.concat([from_one_start("random", 12), from_one_start("margins", 1, 0.05)])
    assert paired_curves(df).sample_size == 1
    assert set(better_than_random(df)["verdict"]) == {"one start"}
    with pytest.raises(UserError, match="margins 1"):
        wilcoxon_holm(paired_curves(df))


def test_strategies_that_draw_from_one_start_are_tested() -> None:
    df = pd.concat(
        [from_one_start("random", 12), from_one_start("badge", 12, 0.05), from_one_start("uherding", 2, 0.05)]
    )
    assert paired_curves(df).sample_size == 2
    table = better_than_random(df).set_index(["band", "strategy"])
    assert table.loc["high", "badge"]["verdict"] == "better"
    assert table.loc["high", "uherding"][["units", "verdict"]].tolist() == [2, "few starts"]
    both = paired_curves(df[df["query_strategy"] != "uherding"])
    assert both.sample_size == 12
    assert penalty_matrix(both).loc["badge", "random"] > 0.9


def test_copies_do_not_shrink_intervals_or_p() -> None:
    once = pd.concat([from_one_start("random", 12), from_one_start("badge", 12, 0.01)])
    often = pd.concat([from_one_start("random", 12, seeds=36), from_one_start("badge", 12, 0.01, seeds=36)])
    few, many = better_than_random(once), better_than_random(often)
    assert set(many["seeds"]) == {36} and set(many["units"]) == {12}
    np.testing.assert_allclose(many[["gap", "low", "high", "p"]], few[["gap", "low", "high", "p"]])
    few_curves, many_curves = paired_curves(once), paired_curves(often)
    pd.testing.assert_frame_equal(penalty_matrix(many_curves), penalty_matrix(few_curves))
    np.testing.assert_allclose(wilcoxon_holm(many_curves)["p"], wilcoxon_holm(few_curves)["p"])
    values = np.array([1.0, 2.0, 4.0])
    assert mean_interval(np.repeat(values, 5), unit=np.repeat(np.arange(3), 5)) == pytest.approx(mean_interval(values))


def test_initial_sets_that_repeat_count_once_however_different_the_picks() -> None:
    df = three()
    df["initial"] = "start of " + (df["seed"] % 2).astype(str)
    for metric in METRICS:
        df.loc[df["round"] == 0, metric] = 0.5
    curves = paired_curves(df)
    assert curves.sample_size == 2
    with pytest.raises(UserError, match="at least 10 different initial sets, the 12 seeds began with 2"):
        penalty_matrix(curves)


def test_a_band_counts_what_was_picked_by_its_end() -> None:
    df = pd.concat([from_one_start("random", 12), from_one_start("badge", 12, 0.05)], ignore_index=True)
    early = df["round"] < 7  # all picked the same in the low band
    df.loc[early, "picked"] = df["query_strategy"] + " to " + df["round"].astype(str)
    table = better_than_random(df).set_index("band")
    assert table["verdict"].to_dict() == {"low": "one start", "middle": "better", "high": "better"}
    assert penalty_matrix(paired_curves(df), checkpoints=[3]).loc["badge", "random"] == 0


def test_ranks_over_seeds() -> None:
    df = pd.concat([three(), runs("coreset", noisy(-0.2, 6))])
    ranks = ranks_over_seeds(paired_curves(df))
    assert (ranks.average.index[0], ranks.average.index[-1], ranks.num_blocks) == ("margins", "coreset", 12)
    with pytest.raises(UserError, match="at least 10 seeds, these runs share 9"):
        ranks_over_seeds(paired_curves(df[df["seed"] < 9]))


def test_a_single_difference_has_no_p() -> None:
    assert np.isnan(paired_t_test(np.ones((1, 3)))).all()


# -- runs that must not be paired -------------------------------------------------------------------------------------


def test_runs_under_other_conditions_are_refused_by_the_keys_that_differ() -> None:
    weak = three().assign(conditions='{"classifier": {"strength": 0.001}, "splits": {"test": "test"}}')
    strong = weak.assign(conditions='{"classifier": {"strength": 10}, "splits": {"test": "train"}}')
    df = pd.concat([weak[weak["query_strategy"] == "random"], strong[strong["query_strategy"] == "margins"]])
    with pytest.raises(UserError) as refusal:
        paired_curves(df)
    assert "classifier.strength (0.001 / 10); splits.test (test / train)" in str(refusal.value)
    with pytest.raises(UserError, match="no runs of 'random'"):
        better_than_random(df[df["query_strategy"] == "margins"])
    with pytest.raises(UserError, match="different cache"):
        paired_curves(pd.concat([runs("random", noisy(0, 1), cache="a"), runs("margins", noisy(0, 2), cache="b")]))


def test_one_name_for_two_sets_of_options_is_refused() -> None:
    few, many = (runs("margins", noisy(0, 2), query_options=f'{{"oversample": {k}}}') for k in (5, 50))
    df = pd.concat([runs("random", noisy(0, 1), query_options="{}"), few[few["seed"] < 6], many[many["seed"] >= 6]])
    with pytest.raises(UserError, match=r"'margins' stands for runs that differ \(oversample: 5 / 50\)"):
        paired_curves(df)


@pytest.mark.parametrize(("metric", "by"), [("accuracy", 3 / 500), ("nll", 0.002)])
def test_first_rounds_that_disagree_on_the_same_items_are_named(metric: str, by: float) -> None:
    df = three().reset_index(drop=True)
    df["accuracy"] = (df["accuracy"] * 500).round() / 500  # counts over 500 test items
    at = (df["query_strategy"] == "margins") & (df["seed"] == 3) & (df["round"] == 0)
    df.loc[at, "accuracy"] += 1 / 500  # one item: another device may do that
    paired_curves(df)
    df.loc[at, metric] += by
    with pytest.raises(UserError, match=rf"random and margins began seed 3 with the same items, .*\({metric}"):
        paired_curves(df)
