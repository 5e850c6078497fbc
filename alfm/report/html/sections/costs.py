"""Seconds and memory."""

from __future__ import annotations

from alfm.metrics import Scale
from alfm.report.cells import MEGABYTES, SECONDS, Table, TableCell
from alfm.report.html.known import Known
from alfm.report.html.parts import Section
from alfm.report.html.pictures import Bars

_PARTS = ("fit", "query", "eval")
_WORDS = ("fitting heads", "choosing items", "measuring")


def costs(known: Known) -> Section:
    """Of a whole run of one seed."""
    numbers = known.numbers
    rows = {
        str(row["strategy"]): [row[f"{part} seconds"] / row["seeds"] for part in _PARTS]
        for row in numbers.to_dict("records")
    }
    title = f"Seconds for one seed's whole run: {known.setting.data}"
    picture = Bars(f"{known.stem}-seconds", title, "seconds", rows, _WORDS, Scale(digits=2, unit="s"))
    cells = [
        [
            TableCell(row["strategy"]), *(TableCell(v, SECONDS) for v in rows[str(row["strategy"])]),
            TableCell(sum(rows[str(row["strategy"])]), SECONDS), TableCell(row["peak memory bytes"], MEGABYTES),
        ]
        for row in numbers.to_dict("records")
    ]  # fmt: skip
    table = Table(
        f"Time and memory: {known.setting.data}", ["strategy", *_WORDS, "in all, s", "peak MB"], cells,
        ["Wall time of the machine that ran them, seeds side by side: to compare within a factor."],
    )  # fmt: skip
    return Section(f"{known.stem}-costs", "Time and memory", [], [picture, table])
