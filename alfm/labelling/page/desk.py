"""The desk behind the page: takes what annotators say, and has the model refitted and the next batch made meanwhile."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from alfm.errors import UserError
from alfm.labelling.disputed import disputed
from alfm.labelling.items import Items
from alfm.labelling.page.worker import Worker
from alfm.streams import stream

if TYPE_CHECKING:
    from alfm.labelling.active_learner import ActiveLearner
    from alfm.labelling.newest import Suggestions

Kind = Literal["label", "skip", "clear", "reject"]
Purpose = Literal["pick", "audit", "random", "own"]
PATIENCE = 1.0  # seconds that the next batch may take before random items are shown meanwhile
UNDOABLE = 200
TEXTS = 5000  # that are kept at hand


@dataclass(frozen=True)
class Act:
    """What an annotator did to an item, as the page tells it. id: made by the page; the same one counts once.

    revision: that of the item, as the annotator saw it. undo: it takes back what he said last about it.
    """

    id: str
    kind: Kind
    row: int
    label: str | None
    revision: int
    undo: bool = False


class Stale(Exception):
    """Items were changed since the annotator saw them; nothing of what he said was taken. rows: which."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__(rows)
        self.rows = rows


class Desk:
    """One learner, one page, any number of tabs.

    n: items of a batch. every: labels after which the model is refitted. measures: named functions that are called
    after a refit and give what the page shows beside the items, as plain data. `version` grows with everything that a
    page would show otherwise.
    """

    def __init__(
        self,
        learner: ActiveLearner,
        *,
        n: int,
        every: int = 1,
        measures: dict[str, Callable[[ActiveLearner], Any]] | None = None,
    ) -> None:
        self.learner, self.n, self.every = learner, n, max(1, every)
        self.text = lru_cache(TEXTS)(lambda row: self.items.text(row))
        self.version = 0
        self._suggested: Suggestions | None = None
        self.measured: dict[str, Any] = {}
        self.exhausted = False
        self.written: dict[int, str] = {}
        self._measures = measures or {}
        self._lock = learner.lock  # the worker takes in what other commands wrote: nobody reads meanwhile
        self._unlearnt = 0
        self._undo: dict[str, deque[dict[str, Any]]] = defaultdict(lambda: deque(maxlen=UNDOABLE))
        self._random = stream(learner.state.settings["seed"], 0, "page").permutation(len(learner.state.items))
        self.worker = Worker({"model": self._refit, "batch": self._ask, "measures": self._measure})

    def start(self) -> None:
        """Begins to work in the background."""
        self.worker.start()
        self.worker.want("model", *([] if self.waiting() else ["batch"]))

    def close(self) -> bool:
        """Ends that; labels are in the journal already. Whether nothing runs any more."""
        return self.worker.close()

    # ---- what annotators say ----------------------------------------------------------------------------------------

    def take(self, acts: Sequence[Act], by: str) -> list[int]:
        """Writes acts down, all or none: they are stored when this returns. Returns the rows that they are about.

        Acts that were taken before are not taken again. Raises Stale for items that changed meanwhile, UserError for
        rows and classes that are not there and when they cannot be stored.
        """
        rows = [act.row for act in acts]
        with self._lock:
            self.refresh()
            new = [act for act in acts if act.id not in self.learner.state.known]
            stale = [act.row for act in new if self.revision(act.row) != act.revision]
            if stale:
                raise Stale(stale)
            before = {act.row: self._said(act.row, by) for act in new}
            self._write(new, by)
            for act in new:
                if not act.undo:
                    self._undo[by].append({"row": act.row, "before": before[act.row]})
                elif last := next((one for one in reversed(self._undo[by]) if one["row"] == act.row), None):
                    self._undo[by].remove(last)
            self._changed(len(new))
        return rows

    def _write(self, acts: Sequence[Act], by: str) -> None:
        """In as few writes as there are kinds in a row: to label many at once is one act of the person too."""
        start = 0
        while start < len(acts):
            stop = start + 1
            while stop < len(acts) and acts[stop].kind == acts[start].kind:
                stop += 1
            some, kind = acts[start:stop], acts[start].kind
            items, names = [self.id(act.row) for act in some], [act.id for act in some]
            if kind == "label":
                self.learner.tell(items, [act.label for act in some], by=by, acts=names)
            elif kind == "reject":
                self.learner.reject(items, [str(act.label) for act in some], by=by, acts=names)
            elif kind == "skip":
                self.learner.skip(items, by=by, acts=names)
            else:
                self.learner.clear(items, by=by, acts=names)
            start = stop

    def classes(self, change: dict[str, Any], by: str) -> None:
        """`{"add": name}`, `{"rename": [old, new]}` or `{"merge": [[old, ...], new]}`; UserError."""
        with self._lock:
            self.refresh()
            if set(change) == {"add"}:
                self.learner.add_class(str(change["add"]), by=by)
            elif set(change) == {"rename"}:
                old, new = change["rename"]
                self.learner.rename_class(str(old), str(new), by=by)
            elif set(change) == {"merge"}:
                olds, new = change["merge"]
                self.learner.merge_classes([str(old) for old in olds], str(new), by=by)
            else:
                raise UserError("A change of classes is one of add, rename and merge.")
            self._changed(self.every)

    def audit(self, items: int, by: str) -> None:
        """Sets so many items aside, to measure with; UserError."""
        with self._lock:
            self.learner.audit(items, by=by)
            self._changed(self.every)

    def disputed(self) -> dict[int, str]:
        """Rows whose label heads that have not seen it contradict, the most doubtful first, and why."""
        found = self.worker.call(lambda: disputed(self.learner))
        return {
            self.learner.state.rows[one.item]: f"without its label: {one.suggestion}, {one.confidence:.0%} sure"
            for one in found
        }

    def undoable(self, by: str) -> list[dict[str, Any]]:
        """What an annotator said since the page was started, in order: row, and what he had said before."""
        with self._lock:
            return list(self._undo[by])

    def _said(self, row: int, by: str) -> dict[str, Any]:
        """An annotator's own word on an item, as an act that brings it back."""
        item, state = self.id(row), self.learner.state
        if (label := state.votes.get(item, {}).get(by)) is not None:
            return {"act": "label", "label": label}
        return {"act": "skip" if by in state.skips.get(item, ()) else "clear", "label": None}

    def _changed(self, count: int) -> None:
        """Something was said: the page shows it, and the model and perhaps a batch are made anew."""
        self.version += 1
        self._unlearnt += count
        if self._unlearnt >= self.every:
            self._unlearnt = 0
            self.worker.want("model")
        if not self.waiting():
            self.worker.want("batch")

    def refresh(self) -> None:
        """Takes in what other commands wrote into the same folder."""
        before = self.learner.state.revision
        self.learner.refresh()
        if self.learner.state.revision != before:
            self._changed(self.every)

    def reading(self) -> threading.RLock:
        """To be held while several things are read that belong together."""
        return self._lock

    # ---- items ------------------------------------------------------------------------------------------------------

    @property
    def items(self) -> Items:
        """What lies behind the rows; another command may add some."""
        return self.learner.items

    @property
    def suggested(self) -> Suggestions | None:
        """What the newest head says of every item; None before one is there that knows all rows."""
        found = self._suggested
        return found if found is None or len(found.confidence) == len(self.learner.state.items) else None

    def id(self, row: int) -> str:
        """The id of a row; UserError for one that the pool does not have."""
        items = self.learner.state.items
        if not 0 <= row < len(items):
            raise UserError(f"There is no item {row}: the pool's rows are 0 to {len(items) - 1}.")
        return items[row]

    def revision(self, row: int) -> int:
        """Grows with every act about an item."""
        return self.learner.state.item_revision(self.id(row))

    def answered(self, item: str) -> bool:
        """Whether something is known about it: a class, votes that tie, or that it cannot be told."""
        state = self.learner.state
        return not state.wanted(item) or item in state.votes

    def waiting(self) -> list[int]:
        """Rows of the last batch that nobody has answered, in asking order."""
        return [self.learner.state.rows[item] for item in self.learner.state.open_items() if not self.answered(item)]

    def queue(self, most: int, by: str = "") -> list[tuple[int, Purpose]]:
        """What an annotator is shown next: two picks, one audit item, and so on; random ones while a batch takes time.

        Before these, items on which others are split and of which he has said nothing.
        """
        with self._lock:
            picks = self.waiting()
            state = self.learner.state
            audit = [state.rows[item] for item in state.window.items if not self.answered(item)]
            split = [item for item in state.ties if by not in state.votes[item]] if by else []
            found: list[tuple[int, Purpose]] = [
                (state.rows[item], "audit" if item in state.window else "pick") for item in split[:most]
            ]
            while (picks or audit) and len(found) < most:
                found += [(row, "pick") for row in picks[:2]]
                found += [(row, "audit") for row in audit[: 1 if picks else most]]
                picks, audit = picks[2:], audit[1 if picks else most :]
            if len(found) < most and not self.waiting() and self._takes_long():
                shown = {row for row, _ in found}
                for row in map(int, self._random):
                    if len(found) >= most:
                        break
                    if row not in shown and not self.answered(self.id(row)):
                        found.append((row, "random"))
            return found[:most]

    def _takes_long(self) -> bool:
        busy = self.worker.busy_with()
        return busy is not None and self.worker.pending("batch") and busy[1] > PATIENCE

    # ---- in the background ------------------------------------------------------------------------------------------

    def _refit(self) -> None:
        self.learner.refit()
        self._suggested = self.learner.suggestions()
        self.version += 1
        self.worker.want("measures")

    def _ask(self) -> None:
        if self.waiting():
            return
        self.exhausted = not self.learner.ask(self.n)
        self.version += 1

    def _measure(self) -> None:
        for name, measure in self._measures.items():
            self.measured[name] = measure(self.learner)
        self.version += 1
