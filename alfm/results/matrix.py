"""The multi-comparison matrix: every two strategies, and nothing but the two.

Mean difference with a paired interval, wins, ties and losses, and the unadjusted p of Wilcoxon's signed ranks, so that
a cell says the same whoever else is in the table (Ismail-Fawaz et al. 2023, arXiv 2305.11921; Benavoli et al. 2016,
JMLR 17). Differences are of areas under the budget curve over rounds, in points (hundredths), positive where the first
is better.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from alfm.results.pairing import SAME, Curves
from alfm.results.pairs import curves_of, gap
from alfm.results.replicates import per_unit
from alfm.results.statistics import MIN_SEEDS, mean_interval, signed_rank_test

if TYPE_CHECKING:
    import pandas as pd

MIN_CACHES = 6
"""Below it Wilcoxon's p over caches cannot get below 0.05 (with five of them not below 0.0625)."""
Gap = tuple[str, str, np.ndarray, np.ndarray]
"""a, b, by how much a is better in the metric's unit, float64 (n,), and the unit of each of the n, int64 (n,)."""
COLUMNS = ["a", "b", "units", "difference", "low", "high", "wins", "ties", "losses", "p"]


def comparison_matrix(curves: Curves) -> pd.DataFrame:
    """Every two strategies of one setting, both ways. For runs that do not share all their seeds see `matrix_of`.

    Columns: a, b, units (how many seeds count as replicates of their own, by what these two picked), difference (a
    minus b, over all seeds) with its 95 % t-interval over units (NaN for one), wins, ties and losses of a over units,
    and p, NaN below `MIN_SEEDS` units.
    """
    return of_gaps(_gaps(curves))


def matrix_of(df: pd.DataFrame, metric: str = "accuracy", label: str = "query_strategy") -> pd.DataFrame:
    """`comparison_matrix` of the runs of one setting, each pair over the seeds and rounds that its two have in common.

    So a pair's row stays what it is when a strategy joins, even one with fewer seeds. `df` as for `paired_curves`,
    which says what it refuses.
    """
    return of_gaps(_gaps_of(df, metric, label))


def comparison_over(curves_by_cache: Mapping[str, Curves]) -> pd.DataFrame:
    """Every two strategies over caches, both ways: one mean difference a cache, of the caches that have both.

    Columns as of `comparison_matrix`; units: how many caches; low, high and p are NaN below `MIN_CACHES` of them.
    """
    return _over(_gaps(curves) for curves in curves_by_cache.values())


def matrix_over(df_by_cache: Mapping[str, pd.DataFrame], metric: str, label: str = "query_strategy") -> pd.DataFrame:
    """`comparison_over` of the runs of one setting per cache, each pair as in `matrix_of`."""
    return _over(_gaps_of(df, metric, label) for df in df_by_cache.values())


def _gaps(curves: Curves) -> Iterator[Gap]:
    for a, b in combinations(curves.strategies, 2):
        yield a, b, *gap(curves, a, b)


def _gaps_of(df: pd.DataFrame, metric: str, label: str) -> Iterator[Gap]:
    for a, b, curves in curves_of(df, combinations(dict.fromkeys(df[label]), 2), metric, label):
        yield a, b, *gap(curves, a, b)


def _over(caches: Iterable[Iterable[Gap]]) -> pd.DataFrame:
    means: dict[tuple[str, str], list[float]] = {}
    for gaps in caches:
        for a, b, better, _ in gaps:
            if (b, a) in means:  # strategies need not stand in one order in all caches
                means[b, a].append(-better.mean())
            else:
                means.setdefault((a, b), []).append(better.mean())
    table = of_gaps(((a, b, np.array(own), np.arange(len(own))) for (a, b), own in means.items()), MIN_CACHES)
    table.loc[table["units"] < MIN_CACHES, ["low", "high"]] = np.nan
    return table


def of_gaps(gaps: Iterable[Gap], least: int = MIN_SEEDS) -> pd.DataFrame:
    """Every gap as a row, both ways: the columns of `comparison_matrix`; p is NaN below `least` units."""
    import pandas as pd

    rows = [_row(*way, least) for a, b, better, unit in gaps for way in ((a, b, better, unit), (b, a, -better, unit))]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(a: str, b: str, better: np.ndarray, unit: np.ndarray, least: int) -> tuple[Any, ...]:
    mean, half = (float(100 * value) for value in mean_interval(better, unit=unit))
    own = per_unit(better, unit)
    wins, losses = int((own > SAME).sum()), int((own < -SAME).sum())
    p = signed_rank_test(own) if len(own) >= least else np.nan
    return a, b, len(own), mean, mean - half, mean + half, wins, len(own) - wins - losses, losses, p
