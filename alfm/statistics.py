"""Is one strategy better than another? Paired tests over seeds, ranks, label efficiency, regret.

Everything here pairs by seed and demands that the paired replicates began with the same items: a difference in
starting sets is not a difference in strategies. Significance is only spoken of from `MIN_SEEDS` seeds on (with 5
pairs a two-sided Wilcoxon test cannot go below p = 0.0625); `mean_interval` serves the rest. Strategies that chance
cannot tell apart get p = 1, never NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alfm.errors import UserError, nearest_names
from alfm.metrics import LOWER_IS_BETTER, METRICS, area_under_budget_curve

if TYPE_CHECKING:
    import pandas as pd

MIN_SEEDS = 10
ALPHA = 0.05
BANDS = {"low": (1, 7), "middle": (8, 14), "high": (15, 21)}
# replicates with the same values here saw the same data under the same rules
SETTING = ["dataset", "model", "classifier", "budget"]
_SAME = 1e-12  # accuracies are counts over test sizes: a difference this small is rounding


@dataclass(frozen=True)
class Curves:
    """Learning curves of S strategies over the same n seeds and T rounds, beginning with the same items per seed.

    `values` float64 (S, n, T) in the metric's unit; `num_labeled` int64 (T,).
    """

    strategies: list[str]
    seeds: list[int]
    num_labeled: np.ndarray
    values: np.ndarray
    metric: str

    @property
    def sign(self) -> int:
        """1 where a higher value is better, else -1."""
        return -1 if self.metric in LOWER_IS_BETTER else 1

    def of(self, strategy: str) -> np.ndarray:
        """One strategy's values, float64 (n, T). UserError for a strategy that is not here."""
        if strategy not in self.strategies:
            raise UserError(f"no runs of {strategy!r} to compare with: {nearest_names(strategy, self.strategies)}")
        return self.values[self.strategies.index(strategy)]

    def areas(self) -> np.ndarray:
        """Area under the budget curve over rounds, float64 (S, n)."""
        return np.array([[area_under_budget_curve(c, self.num_labeled) for c in rows] for rows in self.values])


def check_metric(metric: str) -> None:
    """UserError with the nearest names for a metric that is not measured."""
    if metric not in METRICS:
        raise UserError(f"no metric {metric!r}: {nearest_names(metric, list(METRICS))}")


