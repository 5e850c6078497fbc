"""What is said of strategies over several caches: data sets and backbones under the same head, budget and start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from alfm.errors import UserError
from alfm.metrics import METRICS, Scale
from alfm.report.cells import SHARE, Table, TableCell
from alfm.report.comparisons import POINTS, matrix_table, over_note
from alfm.report.significance import enough_seeds
from alfm.results.aggregate import aggregate
from alfm.results.matrix import MIN_CACHES, matrix_over
from alfm.results.pairing import paired_curves
from alfm.results.setting import REFERENCE, Setting
from alfm.results.statistics import MIN_SEEDS, average_ranks

if TYPE_CHECKING:
    import pandas as pd

    from alfm.results.pairing import Curves


def caches_of(settings: Sequence[Setting], metric: str) -> dict[str, dict[str, pd.DataFrame]]:
    """Head, budget and start in words -> cache -> runs of its shared start, of caches that tests can speak of.

    Strategies with fewer than `MIN_SEEDS` seeds that differ are left out, and so is what one cache alone was run with.
    """
    found: dict[str, dict[str, pd.DataFrame]] = {}
    known: set[tuple[str, str]] = set()
    for setting in settings:
        try:
            df = enough_seeds(setting.shared)[0]
            told = paired_curves(df, metric, "strategy").sample_size >= MIN_SEEDS
        except UserError:  # said where the setting is shown
            continue
        rules = ", ".join(filter(None, (setting.rules, f"{setting.start} start" if setting.start else "")))
        cache = setting.names["cache"] or setting.data
        if told and (rules, cache) not in known:  # a copy under another name is no other cache
            known.add((rules, cache))
            found.setdefault(rules, {})[setting.data] = df
    return {rules: caches for rules, caches in found.items() if len(caches) > 1}


def tables_over(settings: Sequence[Setting], metric: str) -> tuple[list[Table], dict[str, pd.DataFrame]]:
    """Printed tables over caches, and the full ones by file name."""
    tables: list[Table] = []
    full: dict[str, pd.DataFrame] = {}
    for i, (rules, caches) in enumerate(caches_of(settings, metric).items(), 1):
        curves = {name: paired_curves(df, metric, "strategy") for name, df in caches.items()}
        pairs = matrix_over(caches, metric, "strategy")
        full[f"over-caches-{i}-matrix"] = pairs
        tables.append(matrix_table(pairs, f"Every two over {len(caches)} caches: {rules}", [over_note(list(caches))]))
        try:
            gains = aggregate(curves)
        except UserError as reason:
            tables[-1].notes.append(f"No gains over {REFERENCE}: {reason}.")
        else:
            full[f"over-caches-{i}-gains"] = gains
            tables.append(_gains(gains, rules))
        if (ranks := rank_table(rules, curves, metric)) is not None:
            tables.append(ranks)
    return tables, full


def _gains(gains: pd.DataFrame, rules: str) -> Table:
    rows = [
        [
            TableCell(row.strategy),
            *(TableCell(value, POINTS) for value in (row.iqm, row.low, row.high)),
            *(TableCell(value, SHARE) for value in (row.improvement, row.improvement_low, row.improvement_high)),
        ]
        for row in gains.itertuples()
    ]
    note = (
        f"gain: area under the budget curve above that of {REFERENCE} in points, interquartile mean over the seeds of "
        "all caches (the middle half). improvement: how often a run of the strategy is better than one of "
        f"{REFERENCE}. 95 % intervals: stratified bootstrap, the same seeds for all strategies (Agarwal et al. 2021)."
    )
    title = f"Gain over {REFERENCE} on {gains['caches'].iloc[0]} caches: {rules}"
    return Table(title, ["strategy", "gain", "low", "high", "improvement", "low", "high"], rows, [note])


def rank_tables(settings: Sequence[Setting], metric: str) -> list[Table]:
    """Ranks over caches alone, of every head, budget and start that enough of them share."""
    every = caches_of(settings, metric).items()
    curves = ((rules, {name: paired_curves(df, metric, "strategy") for name, df in of.items()}) for rules, of in every)
    return [table for rules, of in curves if (table := rank_table(rules, of, metric)) is not None]


def rank_table(rules: str, curves: Mapping[str, Curves], metric: str) -> Table | None:
    """Ranks over caches, of the strategies that all of them have; None below `MIN_CACHES` or three strategies."""
    import pandas as pd

    if len(curves) < MIN_CACHES:
        return None
    areas = {
        name: dict(zip(one.strategies, one.areas().mean(axis=1).tolist(), strict=True)) for name, one in curves.items()
    }
    every = pd.DataFrame(areas).T
    scores = every.dropna(axis=1)
    if scores.shape[1] < 3:
        return None
    ranks = average_ranks(scores, METRICS[metric].higher_is_better)
    notes = [
        f"Mean rank by AUBC ({metric}) over {ranks.num_blocks} caches; Friedman p = {ranks.friedman_p:.2g}, Nemenyi "
        f"critical difference {ranks.critical_difference:.1f}: closer strategies are not told apart. Ranks depend on "
        "who else is ranked, the matrix does not."
    ]
    if missing := [str(name) for name in every.columns if name not in scores.columns]:
        notes.append(f"Not on every cache, so not ranked: {', '.join(missing)}.")
    rows = [[TableCell(str(name)), TableCell(rank, Scale(digits=2))] for name, rank in ranks.average.items()]
    return Table(f"Ranks of query strategies over caches: {rules}", ["strategy", "rank"], rows, notes)
