"""A table as files beside the page: CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from alfm.files import replacing
from alfm.report.cells import Table
from alfm.report.latex import document
from alfm.report.markdown import lines as markdown_lines


def write_table(table: Table, stem: Path) -> list[Path]:
    """`stem` with the endings .csv (numbers unrounded), .md and .tex; what was written."""
    grid = "\n".join(markdown_lines(table))
    notes = "".join(f"\n{note}\n" for note in table.notes)
    texts = {".csv": as_csv(table), ".md": f"**{table.title}**\n\n{grid}\n{notes}", ".tex": document(table)}
    files = []
    for ending, text in texts.items():
        file = stem.with_name(stem.name + ending)
        with replacing(file) as handle:
            handle.write(text.encode())
        files.append(file)
    return files


def as_csv(table: Table) -> str:
    """Values as they are; what varies and what is said of them in columns of their own, where a column has any."""
    columns = list(zip(*table.rows, strict=True)) if table.rows else [() for _ in table.header]
    grid: list[list[object]] = []
    for name, cells in zip(table.header, columns, strict=True):
        grid.append([name, *("+".join(map(str, c.value)) if isinstance(c.value, tuple) else c.value for c in cells)])
        if any(cell.spread is not None and cell.spread == cell.spread for cell in cells):
            grid.append([f"{name} ±", *(cell.spread for cell in cells)])
        if any(cell.mark for cell in cells):
            grid.append([f"{name} verdict", *(cell.mark for cell in cells)])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(zip(*grid, strict=True))
    return text.getvalue()
