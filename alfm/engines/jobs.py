"""A launched sweep on disk, and what a job of it does: the one thing that its processes and hosts share.

    <folder>/cells/00003.json   a cell; .done, .failed (why, in one sentence), .log (what it printed)
    <folder>/settings.json      how many cells, and what `.env` says, for hosts that do not see the file
    <folder>/claims/, workers/  who is at which cell, as with parts of an extraction: `alfm.cache.claims`

A cell is run by one job at a time, whoever launched it how often; what it makes lies in its own files, so that a job
which takes over from a lost one goes on there.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alfm.cache.claims import Claims
from alfm.config.build import causes_of
from alfm.config.cell import Cell
from alfm.config.home import at_home
from alfm.engines.base import Session, open_session
from alfm.errors import UserError
from alfm.files import replacing

if TYPE_CHECKING:
    from omegaconf import DictConfig

LEASE = 120.0
"""Seconds after which a job on another host that shows no life is taken for lost."""


class Sweep:
    """The folder of a launched sweep. Use it as a context manager, which gives back all its claims."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cells = folder, folder / "cells"
        self.claims = Claims(folder, LEASE)

    @classmethod
    def create(cls, folder: Path, cells: Sequence[Cell], environment: Mapping[str, str]) -> Sweep:
        """Write everything that jobs need. Raises UserError where a sweep is there, or nothing can be written."""
        sweep = cls(folder)
        try:
            for made in (folder, sweep.cells, folder / "claims", folder / "workers"):
                made.mkdir(parents=True, exist_ok=made == folder)
            _write_private(folder / "settings.json", json.dumps({"environment": dict(environment)}))
            for number, cell in enumerate(cells):
                _write_private(sweep._file(number, "json"), cell.to_json())
        except FileExistsError:
            raise UserError(f"hydra.sweep.dir={folder}: a sweep lies there; name a new folder, or none.") from None
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror or error}; make room and run again.") from error
        return sweep

    def done(self, number: int) -> bool:
        """Whether a cell was run to its end."""
        return self._file(number, "done").exists()

    def failure(self, number: int) -> str | None:
        """Why a cell failed the last time that it was run to its end; None where it did not."""
        try:
            return self._file(number, "failed").read_text()
        except FileNotFoundError:
            return None

    def log(self, number: int) -> Path:
        """Where a cell's output lies."""
        return self._file(number, "log")

    def begun(self) -> dict[int, int]:
        """How often each cell was begun, by whatever job."""
        return {int(key): generation + 1 for key, generation in self.claims.newest().items()}

    def at_work(self) -> set[int]:
        """Cells that a job which is alive has begun and not ended."""
        newest = self.claims.newest()
        return {int(key) for key, generation in newest.items() if self.claims.held(key, generation)}

    def run(self, numbers: Sequence[int]) -> None:
        """Run those of the cells that are not done and that nobody is at, in one session; failures are written down."""
        besides = json.loads((self.folder / "settings.json").read_text())["environment"]
        session: Session | None = None
        for number in numbers:
            with Sweep(self.folder) as own:  # its claims are given back with each cell
                if own.done(number) or not own.claims.claim(_key(number)):
                    continue
                self._file(number, "failed").unlink(missing_ok=True)
                cell = Cell.from_json(self._file(number, "json").read_text())
                with self.log(number).open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
                    try:
                        with at_home(cell, besides):
                            session = session or open_session(cell.task)
                            session.run(cell)
                        self._write(number, "done", "")
                    except Exception as error:
                        self._write(number, "failed", self._sentence(number, error))

    def over(self) -> None:
        """Remove what only jobs need and may be a secret."""
        (self.folder / "settings.json").unlink(missing_ok=True)

    def _sentence(self, number: int, error: Exception) -> str:
        mistake = next((cause for cause in causes_of(error) if isinstance(cause, UserError)), None)
        if mistake is not None:
            return str(mistake)
        traceback.print_exc()
        return f"{type(error).__name__}: {error} (see {self.log(number)})"

    def _write(self, number: int, suffix: str, text: str) -> None:
        with replacing(self._file(number, suffix)) as file:
            file.write(text.encode())

    def _file(self, number: int, suffix: str) -> Path:
        return self.cells / f"{_key(number)}.{suffix}"

    def __enter__(self) -> Sweep:
        return self

    def __exit__(self, *_: object) -> None:
        self.claims.close()


def _write_private(file: Path, text: str) -> None:
    """For its owner alone: `.env` may hold secrets, and so may what was typed, a data set's token say."""
    with os.fdopen(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600), "w") as handle:
        handle.write(text)


def _key(number: int) -> str:
    return f"{number:05d}"


@dataclass(frozen=True)
class Job:
    """What a launcher runs, in whatever process: can be pickled. folder: the sweep's."""

    folder: str

    def __call__(self, cfg: DictConfig) -> None:
        """Run `cfg.cells`, numbers of the sweep's cells."""
        with Sweep(Path(self.folder)) as sweep:
            sweep.run(list(cfg.cells))