def paired_curves(df: pd.DataFrame, metric: str = "accuracy", label: str = "query_strategy") -> Curves:
    """Pair the runs of one setting (`SETTING`) by seed.

    `df` as from `alfm.results.load_runs`; `label`: the column that tells the strategies apart. Seeds that not all
    strategies have are left out, and so are rounds beyond the shortest replicate.

    Raises UserError for an unknown metric, NaN values, several settings at once, two runs under one label, no common
    seed, and for replicates of one seed that began with different items or label different numbers of items.
    """
    check_metric(metric)
    if "initial" not in df:
        raise UserError("runs without the column `initial` cannot be paired; load them with alfm.results.load_runs")
    for column in SETTING:
        if column in df and df[column].nunique() > 1:
            values = ", ".join(map(str, df[column].unique()))
            raise UserError(f"runs of different {column} cannot be paired ({values}); compare them one at a time")
    double = df[df.duplicated([label, "seed", "round"])]
    if len(double):
        raise UserError(f"there are several runs of {double[label].iloc[0]!r}; tell them apart by their folders")
    strategies = list(dict.fromkeys(df[label]))
    owners = df.groupby("seed")[label].nunique()
    seeds = [seed for seed in dict.fromkeys(df["seed"].tolist()) if owners[seed] == len(strategies)]
    if not seeds:
        raise UserError(f"no seed is common to {', '.join(strategies)}; run them with the same seeds")
    df = df[df["seed"].isin(seeds)].sort_values("round", kind="stable")
    for seed, group in df.groupby("seed"):
        if group["initial"].nunique() > 1:
            first = group.groupby("initial")[label].first()
            raise UserError(
                f"{first.iloc[0]} and {first.iloc[1]} began seed {seed} with different items and cannot be paired; "
                "run both with the same init_strategy"
            )
    cells = {key: cell for key, cell in df.groupby([label, "seed"])}
    rounds = min(len(cell) for cell in cells.values())
    budget = cells[strategies[0], seeds[0]]["num_labeled"].to_numpy()[:rounds]
    values = np.empty((len(strategies), len(seeds), rounds))
    for s, strategy in enumerate(strategies):
        for i, seed in enumerate(seeds):
            cell = cells[strategy, seed]
            if (cell["num_labeled"].to_numpy()[:rounds] != budget).any():
                raise UserError(
                    f"{strategy} and {strategies[0]} label different numbers of items: same budget=, please"
                )
            values[s, i] = cell[metric].to_numpy()[:rounds]
    if np.isnan(values).any():
        raise UserError(f"{metric} is NaN in some rounds, so the runs cannot be compared by it; choose another metric")
    return Curves(strategies, seeds, budget.astype(np.int64), values, metric)


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the first axis (seeds) and the half width of its t-interval (NaN for one seed).

    `values` float64 (n, ...), returns two float64 (...).
    """
    from scipy import stats

    n = len(values)
    mean = values.mean(axis=0)
    if n < 2:
        return mean, np.full_like(mean, np.nan)
    return mean, stats.t.ppf(0.5 + confidence / 2, n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n)


def paired_t_test(difference: np.ndarray) -> np.ndarray:
    """Two-sided p-values of paired t-tests, `difference` float64 (n, ...) over the first axis -> (...).

    All differences zero: p = 1. All equal and not zero, where t has no meaning: the exact sign test, 2^(1 - n).
    """
    from scipy import stats

    n = len(difference)
    difference = np.where(np.abs(difference) < _SAME, 0.0, difference)
    mean = difference.mean(axis=0)
    deviation = difference.std(axis=0, ddof=1)
    constant = deviation < _SAME
    t = mean / np.where(constant, 1.0, deviation / np.sqrt(n))
    p = 2 * stats.t.sf(np.abs(t), n - 1)
    return np.where(constant, np.where(np.abs(mean) < _SAME, 1.0, 2.0 ** (1 - n)), p)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment (Holm 1979) of p-values (m,)."""
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def penalty_matrix(curves: Curves, checkpoints: Sequence[int] | None = None, alpha: float = ALPHA) -> pd.DataFrame:
    """Pairwise penalty matrix (Ash et al. 2020, arXiv 1906.03671, section 5): entry [a, b] is the share of
    checkpoints at which a beats b in a paired two-sided t-test with p < `alpha`. Column means: how often a strategy
    is beaten, lower is better. The matrices of several settings add up.

    `checkpoints`: indices of rounds; the default is all after the first, which is the same for everyone.
    Raises UserError below `MIN_SEEDS` seeds.
    """
    import pandas as pd

    _need_seeds(curves)
    at = list(range(1, len(curves.num_labeled))) or [0] if checkpoints is None else list(checkpoints)
    wins = np.zeros((len(curves.strategies),) * 2)
    for a in range(len(curves.strategies)):
        for b in range(a):
            gap = curves.sign * (curves.values[a] - curves.values[b])[:, at]
            significant = paired_t_test(gap) < alpha
            wins[a, b] = (significant & (gap.mean(axis=0) > 0)).mean()
            wins[b, a] = (significant & (gap.mean(axis=0) < 0)).mean()
    return pd.DataFrame(wins, index=curves.strategies, columns=curves.strategies)


def wilcoxon_holm(curves: Curves) -> pd.DataFrame:
    """Wilcoxon signed-rank tests of every pair on the area under the budget curve over rounds, Holm-adjusted.

    Columns: better, worse (by mean), gap (>= 0, in the metric's unit), p, p_holm. UserError below `MIN_SEEDS`.
    """
    import pandas as pd

    _need_seeds(curves)
    areas = curves.sign * curves.areas()
    rows = []
    for a, first in enumerate(curves.strategies):
        for b, second in enumerate(curves.strategies[:a]):
            gap = areas[b] - areas[a]
            names = (second, first) if gap.mean() >= 0 else (first, second)
            rows.append((*names, abs(float(gap.mean())), _wilcoxon(gap)))
    table = pd.DataFrame(rows, columns=["better", "worse", "gap", "p"])
    return table.assign(p_holm=holm(table["p"].to_numpy()))


