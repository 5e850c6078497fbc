"""Is one strategy better than another? Paired tests over seeds, ranks, label efficiency, regret.

Everything here pairs by seed and demands that the paired replicates began with the same items under the same
conditions: a difference in starting sets or in heads is not a difference in strategies. Means are over all seeds;
tests and intervals count units (`alfm.results.replicates`), since seeds that picked the same items are one observation.
Significance is only spoken of from `MIN_SEEDS` units on (with 5 pairs a two-sided Wilcoxon test cannot go below p =
0.0625); `mean_interval` serves the rest. Strategies that chance cannot tell apart get p = 1, never NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alfm.errors import UserError
from alfm.results.pairing import COLD_START, SAME, SETTING, Curves, check_metric, paired_curves
from alfm.results.pairs import curves_of, units_of_pair
from alfm.results.replicates import per_unit

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "average_ranks", "better_in_bands", "better_than_random", "holm", "label_efficiency", "mean_interval",
    "paired_curves", "paired_t_test", "penalty_matrix", "ranks_over_seeds", "reachable_p", "regret", "signed_rank_test",
    "wilcoxon_holm",
]  # fmt: skip
MIN_SEEDS = 10
ALPHA = 0.05
BANDS = {"low": (1, 7), "middle": (8, 14), "high": (15, 21)}


def mean_interval(
    values: np.ndarray, confidence: float = 0.95, unit: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the first axis (seeds) and the half width of its t-interval (NaN for one unit).

    `values` float64 (n, ...), returns two float64 (...). `unit` int64 (n,), as from `Curves.units`: seeds of one unit
    count once in the width; None: every seed is a unit.
    """
    from scipy import stats

    mean = values.mean(axis=0)
    values = values if unit is None else per_unit(values, unit)
    n = len(values)
    if n < 2:
        return mean, np.full_like(mean, np.nan)
    return mean, stats.t.ppf(0.5 + confidence / 2, n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n)


def paired_t_test(difference: np.ndarray) -> np.ndarray:
    """Two-sided p-values of paired t-tests, `difference` float64 (n, ...) over the first axis -> (...).

    One row per unit: seeds that picked the same items are averaged before (`alfm.results.replicates.per_unit`). All
    differences zero: p = 1. All equal and not zero, where t has no meaning: the exact sign test, 2^(1 - n). A single
    row: NaN.
    """
    from scipy import stats

    n = len(difference)
    if n < 2:
        return np.full(difference.shape[1:], np.nan)
    difference = np.where(np.abs(difference) < SAME, 0.0, difference)
    mean = difference.mean(axis=0)
    deviation = difference.std(axis=0, ddof=1)
    constant = deviation < SAME
    t = mean / np.where(constant, 1.0, deviation / np.sqrt(n))
    p = 2 * stats.t.sf(np.abs(t), n - 1)
    return np.where(constant, np.where(np.abs(mean) < SAME, 1.0, 2.0 ** (1 - n)), p)


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

    `checkpoints`: indices of rounds; the default is all after the first, which is the same for everyone. Where less
    than `MIN_SEEDS` units differ by then, nobody wins. Raises UserError below `MIN_SEEDS` units in all rounds.
    """
    import pandas as pd

    _need_units(curves)
    at = list(range(1, len(curves.num_labeled))) or [0] if checkpoints is None else list(checkpoints)
    wins = np.zeros((len(curves.strategies),) * 2)
    better, worse = np.tril_indices(len(wins), -1)
    for checkpoint in at:
        unit = curves.units(range(len(curves.num_labeled))[checkpoint] + 1)
        if unit.max() + 1 < MIN_SEEDS:
            continue
        values = np.stack([curves.sign * per_unit(one, unit) for one in curves.values[:, :, checkpoint]])  # (S, units)
        gap = (values[better] - values[worse]).T
        significant = paired_t_test(gap) < alpha
        wins[better, worse] += significant & (gap.mean(axis=0) > 0)
        wins[worse, better] += significant & (gap.mean(axis=0) < 0)
    wins /= len(at)
    return pd.DataFrame(wins, index=curves.strategies, columns=curves.strategies)


def wilcoxon_holm(curves: Curves) -> pd.DataFrame:
    """Wilcoxon signed-rank tests of every pair on the area under the budget curve over rounds, Holm-adjusted.

    Columns: better, worse (by mean), gap (>= 0, in the metric's unit), p, p_holm (NaN where so many pairs cannot get
    below `ALPHA` with so few units, see `reachable_p`). UserError below `MIN_SEEDS` units.
    """
    import pandas as pd

    _need_units(curves)
    unit = curves.units()
    areas = curves.sign * curves.areas()
    rows = []
    for a, first in enumerate(curves.strategies):
        for b, second in enumerate(curves.strategies[:a]):
            gap = areas[b] - areas[a]
            names = (second, first) if gap.mean() >= 0 else (first, second)
            rows.append((*names, abs(float(gap.mean())), signed_rank_test(per_unit(gap, unit))))
    table = pd.DataFrame(rows, columns=["better", "worse", "gap", "p"])
    told = reachable_p(curves.sample_size, len(table)) < ALPHA
    return table.assign(p_holm=holm(table["p"].to_numpy()) if told else np.nan)


def reachable_p(n: int, tests: int = 1) -> float:
    """The smallest p that `signed_rank_test` of n differences can give, Holm-adjusted over so many tests."""
    return min(1.0, 2.0 ** (1 - n) * tests)


def signed_rank_test(difference: np.ndarray) -> float:
    """Wilcoxon's exact two-sided p-value of paired differences (n,), ties included; zeros are dropped, as in Wilcoxon's
    paper, and p = 1 when nothing is left.

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


