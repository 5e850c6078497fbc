"""The table of tests: who beats whom, over the seeds of one setting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from alfm.errors import UserError
from alfm.metrics import Scale
from alfm.report.cells import ABOVE, ALIKE, BETTER, OPEN, WORSE, Table, TableCell
from alfm.results import statistics as st
from alfm.results.pairing import Curves, lacking, paired_curves
from alfm.results.replicates import REPLICATE, counted
from alfm.results.setting import REFERENCE, Setting, under_test, units_of
from alfm.results.statistics import MIN_SEEDS

if TYPE_CHECKING:
    import pandas as pd

_ORACLE = "boss"
_TENTHS, _HUNDREDTHS = Scale(digits=1), Scale(digits=2)
_POINTS = Scale(digits=1, sign="+")
MARKS = {"better": BETTER, "worse": WORSE, f"not better than {REFERENCE}": ALIKE}


@dataclass
class _Part:
    """Columns by name, each a cell by strategy; what is said of them; and the full tables behind them, by file name."""

    columns: dict[str, dict[str, TableCell]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    full: dict[str, pd.DataFrame] = field(default_factory=dict)


def statistics_table(setting: Setting, metric: str) -> tuple[Table, dict[str, pd.DataFrame]] | None:
    """All tests of the shared start in one table, and the full tables behind it; None with a single strategy.

    Raises UserError where the runs cannot be paired or have too few seeds that differ: then there is no significance to
    speak of.
    """
    if setting.shared["strategy"].nunique() < 2:
        return None
    df, few = enough_seeds(setting.shared)
    curves = paired_curves(df, metric, "strategy")
    ranks = st.ranks_over_seeds(curves) if len(curves.strategies) > 2 else None
    parts = [_pairs(curves), _penalties(curves), _ranks(ranks)]
    if REFERENCE in curves.strategies:
        parts += [_bands(df, metric), _efficiency(curves), _regret(curves)]
    columns = {name: cells for part in parts for name, cells in part.columns.items()}
    order = list(curves.strategies if ranks is None else ranks.average.index)
    rows = [[TableCell(s), *(cells.get(s, TableCell(None)) for cells in columns.values())] for s in order]
    notes = [_pairing(curves, few, df["draw"].nunique()), *(note for part in parts for note in part.notes)]
    title = f"Statistics of {under_test(df)}: {setting.start_title}"
    full = {name: table for part in parts for name, table in part.full.items()}
    return Table(title, ["strategy", *columns], rows, notes), full


def standings(shared: pd.DataFrame, metric: str, title: str) -> Table:
    """Who beats how many, penalties and ranks over seeds: what `statistics_table` says without a word about random.

    Raises UserError as `statistics_table` does.
    """
    df, few = enough_seeds(shared)
    curves = st.paired_curves(df, metric, "strategy")
    ranks = st.ranks_over_seeds(curves) if len(curves.strategies) > 2 else None
    draws = df["draw"].nunique() if "draw" in df else 1
    parts = [_pairs(curves), _penalties(curves), _ranks(ranks)]
    columns = {name: cells for part in parts for name, cells in part.columns.items()}
    order = list(curves.strategies if ranks is None else ranks.average.index)
    rows = [[TableCell(s), *(cells.get(s, TableCell(None)) for cells in columns.values())] for s in order]
    notes = [_pairing(curves, few, draws), *(note for part in parts for note in part.notes)]
    return Table(title, ["strategy", *columns], rows, notes)


def enough_seeds(shared: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Runs of the strategies with enough seeds that differ, and the other strategies; all runs where nobody has."""
    ends = shared.sort_values("round").groupby(["strategy", *REPLICATE], sort=False).tail(1)
    few = [str(name) for name, rows in ends.groupby("strategy", sort=False) if units_of(rows).max() + 1 < MIN_SEEDS]
    if shared["strategy"].nunique() - len(few) < 2:
        few = []
    return shared[~shared["strategy"].isin(few)], few


