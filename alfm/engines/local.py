"""Cells of a sweep one after the other, in this process."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from alfm.config.build import causes_of
from alfm.config.cell import Cell
from alfm.engines.base import Engine, Session, in_order, open_session
from alfm.errors import UserError, say


@dataclass(frozen=True)
class Local(Engine):
    """The engine of one process. session: who runs the cells; None: a new one of the cells' task for each sweep."""

    session: Session | None = None

    def run(self, cells: Sequence[Cell]) -> int:
        """See `Engine`. Says which cell of how many is at work, and at the end which failed."""
        try:
            session = self.session or open_session(cells[0].task)
            failed = _run(session, in_order(cells, session.key))
        except KeyboardInterrupt:
            say("Interrupted. The same command goes on from here.", "")
            return 130
        if failed and len(cells) > 1:
            say(f"{len(failed)} of {len(cells)} jobs failed: {'; '.join(failed)}")
        return 1 if failed else 0


def _run(session: Session, cells: Sequence[Cell]) -> list[str]:
    """The words of those that failed."""
    failed = []
    for number, cell in enumerate(cells, 1):
        words = " ".join(cell.words)
        if len(cells) > 1:
            print(f"[{number}/{len(cells)}] {words}", flush=True)
        try:
            session.run(cell)
        except Exception as error:
            mistake = next((cause for cause in causes_of(error) if isinstance(cause, UserError)), None)
            if mistake is None and len(cells) == 1:
                raise
            if mistake is None:
                traceback.print_exc()
            say(str(mistake or f"{type(error).__name__}: {error}"))
            failed.append(words)
    return failed
