"""Which strategies beat random, in words: one test each, on the area under the budget curve over rounds.

The tests are adjusted among themselves (Holm 1979) and nothing else: with k strategies there are k - 1 of them. Beside
each stands the smallest effect that the design would have found, so that "not better" is not read as "no different".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from alfm.errors import UserError
from alfm.results.pairing import Curves
from alfm.results.pairs import curves_of, gap
from alfm.results.power import smallest_effect
from alfm.results.replicates import per_unit
from alfm.results.statistics import ALPHA, MIN_SEEDS, holm, mean_interval, paired_t_test, verdict

if TYPE_CHECKING:
    import pandas as pd

POWER = 0.8


def against_random(curves: Curves, reference: str = "random") -> pd.DataFrame:
    """Every strategy of one setting against the reference, the best first.

    Columns: strategy, seeds, units (how many of them count), gap (better than the reference by so many points, over
    all seeds) with its 95 % t-interval over units, p of the paired t-test and p_holm over all strategies (both NaN
    below `MIN_SEEDS` units), verdict ("better", "worse", "not better than <reference>", "too few seeds", "one start",
    "few starts"), smallest_effect: the gap in points that this many units with this spread show with probability
    `POWER`, whatever the other strategies do (at `ALPHA` over the number of tests, Holm's first step); NaN where there
    is no test. UserError without runs of the reference.
    """
    others = [name for name in curves.strategies if name != reference]
    curves.of(reference)
    return _table(((name, curves) for name in others), reference)


def runs_against_random(
    df: pd.DataFrame, metric: str = "accuracy", label: str = "query_strategy", reference: str = "random"
) -> pd.DataFrame:
    """`against_random` of the runs of one setting, each strategy over the seeds and rounds that it shares with the
    reference, so that only `p_holm` and what follows from it depend on who else is there. One that shares no seed with
    it has 0 seeds and no gap (NaN); UserError where none shares any.

    `df` as for `paired_curves`, which says what it refuses.
    """
    names = list(dict.fromkeys(df[label]))
    if reference not in names:
        raise UserError(f"no runs of {reference!r} to compare with; add query_strategy={reference}")
    others = [name for name in names if name != reference]
    found = curves_of(df, [(name, reference) for name in others], metric, label)
    return _table(((name, curves) for name, _, curves in found), reference, others)


def _table(pairs: Iterable[tuple[str, Curves]], reference: str, names: Iterable[str] = ()) -> pd.DataFrame:
    """names: who has a row of its own, of 0 seeds, without a pair too."""
    import pandas as pd

    rows, spreads = [], []
    for name, curves in pairs:
        better, unit = gap(curves, name, reference)
        mean, half = (float(100 * value) for value in mean_interval(better, unit=unit))
        own = 100 * per_unit(better, unit)
        p = float(paired_t_test(own)) if len(own) >= MIN_SEEDS else np.nan
        rows.append((name, len(better), len(own), mean, mean - half, mean + half, p))
        spreads.append(float(own.std(ddof=1)) if len(own) >= MIN_SEEDS else np.nan)
    told = {row[0] for row in rows}
    for name in (one for one in names if one not in told):
        rows.append((name, 0, 0, np.nan, np.nan, np.nan, np.nan))
        spreads.append(np.nan)
    table = pd.DataFrame(rows, columns=["strategy", "seeds", "units", "gap", "low", "high", "p"])
    tested = table["p"].notna()
    table["p_holm"] = np.nan
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"].to_numpy())
    table["verdict"] = [verdict(row, reference) for row in table.itertuples()]
    alpha = ALPHA / max(1, int(tested.sum()))
    table["smallest_effect"] = [
        smallest_effect(*one, alpha, POWER) for one in zip(spreads, table["units"], strict=True)
    ]
    return table.sort_values("gap", ascending=False, kind="stable", ignore_index=True)
