"""What a setting's runs say of one another: every strategy against random, and every two strategies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from alfm.metrics import Scale
from alfm.report.cells import P_VALUE, Table, TableCell
from alfm.results.against_random import POWER, runs_against_random
from alfm.results.matrix import MIN_CACHES, matrix_of
from alfm.results.setting import REFERENCE, Setting, under_test
from alfm.results.statistics import ALPHA, MIN_SEEDS

if TYPE_CHECKING:
    import pandas as pd

POINTS = Scale(digits=2, sign="+")
_SIZE = Scale(digits=2)
_MOST = 16
"""Strategies of the largest matrix that is printed; larger ones are written to files alone."""


def against_tables(setting: Setting, metric: str) -> tuple[list[Table], dict[str, pd.DataFrame]]:
    """Every strategy of the shared start against random, and the full table; nothing where there is no such pair.

    Raises UserError where the runs cannot be paired.
    """
    names = set(setting.shared["strategy"])
    if REFERENCE not in names or len(names) < 2:
        return [], {}
    found = runs_against_random(setting.shared, metric, "strategy")
    tested = bool(found["p"].notna().any())
    header = ["strategy", "verdict", "gap", "low", "high", *(["p", "p Holm", "found from"] if tested else [])]
    rows = [
        [
            TableCell(row.strategy),
            TableCell(row.verdict),
            *(TableCell(value, POINTS) for value in (row.gap, row.low, row.high)),
            *([TableCell(row.p, P_VALUE), TableCell(row.p_holm, P_VALUE)] if tested else []),
            *([TableCell(row.smallest_effect, _SIZE)] if tested else []),
        ]
        for row in found.itertuples()
    ]
    notes = [
        f"gap: area under the budget curve over rounds, in points above that of {REFERENCE}, with its 95 % interval"
        + (f"; paired t-tests, Holm over the strategies (p < {ALPHA})." if tested else ".")
    ]
    if tested:
        notes.append(
            f"found from: the gap that so many seeds with this spread show with a probability of {POWER:.0%}; smaller "
            f"ones are not ruled out by 'not better than {REFERENCE}'."
        )
    if few := sorted(set(found.loc[found["p"].isna(), "strategy"])):
        notes.append(f"No test below {MIN_SEEDS} seeds that differ: {', '.join(few)}.")
    title = f"Against {REFERENCE}, {under_test(setting.shared)}: {setting.start_title}"
    return [Table(title, header, rows, notes, words=2)], {"against_random": found}


def matrix_tables(setting: Setting, metric: str) -> tuple[list[Table], dict[str, pd.DataFrame]]:
    """Every two strategies of the shared start, the best first, and the full table. UserError as `against_tables`."""
    if setting.shared["strategy"].nunique() < 2:
        return [], {}
    pairs = matrix_of(setting.shared, metric, "strategy")
    if setting.shared["strategy"].nunique() > _MOST:
        return [], {"matrix": pairs}
    p = f"; p of Wilcoxon's signed ranks, not adjusted, from {MIN_SEEDS} seeds that differ on"
    note = (
        "Row minus column: area under the budget curve over rounds in points; wins / ties / losses of the row over "
        f"seeds{p if pairs['p'].notna().any() else ''}."
    )
    title = f"Every two of the {under_test(setting.shared)}: {setting.start_title}"
    return [matrix_table(pairs, title, [note])], {"matrix": pairs}


def matrix_table(pairs: pd.DataFrame, title: str, notes: Sequence[str]) -> Table:
    """A matrix of `alfm.results.matrix` as a square, the strategy with the largest mean difference first."""
    order = pairs.groupby("a")["difference"].mean().sort_values(ascending=False, kind="stable").index.tolist()
    cells = {(row.a, row.b): _pair(row) for row in pairs.itertuples()}
    empty = TableCell(None)
    rows = [[TableCell(str(a)), *(cells.get((a, b), empty) for b in order)] for a in order]
    return Table(title, ["minus", *map(str, order)], rows, list(notes))


def over_note(caches: Sequence[str]) -> str:
    """What the numbers of a matrix over caches are."""
    p = "" if len(caches) < MIN_CACHES else "; p of Wilcoxon's signed ranks over caches, not adjusted"
    return (
        "Row minus column: mean over caches of the area under the budget curve in points; wins / ties / losses over "
        f"caches{p}. Caches: {', '.join(caches)}."
    )


def _pair(row: object) -> TableCell:
    counts = f"{row.wins}/{row.ties}/{row.losses}"  # type: ignore[attr-defined]
    p = row.p  # type: ignore[attr-defined]
    mark = counts if np.isnan(p) else f"{counts} {P_VALUE.named(p)}"
    return TableCell(row.difference, POINTS, mark)  # type: ignore[attr-defined]
