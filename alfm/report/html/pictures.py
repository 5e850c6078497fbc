"""What a figure shows, before anything draws it; each has the table of its data.

Numbers are in the unit that is shown. `name`: of files and anchors; `title`: for people, and for what reads aloud.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alfm.metrics import Scale
from alfm.report.cells import Table, TableCell

if TYPE_CHECKING:
    import pandas as pd


class _P(Scale):
    """Four digits; what is smaller is not 0."""

    def text(self, value: float) -> str:
        return "<0.0001" if value < 1e-4 else f"{value:.4f}"


WHOLE, P = Scale(digits=0), _P()


@dataclass(frozen=True)
class Series:
    """A curve: its points, and half the width of their intervals (NaN where there is none)."""

    name: str
    x: Sequence[float]
    middle: Sequence[float]
    half: Sequence[float]


@dataclass(frozen=True)
class Lines:
    """Curves over labels. levels: named heights, drawn dashed across; zero: a line where nothing is gained."""

    name: str
    title: str
    y: str
    series: Sequence[Series]
    unit: Scale
    x: str = "labels paid for"
    levels: Mapping[str, float] = field(default_factory=dict)
    zero: bool = False
    data: Table | None = None

    @property
    def span(self) -> tuple[float, float] | None:
        """Where the axis ends, when two seeds' intervals would press the curves into a line: they are cut off there."""
        inside = [m for one in self.series for m in one.middle if math.isfinite(m)]
        inside += [*self.levels.values(), *([0.0] if self.zero else [])]
        ends = [m + sign * h for one in self.series for m, h in zip(one.middle, one.half, strict=True)
                for sign in (-1, 1) if math.isfinite(m + h)]  # fmt: skip
        if not ends or not (high := max(inside)) > (low := min(inside)):
            return None
        room = high - low
        return (low - room, high + room) if max(ends) - min(ends) > 3 * room else None

    def table(self) -> Table:
        """A row for each number of labels, a column for each curve; or `data`."""
        if self.data is not None:
            return self.data
        at = sorted({x for one in self.series for x in one.x})
        cells = [{x: (m, h) for x, m, h in zip(one.x, one.middle, one.half, strict=True)} for one in self.series]
        rows = []
        for x in at:
            found = [own.get(x, (None, None)) for own in cells]
            rows.append([TableCell(x, WHOLE), *(TableCell(m, self.unit, spread=h) for m, h in found)])
        notes = [f"{self.y}; ± is half of the 95 % interval."]
        notes += ["Intervals are wider than the picture, which cuts them off."] if self.span else []
        notes += [f"Dashed: {name}, {self.unit.text(height)}." for name, height in self.levels.items()]
        return Table(self.title, [self.x, *(one.name for one in self.series)], rows, notes)


@dataclass(frozen=True)
class Estimate:
    """A row of `Forest`; low and high: NaN where there is no interval; word: what is said of it."""

    name: str
    middle: float
    low: float
    high: float
    word: str = ""


@dataclass(frozen=True)
class Forest:
    """Estimates with their intervals below one another, best first, beside the value that means "nothing"."""

    name: str
    title: str
    x: str
    rows: Sequence[Estimate]
    unit: Scale
    nothing: float = 0.0

    def table(self) -> Table:
        """A row for each estimate."""
        word = any(one.word for one in self.rows)
        rows = [
            [
                TableCell(one.name), *(TableCell(v, self.unit) for v in (one.middle, one.low, one.high)),
                *([TableCell(one.word)] if word else []),
            ]
            for one in self.rows
        ]  # fmt: skip
        return Table(self.title, ["", self.x, "low", "high", *(["verdict"] if word else [])], rows)