def _wilcoxon(difference: np.ndarray) -> float:
    """Exact two-sided p-value, ties included; zeros are dropped (Wilcoxon's rule), p = 1 when nothing is left.

    SciPy counts permutations one by one when there are ties, a quarter of a second a pair; the distribution of the
    rank sum is a product of (1 + x^rank) / 2, over doubled ranks so that midranks are whole.
    """
    from scipy.stats import rankdata

    rounded = np.round(difference, 12)  # equal differences must tie, whatever their last bits
    left = rounded[rounded != 0]
    ranks = np.round(2 * rankdata(np.abs(left))).astype(int)
    chance = np.zeros(ranks.sum() + 1)  # of each rank sum of the positive differences, were signs fair coins
    chance[0] = 1.0
    for rank in ranks:
        chance[rank:] = (chance[rank:] + chance[: len(chance) - rank]) / 2
        chance[:rank] /= 2
    positive = ranks[left > 0].sum()
    return float(min(1.0, 2 * min(chance[: positive + 1].sum(), chance[positive:].sum())))


@dataclass(frozen=True)
class Ranks:
    """Average ranks (1 = best) over `num_blocks` blocks, best first; strategies whose ranks differ by less than
    `critical_difference` are not told apart by Nemenyi's test, which counts only where Friedman's p is small."""

    average: pd.Series
    friedman_p: float
    critical_difference: float
    num_blocks: int


def average_ranks(scores: pd.DataFrame, higher_is_better: bool = True, alpha: float = ALPHA) -> Ranks:
    """Friedman's test and Nemenyi's critical difference (Demsar 2006, JMLR 7, section 3.2.2).

    `scores`: one row per block (a data set with a model; or, within one of those, a seed), one column per strategy.
    Raises UserError for fewer than 3 strategies, fewer than 2 blocks, or NaN.
    """
    import pandas as pd
    from scipy import stats

    n, k = scores.shape
    if k < 3 or n < 2:
        raise UserError(f"ranks need at least 3 strategies and 2 blocks, these are {k} and {n}")
    if scores.isna().any(axis=None):
        raise UserError("ranks need a value for every strategy in every block; some are missing")
    table = np.round(scores.to_numpy(dtype=np.float64), 12) * (-1 if higher_is_better else 1)
    ranks = stats.rankdata(table, axis=1)
    tied = (ranks == ranks[:, :1]).all()
    p = 1.0 if tied else float(stats.friedmanchisquare(*table.T).pvalue)
    q = stats.studentized_range.ppf(1 - alpha, k, np.inf) / np.sqrt(2)
    average = pd.Series(ranks.mean(axis=0), index=scores.columns).sort_values(kind="stable")
    return Ranks(average, p, float(q * np.sqrt(k * (k + 1) / (6 * n))), n)


def label_efficiency(curves: Curves, reference: str = "random") -> pd.DataFrame:
    """Labels the reference needs to reach a strategy's mean, divided by the labels the strategy used, per round.

    Columns: strategy, num_labeled, value (the strategy's mean), efficiency, bound. The reference's mean curve is
    made monotone (best so far) and read off linearly. `bound` is ">" where the reference never gets there (then
    efficiency is computed from its last budget and the truth is larger), "<" where it was there from the start.
    """
    import pandas as pd

    needed = np.maximum.accumulate(curves.sign * curves.of(reference).mean(axis=0))
    budget = curves.num_labeled.astype(np.float64)
    rows = []
    for strategy in curves.strategies:
        if strategy == reference:
            continue
        for used, value in zip(curves.num_labeled, curves.of(strategy).mean(axis=0), strict=True):
            goal = curves.sign * value
            if goal > needed[-1] + _SAME:
                labels, bound = budget[-1], ">"
            elif goal < needed[0] - _SAME:
                labels, bound = budget[0], "<"
            else:
                labels, bound = _first_crossing(needed, budget, goal), ""
            rows.append((strategy, int(used), float(value), labels / used, bound))
    return pd.DataFrame(rows, columns=["strategy", "num_labeled", "value", "efficiency", "bound"])


def _first_crossing(curve: np.ndarray, budget: np.ndarray, goal: float) -> float:
    """Labels at which a non-decreasing curve first reaches `goal`, which lies within its range."""
    i = int(np.argmax(curve >= goal - _SAME))
    if i == 0:
        return float(budget[0])
    share = (goal - curve[i - 1]) / (curve[i] - curve[i - 1])
    return float(budget[i - 1] + min(1.0, share) * (budget[i] - budget[i - 1]))


