"""What an engine is: it has the cells of a sweep run, in this process or in others.

A cell is plain data (`alfm.config.cell`); what a process loads for it and keeps for the next is a session's. Each
process of an engine makes one session with `open_session` and gives it cells, those of equal `key` one after the other
(`in_order`); a process that was not started by the command line is first taken to the cell's folders (`run_alone`).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Protocol

from alfm.config.cell import Cell
from alfm.config.paths import environment
from alfm.errors import UserError


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


@contextmanager
def at_home(cell: Cell, besides: Mapping[str, str] | None = None) -> Iterator[None]:
    """In a process that the command line did not start, be in the folder where it was typed, with what was set there.

    besides: variables of its `.env`, where this machine may not see the file. Raises UserError where the folder is not
    here.
    """
    before = os.getcwd()
    try:
        os.chdir(cell.folder)
    except OSError as error:
        raise UserError(
            f"{cell.folder} is not on {socket.gethostname()} ({error.strerror}): type the command in a folder that "
            "all machines see."
        ) from error
    if cell.folder not in sys.path:  # as `python -m` has it: where a user's own classes are
        sys.path.insert(0, cell.folder)
    os.environ.update(cell.environment)
    os.environ.update({name: value for name, value in (besides or {}).items() if not os.environ.get(name)})
    try:
        with environment():
            yield
    finally:
        os.chdir(before)
