"""What people said of a pool, in memory or in a folder: telling, taking back, and reading what others told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import RLock
from typing import Any

from alfm.errors import UserError
from alfm.labelling.acts import Which, act, class_of, item_of, lists, said
from alfm.labelling.journal import Act, Journal
from alfm.labelling.state import State
from alfm.labelling.status import Status, status_of
from alfm.options import Whole, checked


class Record:
    """People's acts and the state that they make. May be used from several threads.

    state: what is known (see `alfm.labelling.state`); journal: where it is written, None in memory only.
    """

    def __init__(self, state: State, journal: Journal | None) -> None:
        self.state, self.journal = state, journal
        self._acts: list[Act] = []
        self._lock = RLock()

    # ---- telling ---------------------------------------------------------------------------------------------------

    def tell(
        self, ids: Sequence[Which], labels: Sequence[Any], *, by: str = "me", acts: Sequence[str] | None = None
    ) -> None:
        """What items are: classes by name, a new name being a new class; None or NaN: cannot be told.

        The annotator's last word on an item counts. acts: an identifier for each, so that saying it again changes
        nothing. Raises UserError, and then nothing was recorded.
        """
        self._record(lambda: said(self.state, by, ids, labels, acts))

    def skip(self, ids: Sequence[Which], *, by: str = "me", acts: Sequence[str] | None = None) -> None:
        """They cannot be told: not asked for again, and not learnt from. acts: as in `tell`."""
        lists("skip", ids)
        self.tell(ids, [None] * len(ids), by=by, acts=acts)

    def clear(self, ids: Sequence[Which], *, by: str = "me", acts: Sequence[str] | None = None) -> None:
        """What `by` said of them is taken back. acts: as in `tell`."""
        names = _names("clear", acts, ids)
        self._record(
            lambda: [act("clear", by, name, item=self.item(one)) for name, one in zip(names, ids, strict=True)]
        )

    def reject(
        self, ids: Sequence[Which], labels: Sequence[Any], *, by: str = "me", acts: Sequence[str] | None = None
    ) -> None:
        """What items are not. It is counted; it is no label. acts: as in `tell`."""
        lists("reject", ids, labels)
        given = list(zip(_names("reject", acts, ids), ids, labels, strict=True))
        self._record(
            lambda: [
                act("reject", by, name, item=self.item(one), label=class_of(self.state, label))
                for name, one, label in given
            ]
        )

    def add_class(self, name: str, *, by: str = "me") -> None:
        """A class that has no label yet."""
        with self._lock:
            self.refresh()
            if name not in self.state.declared:
                self._record(lambda: [act("class", by, add=name)])

    def rename_class(self, old: str, new: str, *, by: str = "me") -> None:
        """All labels `old` are `new` from now on, and so is whoever says `old` later."""
        self._record(lambda: [act("class", by, rename=[old, new])])

    def merge_classes(self, olds: Sequence[str], new: str, *, by: str = "me") -> None:
        """All of these are `new`, which may be there or not."""
        several = [olds] if isinstance(olds, str) else list(olds)
        self._record(lambda: [act("class", by, merge=[several, new])])

    @checked
    def audit(self, m: Whole, by: str = "me") -> None:
        """From now on m items are set aside, drawn from all that is not trained on, for an honest estimate."""
        with self._lock:
            self.refresh()
            if m != self.state.window.size:
                self._record(lambda: [act("audit", by, items=m)])

    # ---- what is known ---------------------------------------------------------------------------------------------

    @property
    def classes(self) -> list[str]:
        """Their names, in the order in which everything counts them."""
        return self.state.classes

    def status(self) -> Status:
        """How far it has come; printed, a few lines."""
        with self._lock:
            self.refresh()
            return status_of(self.state)

    def item(self, which: Which) -> str:
        """An item's key: its id. Raises UserError where there is none."""
        return item_of(self.state, which)

    def refresh(self) -> None:
        """Read what others have written into the folder since."""
        with self._lock:
            if self.journal is not None:
                self._apply(self.journal.news())

    @property
    def lock(self) -> RLock:
        """Held by every thread that changes what is known; for one that reads several things. Be quick."""
        return self._lock

    @contextmanager
    def still(self) -> Iterator[State]:
        """What is known, with what others wrote; nothing is told meanwhile, so be quick."""
        with self._lock:
            self.refresh()
            yield self.state

    @property
    def acts(self) -> list[Act]:
        """All that was said so far, in order."""
        with self._lock:
            self.refresh()
            return list(self._acts)

    def save(self, folder: Path | str) -> None:
        """Write all acts into a new folder. A learner that had none goes on writing there."""
        with self._lock:
            self.refresh()
            if self.journal is not None and Path(folder).resolve() == self.journal.folder.resolve():
                return
            if Journal.there(folder):
                raise UserError(f"{folder} holds a labelling state already: name another folder.")
            copy = Journal(folder)
            with copy.writing() as pen:
                pen.write(self._acts)
            self.journal = self.journal or copy

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _record(self, acts: Callable[[], Sequence[Act]]) -> None:
        """Write acts and apply them, all or none. acts: makes them, when all is known and nobody else writes."""
        with self._lock, nullcontext() if self.journal is None else self.journal.writing() as pen:
            if pen is not None:
                self._apply(pen.others)
            new = [(one, do) for one in acts() if (do := self.state.prepared(one)) is not None]
            if pen is not None:
                pen.write([one for one, _ in new])
            for one, do in new:
                self._acts.append(one)
                do()

    def _apply(self, acts: Sequence[tuple[int, Act]]) -> None:
        for number, one in acts:
            try:
                self.state.apply(one)
            except UserError as error:
                where = f"{self.journal.path}, line {number}" if self.journal else f"act {number}"
                raise UserError(f"{where}: {str(error).rstrip('.')}; put that line right.") from error
            self._acts.append(one)


def _names(what: str, acts: Sequence[str] | None, ids: Sequence[Which]) -> Sequence[str | None]:
    lists(what, ids, names=acts)
    return [None] * len(ids) if acts is None else acts
