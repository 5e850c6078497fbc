"""Tables on a terminal and in a pipe."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from alfm.report.cells import Table
from alfm.report.stops import stop_tables
from alfm.report.tables import summary_tables
from alfm.results.setting import settings_of

if TYPE_CHECKING:
    import pandas as pd

_PIPE_WIDTH = 160  # of what is read by no terminal and no COLUMNS says


def print_summary(df: pd.DataFrame, metric: str = "accuracy") -> None:
    """Print the summary tables of runs, without statistics (the end of `al_train`)."""
    for setting in settings_of(df):
        for table in [*summary_tables(setting, metric), *stop_tables(setting, metric)[0]]:
            show(table)


def show(table: Table) -> None:
    """Print it, as wide as the terminal; one that is wider in parts, each of which names the rows."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=_PIPE_WIDTH)  # a file or a pipe has no width to keep to
    if table.title:
        console.print(Text(table.title, style="bold"))
    texts = table.texts
    widths = _widths(table.header, texts, console.width)
    for columns in _side_by_side(widths, console.width):
        rich = RichTable(box=box.SIMPLE_HEAD, padding=0)
        for i in columns:
            rich.add_column(
                Text(table.header[i]), justify="left" if i < table.words else "right", overflow="fold", width=widths[i]
            )
        for row in texts:
            rich.add_row(*(Text(row[i]) for i in columns))
        console.print(rich, width=max(console.width, _total(widths, columns)), crop=False)
    for note in table.notes:
        console.print(Text(note, style="dim"))
    console.print()


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Of every column, its longest cell; where they do not fit beside each other, headers take several lines, and names
    too where they are longer than a third of `width`."""
    from rich.cells import cell_len

    longest = [max((cell_len(row[i]) for row in rows), default=0) for i in range(len(header))]
    whole = [max(cells, cell_len(head)) for cells, head in zip(longest, header, strict=True)]
    if _total(whole, range(len(whole))) <= width:
        return whole
    narrow = [max(cells, *map(cell_len, head.split())) for cells, head in zip(longest, header, strict=True)]
    return [min(narrow[0], max(width // 3, cell_len(header[0]))), *narrow[1:]]


def _total(widths: Sequence[int], columns: Sequence[int]) -> int:
    """Characters of a table with these columns: one before each, and one at the end."""
    return sum(widths[i] + 1 for i in columns) + 1


def _side_by_side(widths: Sequence[int], width: int) -> Iterator[list[int]]:
    """Columns in groups that fit beside the first, each group with the first: numbers are never broken in two."""
    group = [0]
    for i in range(1, len(widths)):
        if len(group) > 1 and _total(widths, [*group, i]) > width:
            yield group
            group = [0]
        group.append(i)
    yield group
