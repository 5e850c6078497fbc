"""Tables of typed cells: what is known of a value stays with it until something draws it.

What draws tables is a renderer: a function that takes a `Table`. It may use the cells' `text`, or their parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from alfm.metrics import Scale


class _Seconds(Scale):
    """About two digits, whatever the size."""

    def text(self, value: float) -> str:
        return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


class _Share(Scale):
    """Three digits and the unit, for columns that are empty but for some."""

    def text(self, value: float) -> str:
        return f"{self.factor * value:.3g} {self.unit}"


class _Probability(Scale):
    """Two digits, and no more zeros than people count."""

    def text(self, value: float) -> str:
        return "<0.001" if value < 0.001 else f"{value:.2g}"

    def named(self, value: float) -> str:
        """ "p=0.012", "p<0.001"."""
        return f"p{self.text(value)}" if value < 0.001 else f"p={self.text(value)}"


SECONDS = _Seconds(unit="s")
P_VALUE = _Probability()
SHARE = _Share(100, unit="%")
MEGABYTES = Scale(1e-6, unit="MB")
BETTER, WORSE, ALIKE, OPEN = "better", "worse", "=", "?"
"""Marks: what a test says of a gap; OPEN: nothing, there are too few seeds."""
ABOVE, BELOW = ">", "<"
"""Marks: the value is a bound."""


@dataclass(frozen=True)
class TableCell:
    """value: a word, a number, numbers that add up ("0.3+0.6"), or None for an empty cell; NaN: not known, "-".

    unit: how numbers are shown (None: as they are); mark: what is said of the value; spread: what it varies by.
    """

    value: str | float | tuple[float, ...] | None
    unit: Scale | None = None
    mark: str = ""
    spread: float | None = None

    @property
    def text(self) -> str:
        """For people: "60.1 ±0.3", "+4.0 better", ">1.25"."""
        if self.value is None:
            return ""
        if self.value != self.value:
            return "-"
        parts = self.value if isinstance(self.value, tuple) else (self.value,)
        words = ["+".join(part if isinstance(part, str) else self._shown(part) for part in parts)]
        if self.mark in (ABOVE, BELOW):
            return self.mark + words[0]
        if self.spread is not None and self.spread == self.spread:
            words.append(f"±{self._shown(self.spread)}")
        return " ".join([*words, self.mark] if self.mark else words)

    def _shown(self, number: float) -> str:
        return str(number) if self.unit is None else self.unit.text(number)


@dataclass
class Table:
    """A title, a name for each column, rows of cells, and sentences below. The first `words` columns name the row."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    notes: list[str] = field(default_factory=list)
    words: int = 1

    @property
    def texts(self) -> list[list[str]]:
        """The rows as people read them."""
        return [[cell.text for cell in row] for row in self.rows]


Renderer = Callable[[Table], None]