@dataclass(frozen=True)
class Bars:
    """Numbers that add up, a bar for each name."""

    name: str
    title: str
    x: str
    rows: Mapping[str, Sequence[float]]
    parts: Sequence[str]
    unit: Scale

    def table(self) -> Table:
        """A row for each bar, a column for each part."""
        rows = [[TableCell(name), *(TableCell(v, self.unit) for v in values)] for name, values in self.rows.items()]
        return Table(self.title, ["", *self.parts], rows, [self.x + "."])


@dataclass(frozen=True)
class Points:
    """Places in a plane, in groups. rows: (group, name, x, y)."""

    name: str
    title: str
    x: str
    y: str
    rows: Sequence[tuple[str, str, float, float]]
    units: tuple[Scale, Scale]
    of: str

    def table(self) -> Table:
        """A row for each point."""
        rows = [
            [TableCell(group), TableCell(name), TableCell(x, self.units[0]), TableCell(y, self.units[1])]
            for group, name, x, y in self.rows
        ]
        return Table(self.title, [self.of, "strategy", self.x, self.y], rows, words=2)


@dataclass(frozen=True)
class Diagram:
    """Average ranks, best first, and bars over those that are not told apart (Demsar 2006, figure 1)."""

    name: str
    title: str
    ranks: Mapping[str, float]
    critical_difference: float

    def table(self) -> Table:
        """A row for each name."""
        rows = [[TableCell(name), TableCell(rank, Scale(digits=2))] for name, rank in self.ranks.items()]
        note = f"Ranks that differ by less than {self.critical_difference:.2f} are not told apart."
        return Table(self.title, ["strategy", "rank"], rows, [note])

    def cliques(self) -> list[tuple[float, float]]:
        """First and last rank of each largest group that is not told apart."""
        ranks = sorted(self.ranks.values())
        ends = [max(r for r in ranks if r - first < self.critical_difference) for first in ranks]
        spans = [(a, b) for a, b in zip(ranks, ends, strict=True) if b > a]
        return [span for span, before in zip(spans, [(0.0, 0.0), *spans], strict=False) if span[1] > before[1]]

    def places(self) -> list[tuple[str, float, int, bool]]:
        """(name, rank, line below the axis, on the left): the better half on the left, the outermost lowest."""
        names = list(self.ranks)
        half = (len(names) + 1) // 2
        left = [(n, self.ranks[n], i, True) for i, n in enumerate(names[:half])]
        right = [(n, self.ranks[n], i, False) for i, n in enumerate(reversed(names[half:]))]
        return left + right


@dataclass(frozen=True)
class Matrix:
    """Every strategy beside every other: row minus column. cells: as from `comparison_matrix`, by (row, column)."""

    name: str
    title: str
    names: Sequence[str]
    frame: pd.DataFrame
    note: str

    def cells(self) -> dict[tuple[str, str], dict[str, float]]:
        """By (row, column)."""
        keys = ("difference", "low", "high", "wins", "ties", "losses", "p")
        rows = self.frame.to_dict("records")
        return {(str(row["a"]), str(row["b"])): {key: float(row[key]) for key in keys} for row in rows}

    @property
    def largest(self) -> float:
        """The largest difference, which the deepest colour stands for."""
        return max((abs(one["difference"]) for one in self.cells().values()), default=1.0) or 1.0

    def table(self) -> Table:
        """A row for each pair."""
        points, p = Scale(digits=2, sign="+"), P
        cells = self.cells()
        rows = []
        for i, a in enumerate(self.names):
            for b in self.names[i + 1 :]:
                if one := cells.get((a, b)):
                    rows.append(
                        [
                            TableCell(a), TableCell(b),
                            *(TableCell(one[key], points) for key in ("difference", "low", "high")),
                            *(TableCell(one[key], WHOLE) for key in ("wins", "ties", "losses")), TableCell(one["p"], p),
                        ]
                    )  # fmt: skip
        header = ["a", "b", "a minus b, points", "low", "high", "wins", "ties", "losses", "p"]
        return Table(self.title, header, rows, [self.note], words=2)


Picture = Lines | Forest | Bars | Points | Diagram | Matrix
