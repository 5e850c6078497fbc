"""Every strategy beside every other, and in words beside random."""

from __future__ import annotations

from typing import Any

from alfm.errors import UserError
from alfm.metrics import Scale
from alfm.report.cells import Table, TableCell
from alfm.report.html.known import Known, shown
from alfm.report.html.parts import Section
from alfm.report.html.pictures import Estimate, Forest, Matrix, P
from alfm.report.significance import standings
from alfm.results.setting import REFERENCE
from alfm.results.statistics import MIN_SEEDS

_POINTS = Scale(digits=2, sign="+")
MATRIX_NOTE = (
    "Row minus column, in {points} of the mean over all rounds: the difference, its paired 95 % interval, and how many "
    "seeds the row won, tied and lost. p: Wilcoxon's signed ranks, unadjusted, so that a cell stays what it is when a "
    "strategy joins; with many cells some fall below 0.05 by chance."
)


def matrix(known: Known) -> Section | None:
    """The central picture."""
    if known.matrix is None or not len(known.matrix):
        return None
    note = MATRIX_NOTE.format(points=known.points)
    if known.matrix["p"].isna().any():
        note += f" No p where fewer than {MIN_SEEDS} seeds differ."
    k = len(known.strategies)
    if len(known.matrix) < k * (k - 1):
        note += " -: no seed in common."
    title = f"Every strategy beside every other: {known.setting.data}"
    picture = Matrix(f"{known.stem}-matrix", title, known.strategies, known.matrix, note)
    return Section(f"{known.stem}-matrix", "Every strategy beside every other", [note], [picture])


def verdicts(known: Known) -> Section | None:
    """Against random: the tests that are adjusted, in words."""
    tests = known.tests
    if tests is None:
        return None
    rows = [
        Estimate(shown(r.strategy), r.gap, r.low, r.high, r.verdict) for r in tests.dropna(subset="gap").itertuples()
    ]
    title = f"Mean over all rounds, beside {REFERENCE}: {known.setting.data}"
    x = f"{known.points} above {REFERENCE}"
    picture = Forest(f"{known.stem}-verdicts", title, x, rows, Scale(digits=2))
    columns = ["strategy", "verdict", "seeds", x, "low", "high", "p (Holm)", "finds 4 of 5 times"]
    cells = [
        [
            TableCell(shown(r.strategy)), TableCell(r.verdict), TableCell(_seeds(r)),
            *(TableCell(v, _POINTS) for v in (r.gap, r.low, r.high)),
            TableCell(r.p_holm, P), TableCell(r.smallest_effect, Scale(digits=2)),
        ]
        for r in tests.itertuples()
    ]  # fmt: skip
    count = int(tests["p_holm"].notna().sum())
    note = (
        f"Paired t-tests on the area under the budget curve, Holm over these {count} tests. Finds: the true gain that "
        "this design shows four times in five; what is smaller may be missed."
        if count
        else f"No tests: they need {MIN_SEEDS} seeds that differ."
    )
    table = Table(f"Verdicts: {known.setting.data}", columns, cells, [note], words=2)
    blocks: list[Table | Forest] = [picture, table]
    lead = ["Better, worse, or not told apart: averaged over all rounds, by seeds that began with the same items."]
    try:
        title = f"How often each is better, and its mean rank over seeds: {known.setting.data}"
        blocks.append(standings(known.shared, known.metric, title))
    except UserError as reason:
        lead.append(f"No ranks: {reason}.")
    return Section(f"{known.stem}-verdicts", f"Verdicts beside {REFERENCE}", lead, blocks)


def _seeds(row: Any) -> str:
    return str(row.seeds) if row.units == row.seeds else f"{row.seeds}, {row.units} differ"
