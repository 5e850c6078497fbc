"""What an engine is: it has the cells of a sweep run, in this process or in others.

A cell is plain data (`alfm.config.cell`); what a process loads for it and keeps for the next is a session's. Each
process of an engine makes one session with `open_session` and gives it cells, those of equal `key` one after the other
(`in_order`); a process that was not started by the command line is first taken to the cell's folders (`run_alone`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from importlib import import_module
from typing import Protocol

from alfm.config.cell import Cell
from alfm.config.home import at_home


class Session(Protocol):
    """Runs the cells of one task in one process, one at a time, and keeps what the next may need."""

    def key(self, cell: Cell) -> Hashable:
        """Cells with the same one share what takes long to load. Raises UserError."""
        ...

    def run(self, cell: Cell) -> None:
        """Run it from start to end; what it makes lies in files. Raises UserError for a user's mistake."""
        ...


class Engine(Protocol):
    """Where cells run."""

    def run(self, cells: Sequence[Cell]) -> int:
        """Run all of them, one's failure stopping no other; the exit status.

        0; 1 when a cell failed, each mistake told in one sentence; 130 after Ctrl-C. Any other exception of a cell that
        is alone is a bug and is raised.
        """
        ...


def open_session(task: str) -> Session:
    """A new session from its class's dotted name (`Cell.task`)."""
    module, _, name = task.rpartition(".")
    return getattr(import_module(module), name)()


def in_order(cells: Sequence[Cell], key: Callable[[Cell], Hashable]) -> list[Cell]:
    """Cells of equal keys one after the other, in order of first appearance."""
    if len(cells) < 2:
        return list(cells)
    ranks: dict[Hashable, int] = {}
    places = [ranks.setdefault(key(cell), len(ranks)) for cell in cells]
    return [cells[index] for index in sorted(range(len(cells)), key=places.__getitem__)]


def run_alone(text: str) -> None:
    """Run one cell, given as its JSON, in a process of its own. Raises UserError."""
    cell = Cell.from_json(text)
    with at_home(cell):
        open_session(cell.task).run(cell)