def ranks_over_seeds(curves: Curves, alpha: float = ALPHA) -> Ranks:
    """`average_ranks` by the area under the budget curve, every unit of seeds a block. UserError below `MIN_SEEDS`."""
    import pandas as pd

    _need_units(curves)
    unit = curves.units()
    areas = np.stack([per_unit(one, unit) for one in curves.areas()])
    return average_ranks(pd.DataFrame(areas.T, columns=curves.strategies), curves.sign > 0, alpha)


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
            if goal > needed[-1] + SAME:
                labels, bound = budget[-1], ">"
            elif goal < needed[0] - SAME:
                labels, bound = budget[0], "<"
            else:
                labels, bound = _first_crossing(needed, budget, goal), ""
            rows.append((strategy, int(used), float(value), labels / used, bound))
    return pd.DataFrame(rows, columns=["strategy", "num_labeled", "value", "efficiency", "bound"])


def _first_crossing(curve: np.ndarray, budget: np.ndarray, goal: float) -> float:
    """Labels at which a non-decreasing curve first reaches `goal`, which lies within its range."""
    i = int(np.argmax(curve >= goal - SAME))
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
    if scale <= SAME:
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

    Columns: `SETTING` and `COLD_START`, band, strategy, seeds, units (how many of them the test counts, by the picks up
    to the band's end), gap, low, high, p, p_holm, verdict ("better", "worse", "not better than <reference>"; or "too
    few seeds", "one start" where all seeds are one unit, "few starts": there p and p_holm are NaN). Raises UserError
    as `paired_curves`, and when no setting has runs of the reference.
    """
    import pandas as pd

    check_metric(metric, df)
    bands = BANDS if bands is None else bands
    for name, (first, last) in bands.items():
        if not 1 <= first <= last:
            raise UserError(f"band {name!r} runs from round {first} to {last}: want 1 <= first <= last")
    keys = [*SETTING, *COLD_START]
    df = df.assign(**{key: df[key].fillna("") if key in df else "" for key in keys})
    tables = []
    for key, group in df.groupby(keys, sort=False):
        names = dict.fromkeys(group[label])
        if reference in names:
            pairs = ((name, reference) for name in names if name != reference)
            table = _bands(((name, of) for name, _, of in curves_of(group, pairs, metric, label)), bands, reference)
            about = pd.DataFrame([key] * len(table), columns=keys, index=table.index)
            tables.append(pd.concat([about, table], axis=1))
    if not tables:
        raise UserError(f"no runs of {reference!r} to compare with; add query_strategy={reference}")
    table = pd.concat(tables, ignore_index=True)
    return table.assign(verdict=[verdict(row, reference) for row in table.itertuples()])


def better_in_bands(
    curves: Curves, bands: Mapping[str, tuple[int, int]] | None = None, reference: str = "random"
) -> pd.DataFrame:
    """`better_than_random` of one setting's curves: its columns from `band` on."""
    curves.of(reference)
    pairs = [(name, curves) for name in curves.strategies if name != reference]
    table = _bands(pairs, BANDS if bands is None else bands, reference)
    return table.assign(verdict=[verdict(row, reference) for row in table.itertuples()])


def _bands(pairs: Iterable[tuple[str, Curves]], bands: Mapping[str, tuple[int, int]], reference: str) -> pd.DataFrame:
    """Of each strategy, in curves that hold it and the reference, and band: units, gap, interval and p."""
    import pandas as pd

    rows = [row for name, curves in pairs for row in _gaps(curves, name, bands, reference)]
    return with_holm(pd.DataFrame(rows, columns=["band", "strategy", "seeds", "units", "gap", "low", "high", "p"]))


def with_holm(table: pd.DataFrame) -> pd.DataFrame:
    """Gaps as `better_than_random` has them, with `p_holm` over the strategies of each band that have a p."""
    table = table.assign(p_holm=np.nan)
    for _, family in table[table["p"].notna()].groupby("band"):
        table.loc[family.index, "p_holm"] = holm(family["p"].to_numpy())
    return table


def _gaps(
    curves: Curves, strategy: str, bands: Mapping[str, tuple[int, int]], reference: str
) -> Iterator[tuple[Any, ...]]:
    """Of every band: band, strategy, seeds, units, gap, low, high, p."""
    gaps = 100 * curves.sign * (curves.of(strategy) - curves.of(reference))
    for band, (first, last) in bands.items():
        if first > gaps.shape[1]:
            continue
        gap = gaps[:, first - 1 : last].mean(axis=1)
        unit = units_of_pair(curves, strategy, reference, min(last, gaps.shape[1]))
        mean, half = mean_interval(gap, unit=unit)
        counted = int(unit.max()) + 1
        p = float(paired_t_test(per_unit(gap, unit))) if counted >= MIN_SEEDS else np.nan
        yield band, strategy, len(gap), counted, float(mean), mean - half, mean + half, p


def verdict(row: Any, reference: str) -> str:
    """What a comparison with the reference says, in words; `row`: its seeds, units, gap and p_holm."""
    if np.isnan(row.p_holm):
        return "too few seeds" if row.units == row.seeds else "one start" if row.units == 1 else "few starts"
    if row.p_holm >= ALPHA:
        return f"not better than {reference}"
    return "better" if row.gap > 0 else "worse"


def _need_units(curves: Curves) -> None:
    """UserError below `MIN_SEEDS` units, with the remedy."""
    seeds, size = len(curves.seeds), curves.sample_size
    if size >= MIN_SEEDS:
        return
    if size == seeds:
        raise UserError(
            f"significance needs at least {MIN_SEEDS} seeds, these runs share {seeds}; add seeds (the ones already "
            "there are not repeated)"
        )
    remedy = f"give all strategies one random start (init_strategy=random) and at least {MIN_SEEDS} seeds"
    if any(isinstance(seed, str) for seed in curves.seeds):
        remedy = "give all strategies more draws (index_sets.partition, pool.seed)"
    if len(set(curves.initial)) > 1:
        raise UserError(
            f"significance needs at least {MIN_SEEDS} different initial sets, the {seeds} seeds began with {size}; "
            f"{remedy}"
        )
    counts = {s: len(set(of[:, -1])) for s, of in zip(curves.strategies, curves.picked, strict=True)}
    few = ", ".join(f"{strategy} {count}" for strategy, count in counts.items() if count < MIN_SEEDS)
    raise UserError(
        f"significance needs at least {MIN_SEEDS} replicates that differ, but all {seeds} seeds began with the same "
        f"items and few picked different ones after that ({few}); {remedy}"
    )
