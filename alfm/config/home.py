"""A process that the command line did not start, taken to where it was typed."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from alfm.config.cell import Cell
from alfm.config.paths import environment
from alfm.errors import UserError


@contextmanager
def at_home(cell: Cell, besides: Mapping[str, str] | None = None) -> Iterator[None]:
    """Be in the folder where a cell's command was typed, with what was set there, for as long as the block runs.

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