def _pairing(curves: Curves, few: list[str], draws: int) -> str:
    """Over how many seeds, which of them count, and who is left out."""
    size, count = curves.sample_size, counted(len(curves.seeds), draws - len(curves.left_out))
    note = f"Paired over {count}{f', of which {size} differ' if size < len(curves.seeds) else ''}."
    if curves.left_out:
        note += f" Draws that not all strategies have are left out (missing: {lacking(curves.left_out)})."
    if few:
        note += f" Fewer than {MIN_SEEDS} seeds that differ, so left out: {', '.join(few)}."
    if len(set(curves.initial)) == 1:
        note += " All seeds began with the same items: differences hold for that start."
    return note


def _pairs(curves: Curves) -> _Part:
    """How many strategies each beats, and is beaten by."""
    pairs = st.wilcoxon_holm(curves)
    part = _Part(full={"wilcoxon": pairs})
    reachable = st.reachable_p(curves.sample_size, len(pairs))
    if reachable < st.ALPHA:
        sure = pairs[pairs["p_holm"] < st.ALPHA]
        for name, side in (("beats", "better"), ("beaten by", "worse")):
            part.columns[name] = {s: TableCell(int((sure[side] == s).sum())) for s in curves.strategies}
        part.notes.append(f"beats, beaten by: strategies, by Wilcoxon on AUBC with Holm (p < {st.ALPHA}).")
    else:  # a column of zeros would read as "all alike"
        part.notes.append(
            f"Wilcoxon with Holm over {len(pairs)} pairs cannot go below p = {reachable:.2g} with this many seeds: "
            "compare fewer strategies, or add seeds."
        )
    return part


def _penalties(curves: Curves) -> _Part:
    matrix = st.penalty_matrix(curves)
    return _Part(
        {"penalty": {s: TableCell(matrix[s].mean(), _HUNDREDTHS) for s in curves.strategies}},
        ["penalty: mean share of rounds in which another strategy is better by a paired t-test."],
        {"penalties": matrix},
    )


def _ranks(ranks: st.Ranks | None) -> _Part:
    if ranks is None:
        return _Part()
    note = f"rank: mean over seeds by AUBC; Friedman p = {ranks.friedman_p:.2g}."
    return _Part({"rank": {str(s): TableCell(rank, _TENTHS) for s, rank in ranks.average.items()}}, [note])


def _bands(df: pd.DataFrame, metric: str) -> _Part:
    """Gaps to the reference in each band of rounds."""
    bands = st.better_than_random(df, metric=metric, label="strategy")
    part = _Part(full={"better_than_random": bands})
    for band, own in bands.groupby("band", sort=False):
        first, last = st.BANDS[str(band)]
        part.columns[f"{band} {first}-{last}"] = {
            row.strategy: TableCell(row.gap, _POINTS, MARKS.get(row.verdict, OPEN)) for row in own.itertuples()
        }
    part.notes.append(
        f"Rounds of each band: points above {REFERENCE} (paired t-test, Holm over strategies), '{ALIKE}': not better "
        f"than {REFERENCE}, '{OPEN}': too few seeds that differ by then."
    )
    return part


def _efficiency(curves: Curves) -> _Part:
    """In the round with half of the labels."""
    table = st.label_efficiency(curves)
    half = int(curves.num_labeled[np.searchsorted(curves.num_labeled, curves.num_labeled[-1] / 2)])
    there = table[table["num_labeled"] == half]
    cells = {row.strategy: TableCell(row.efficiency, _HUNDREDTHS, row.bound) for row in there.itertuples()}
    note = (
        f"efficiency: labels {REFERENCE} needs to be as good as the strategy with {half} labels, over {half}; "
        f"'{ABOVE}' where it never is."
    )
    return _Part({f"efficiency at {half}": cells}, [note], {"label_efficiency": table})


def _regret(curves: Curves) -> _Part:
    if _ORACLE not in curves.strategies:
        return _Part()
    try:
        gaps = st.regret(curves, _ORACLE, REFERENCE)
    except UserError as reason:
        return _Part(notes=[f"No regret: {reason}."])
    note = f"regret: share of the oracle's ({_ORACLE}) lead over {REFERENCE} that is missing, on AUBC."
    return _Part({"regret": {s: TableCell(gaps[s], _HUNDREDTHS) for s in curves.strategies}}, [note])