def regret(curves: Curves, oracle: str = "boss", reference: str = "random") -> dict[str, float]:
    """(oracle - s) / (oracle - reference) per strategy, on the mean area under the budget curve over rounds.

    0 = as good as the oracle, 1 = as good as the reference. Raises UserError when one of the two has no runs, or
    when the oracle does not beat the reference, so that there is no scale.
    """
    curves.of(oracle), curves.of(reference)
    areas = dict(zip(curves.strategies, curves.sign * curves.areas().mean(axis=1), strict=True))
    scale = areas[oracle] - areas[reference]
    if scale <= _SAME:
        raise UserError(f"{oracle} is not better than {reference} here, so regret has no scale")
    return {name: float((areas[oracle] - area) / scale) for name, area in areas.items()}


def better_than_random(
    df: pd.DataFrame,
    bands: Mapping[str, tuple[int, int]] | None = None,
    metric: str = "accuracy",
    reference: str = "random",
    label: str = "query_strategy",
) -> pd.DataFrame:
    """Does a strategy beat the reference, per setting and band of rounds?

    `bands`: name -> first and last round, counted from 1 = the cold start, both included (default `BANDS`, for 20
    queries after the cold start); a band that begins after the last round is left out. A replicate's value in a band
    is the mean of its rounds; gaps are paired by seed, positive = better than the reference, in points (hundredths;
    `nll` in hundredths of a nat), with their 95 % t-interval. p-values of paired t-tests are Holm-adjusted over the
    strategies of one setting, cold start and band.

    Columns: `SETTING`, init_strategy, band, strategy, seeds, gap, low, high, p, p_holm, verdict ("better", "worse",
    "not better than <reference>", or "too few seeds", where p and p_holm are NaN). Raises UserError as
    `paired_curves`, and when no setting has runs of the reference.
    """
    import pandas as pd

    check_metric(metric)
    bands = BANDS if bands is None else bands
    for name, (first, last) in bands.items():
        if not 1 <= first <= last:
            raise UserError(f"band {name!r} runs from round {first} to {last}: want 1 <= first <= last")
    keys = [*SETTING, "init_strategy"]
    tables = []
    for key, group in df.groupby(keys, sort=False):
        if reference not in set(group[label]):
            continue
        rows = []
        for strategy in dict.fromkeys(group[label]):
            if strategy == reference:
                continue
            curves = paired_curves(group[group[label].isin([strategy, reference])], metric, label)
            gaps = 100 * curves.sign * (curves.of(strategy) - curves.of(reference))
            for band, (first, last) in bands.items():
                if first > gaps.shape[1]:
                    continue
                gap = gaps[:, first - 1 : last].mean(axis=1)
                mean, half = mean_interval(gap)
                enough = len(gap) >= MIN_SEEDS
                p = float(paired_t_test(gap)) if enough else np.nan
                rows.append((*key, band, strategy, len(gap), float(mean), mean - half, mean + half, p))
        columns = [*keys, "band", "strategy", "seeds", "gap", "low", "high", "p"]
        table = pd.DataFrame(rows, columns=columns).assign(p_holm=np.nan)
        for _, family in table[table["p"].notna()].groupby("band"):
            table.loc[family.index, "p_holm"] = holm(family["p"].to_numpy())
        tables.append(table)
    if not tables:
        raise UserError(f"no runs of {reference!r} to compare with; add query_strategy={reference}")
    table = pd.concat(tables, ignore_index=True)
    return table.assign(
        verdict=[_verdict(p, gap, reference) for p, gap in zip(table["p_holm"], table["gap"], strict=True)]
    )


def _verdict(p_holm: float, gap: float, reference: str) -> str:
    if np.isnan(p_holm):
        return "too few seeds"
    if p_holm >= ALPHA:
        return f"not better than {reference}"
    return "better" if gap > 0 else "worse"


def _need_seeds(curves: Curves) -> None:
    if len(curves.seeds) < MIN_SEEDS:
        raise UserError(
            f"significance needs at least {MIN_SEEDS} seeds, these runs share {len(curves.seeds)}; add seeds (the ones "
            "already there are not repeated)"
        )
