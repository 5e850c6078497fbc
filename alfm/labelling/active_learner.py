"""The loop with people in it: ask for items, tell what they are, and have the rest predicted.

    learner = alfm.ActiveLearner("pool.h5", query_strategy="uherding", folder="pool.labelling")
    batch = learner.ask(20)  # items: row, id, path or text, what the model takes them for
    learner.tell(batch, ["cat", "dog", None, ...])  # None: cannot tell
    learner.predict()  # the class of every item

Everything that was said is in the folder's journal before `tell` returns.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Lock, RLock
from typing import Any, Literal

import numpy as np
import torch

from alfm.errors import UserError, nearest_names
from alfm.features.features import Features, Memory
from alfm.heads.linear import LinearHead
from alfm.labelling import parts
from alfm.labelling.journal import Act, Journal
from alfm.labelling.newest import NewestHead, Suggestions, probabilities
from alfm.labelling.pool import CacheName, Caches
from alfm.labelling.rounds import Rounds, TrainingSet
from alfm.labelling.state import State
from alfm.labelling.status import Item, Purpose, Status, status_of
from alfm.options import Seed, Whole, checked

Which = str | int | Item
"""An item: its id, its row in the pool, or as `ask` gives it."""


class ActiveLearner:
    """One pool and what people say of it. May be used from several threads: telling never waits for a fit.

    state: what is known (see `alfm.labelling.state`); journal: where it is written, None in memory only.
    """

    _parts: Mapping[str, parts.Part]

    @checked
    def __init__(
        self,
        cache: CacheName | Sequence[CacheName],
        *,
        query_strategy: Any = "uherding",
        init_strategy: Any = None,
        classifier: Any = "logistic",
        seed: Seed = 0,
        classes: Sequence[str] | None = None,
        folder: Path | str | None = None,
        split: str = "train",
        labels_in_cache: Literal["use", "ignore"] = "use",
        warm_start: bool = True,
        device: str = "auto",
        memory: Memory = "auto",
    ) -> None:
        """Strategies and classifier: names of configs, or objects; init_strategy None: the query strategy's own.

        cache: one or several, whose items then follow one another. classes: all of them, where they are known: then
        picks are those of a simulation that knows them. labels_in_cache: whether labels that lie in the cache count as
        told. folder: a new one for the journal (`load` goes on with an old one). warm_start: as in `al_train`.
        Raises UserError.
        """
        if folder is not None and Journal.there(folder):
            raise UserError(f"{folder} holds a labelling state: go on with ActiveLearner.load({str(folder)!r}).")
        chosen = parts.chosen(query_strategy, init_strategy, classifier)
        if folder is not None:
            parts.refuse_unrecorded(chosen)
        self._begin(Caches.open(cache, split), device, memory, None if folder is None else Journal(folder))
        self._parts, self._parts_of = chosen, 1
        known = list(map(str, classes)) if classes is not None else self._caches.class_names(labels_in_cache == "use")
        self._record([_act(
            "settings", "alfm", caches=self._caches.new(), seed=int(seed), **parts.record(chosen), classes=known,
            classes_given=bool(known), labels_in_cache=labels_in_cache, warm_start=warm_start,
        )])  # fmt: skip

    @classmethod
    def load(
        cls,
        folder: Path | str,
        cache: CacheName | Sequence[CacheName] | None = None,
        *,
        device: str = "auto",
        memory: Memory = "auto",
        **changes: Any,
    ) -> ActiveLearner:
        """Go on with what is in a folder.

        cache: where the caches are now, and new ones behind them; None: where they were. changes: another
        `query_strategy`, `init_strategy`, `classifier` or `warm_start` from now on; recorded. Raises UserError.
        """
        if not Journal.there(folder):
            raise UserError(f"{folder} holds no labelling state: begin one with ActiveLearner(cache, folder=...).")
        self = cls.__new__(cls)
        self._begin(Caches() if cache is None else Caches.open(cache), device, memory, Journal(folder))
        self.refresh()
        self._change(changes)
        return self

    def _begin(self, given: Caches, device: str, memory: Memory, journal: Journal | None) -> None:
        self._caches, self._device, self._memory, self.journal = given, device, memory, journal
        self.state = State(self._caches.source)
        self._acts: list[Act] = []
        self._lock, self._asking = RLock(), Lock()
        self._parts, self._parts_of = {}, 0  # after so many settings acts
        self._features: Features | None = None
        self._rounds: Rounds | None = None
        self._newest: NewestHead | None = None

    # ---- asking and telling ----------------------------------------------------------------------------------------

    @checked
    def ask(self, n: Whole, by: str = "me") -> list[Item]:
        """What to label next, the most wanted first: n items, or what is left. The same until more is known."""
        if n < 1:
            raise UserError(f"ask({n}): ask for one item or more.")
        with self._asking:
            while True:
                with self._lock:
                    self.refresh()
                    batch = self.state.recorded(n)
                    if batch is not None and (wanted := self.state.open_items(batch)):
                        break
                    made, round, digest = len(self.state.batches), self.state.next_round, self.state.digest()
                    training = self._training()
                rows, filled = self._going().ask(training, round, n)
                if not rows:
                    return []
                items = [self.state.items[row] for row in rows]
                act = _act("batch", by, round=round, n=n, items=items, labels=digest, filled=filled)
                with self._lock:
                    self._record([act], unless=partial(self._asked_since, made))
                    if self.state.batches[made].items == tuple(items) and (wanted := self.state.open_items()):
                        break
            return self._shown(wanted, self._training())

    def ask_audit(self, n: Whole | None = None) -> list[Item]:
        """Items of the audit that have no label yet, in its order: at most n."""
        with self._lock:
            self.refresh()
            wanted = [item for item in self.state.window.items if self.state.wanted(item)][:n]
        with self._asking:
            return self._shown(wanted, self._training(), "audit")

    @checked
    def audit(self, m: Whole, by: str = "me") -> None:
        """From now on m items are set aside, drawn from all that is not trained on, for an honest estimate."""
        with self._lock:
            self.refresh()
            if m != self.state.window.size:
                self._record([_act("audit", by, items=m)])

    def tell(
        self, ids: Sequence[Which], labels: Sequence[Any], *, by: str = "me", acts: Sequence[str] | None = None
    ) -> None:
        """What items are: classes by name, a new name being a new class; None or NaN: cannot be told.

        The annotator's last word on an item counts. acts: an identifier for each, so that saying it again changes
        nothing. Raises UserError, and then nothing was recorded.
        """
        if len(ids) != len(labels) or (acts is not None and len(acts) != len(ids)):
            raise UserError(f"tell: {len(ids)} items and {len(labels)} labels; give one for each.")
        with self._lock:
            self.refresh()
            said = []
            for index, (which, label) in enumerate(zip(ids, labels, strict=True)):
                item, name = self.item(which), self._class_name(label)
                if acts is None and self._said(item, by, name):
                    continue
                what = {"act": "skip"} if name is None else {"act": "label", "label": name}
                said.append(_act(what.pop("act"), by, acts[index] if acts else None, item=item, **what))
            self._record(said)

    def skip(self, ids: Sequence[Which], *, by: str = "me", acts: Sequence[str] | None = None) -> None:
        """They cannot be told: not asked for again, and not learnt from. acts: as in `tell`."""
        self.tell(ids, [None] * len(ids), by=by, acts=acts)

    def clear(self, ids: Sequence[Which], *, by: str = "me", acts: Sequence[str] | None = None) -> None:
        """What `by` said of them is taken back. acts: as in `tell`."""
        with self._lock:
            named = zip(acts or [None] * len(ids), map(self.item, ids), strict=True)
            self._record([_act("clear", by, name, item=item) for name, item in named])

    def reject(
        self, ids: Sequence[Which], labels: Sequence[Any], *, by: str = "me", acts: Sequence[str] | None = None
    ) -> None:
        """What items are not. It is counted; it is no label. acts: as in `tell`."""
        with self._lock:
            named = zip(acts or [None] * len(ids), map(self.item, ids), map(self._class_name, labels), strict=True)
            self._record([_act("reject", by, name, item=item, label=label) for name, item, label in named])

    def add_class(self, name: str, *, by: str = "me") -> None:
        """A class that has no label yet."""
        with self._lock:
            if name not in self.state.declared:
                self._record([_act("class", by, add=name)])

    def rename_class(self, old: str, new: str, *, by: str = "me") -> None:
        """All labels `old` are `new` from now on, and so is whoever says `old` later."""
        self._record([_act("class", by, rename=[old, new])])

    def merge_classes(self, olds: Sequence[str], new: str, *, by: str = "me") -> None:
        """All of these are `new`, which may be there or not."""
        self._record([_act("class", by, merge=[list(olds), new])])

    # ---- what the model says ---------------------------------------------------------------------------------------

    @property
    def classes(self) -> list[str]:
        """Their names, in the order in which everything counts them."""
        return self.state.classes

    @property
    def head(self) -> LinearHead:
        """The head of what is labelled by now, fitted as a simulation fits it; its classes are `head_classes`."""
        with self._asking:
            with self._lock:
                self.refresh()
                training = self._training()
            head = self._going().head(training)
        if head is None:
            raise UserError("Nothing is labelled yet: tell some labels before a model is asked for.")
        return head

    @property
    def head_classes(self) -> list[str]:
        """Classes that are known to the head, in the order of its weights. Those seen in the audit alone are not."""
        return self.state.training_classes

    def predict(self, ids: Sequence[Which] | None = None) -> list[str]:
        """The model's class of each item, by default of all."""
        head, names = self.head, self.head_classes
        found = probabilities(self.features, head, self._rows(ids))
        return [names[index] for index in found.argmax(1)]

    def predict_proba(self, ids: Sequence[Which] | None = None) -> np.ndarray:
        """Probabilities (n, C) float32 of the `classes`, in their order; 0 for those that the head does not know."""
        head, names = self.head, self.head_classes
        found = probabilities(self.features, head, self._rows(ids))
        out = np.zeros((len(found), len(self.classes)), np.float32)
        out[:, [self.classes.index(name) for name in names]] = found[:, : len(names)]
        return out

    def refit(self) -> LinearHead | None:
        """The head behind `suggestions`, of what is labelled now, begun at the one before; None: too few classes."""
        newest, training = self._live()
        return newest.fit(training)

    def suggestions(self) -> Suggestions | None:
        """The newest head's class of every item, and how sure it is; None before there are labels of two classes."""
        newest, training = self._live()
        return newest.suggestions(training, self.state.training_classes, self.classes)

    def status(self) -> Status:
        """How far it has come; printed, a few lines."""
        with self._lock:
            self.refresh()
            return status_of(self.state)

    # ---- what lies where -------------------------------------------------------------------------------------------

    @property
    def features(self) -> Features:
        """The pool's features, row by row; loaded when first asked for."""
        with self._lock:
            if self._features is None:
                self._features = self._caches.features(self.state.settings["caches"], self._device, self._memory)
            return self._features

    def item(self, which: Which) -> str:
        """An item's key. Raises UserError where there is none."""
        if isinstance(which, Item):
            which = which.id
        if isinstance(which, str):
            if which in self.state.rows:
                return which
            near = nearest_names(which, self.state.items) if len(self.state.items) <= 5000 else "see the cache's ids"
            raise UserError(f"There is no item {which[:80]!r} in the pool: {near}")
        row = int(which)
        if not 0 <= row < len(self.state.items):
            raise UserError(f"There is no row {row} in the pool: its rows are 0 to {len(self.state.items) - 1}.")
        return self.state.items[row]

    def refresh(self) -> None:
        """Read what others have written into the folder since."""
        with self._lock:
            if self.journal is not None:
                self._apply(self.journal.news())

    def save(self, folder: Path | str) -> None:
        """Write all acts into a new folder. A learner that had none goes on writing there."""
        with self._lock:
            self.refresh()
            if self.journal is not None and Path(folder).resolve() == self.journal.folder.resolve():
                return
            if Journal.there(folder):
                raise UserError(f"{folder} holds a labelling state already: name another folder.")
            parts.refuse_unrecorded(self._parts_now())
            copy = Journal(folder)
            with copy.writing() as pen:
                pen.write(self._acts)
            self.journal = self.journal or copy

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _record(self, acts: Sequence[Act], unless: Callable[[], bool] = lambda: False) -> None:
        """Write acts and apply them, all or none; none if `unless` says so when nobody else writes any more."""
        with self._lock, nullcontext() if self.journal is None else self.journal.writing() as pen:
            if pen is not None:
                self._apply(pen.others)
            new = [(act, do) for act in acts if not unless() and (do := self.state.prepared(act)) is not None]
            if pen is not None:
                pen.write([act for act, _ in new])
            for act, do in new:
                self._acts.append(act)
                do()

    def _apply(self, acts: Sequence[tuple[int, Act]]) -> None:
        for number, act in acts:
            try:
                self.state.apply(act)
            except UserError as error:
                where = f"{self.journal.path}, line {number}" if self.journal else f"act {number}"
                raise UserError(f"{where}: {str(error).rstrip('.')}; put that line right.") from error
            self._acts.append(act)

    def _change(self, changes: dict[str, Any]) -> None:
        """Record what is set otherwise from now on, and caches that are new."""
        with self._lock:
            settings = self.state.settings
            wrong = next((name for name in changes if name not in _CHANGEABLE), None)
            if wrong is not None:
                raise UserError(f"load({wrong}=...): it cannot be changed: {nearest_names(wrong, _CHANGEABLE)}")
            new = dict(settings) | {key: changes[key] for key in ("warm_start",) if key in changes}
            new["caches"] = settings["caches"] + self._caches.new(settings["caches"])
            if changes.keys() & set(_CHANGEABLE[:3]):
                now = parts.chosen_again(settings, changes)
                parts.refuse_unrecorded(now)
                new |= parts.record(now)
            if new != settings:
                self._record([_act("settings", "alfm", **new)])

    def _asked_since(self, batches: int) -> bool:
        return len(self.state.batches) != batches

    def _parts_now(self) -> Mapping[str, parts.Part]:
        """Strategies and head as the newest settings say."""
        if self._parts_of != self.state.settings_acts:
            self._parts, self._parts_of = parts.read(self.state.settings), self.state.settings_acts
            self._rounds = self._newest = None
            if self._features is not None and self._features.N != len(self.state.items):
                self._features = None
        return self._parts

    def _going(self) -> Rounds:
        with self._lock:
            now = self._parts_now()
            if self._rounds is None:
                made = {group: part.made for group, part in now.items()}
                for group in ("query_strategy", "init_strategy"):
                    made[group] = self._caches.in_pool(made[group], self.state.settings["caches"])
                settings = self.state.settings
                self._rounds = Rounds(self.features, seed=settings["seed"], warm_start=settings["warm_start"], **made)
            return self._rounds

    def _live(self) -> tuple[NewestHead, TrainingSet]:
        with self._lock:
            self.refresh()
            now = self._parts_now()
            if self._newest is None:
                self._newest = NewestHead(self.features, now["classifier"].made, self.state.settings["seed"])
            return self._newest, self._training()

    def _training(self) -> TrainingSet:
        state = self.state
        told, number = state.training, {name: index for index, name in enumerate(state.training_classes)}
        return TrainingSet(
            [state.rows[one.item] for one in told], [number[one.label] for one in told], [one.round for one in told],
            len(number), [state.rows[item] for item in state.all_skipped if item in state.rows],
        )  # fmt: skip

    def _rows(self, ids: Sequence[Which] | None) -> torch.Tensor | None:
        return None if ids is None else torch.tensor([self.state.rows[self.item(which)] for which in ids])

    def _shown(self, items: Sequence[str], training: TrainingSet, purpose: Purpose = "pick") -> list[Item]:
        """With what the head of the training set takes them for; whoever calls holds `_asking`."""
        rows = [self.state.rows[item] for item in items]
        taken: list[tuple[str | None, float | None]] = [(None, None)] * len(items)
        if items and len(set(training.targets)) > 1 and (head := self._going().head(training)) is not None:
            names = self.state.training_classes
            found = probabilities(self.features, head, torch.tensor(rows))
            taken = [(names[int(own.argmax())], float(own.max())) for own in found]
        return [Item(row, item, None, None, *own, purpose) for row, item, own in zip(rows, items, taken, strict=True)]

    def _class_name(self, label: Any) -> str | None:
        """None for what says nothing. Raises UserError for what is no name."""
        if label is None or (isinstance(label, float | np.floating) and np.isnan(label)):
            return None
        name = label if isinstance(label, str) else str(int(label)) if _whole(label) else ""
        if not name.strip():
            raise UserError(f"{label!r} is no label: give a class's name, or None where it cannot be told.")
        declared = self.state.declared
        if not isinstance(label, str) and declared and name not in declared and not any(map(str.isdigit, declared)):
            raise UserError(
                f"Label {name} is a number and the classes have names ({', '.join(declared[:5])}): give one."
            )
        return name.strip()

    def _said(self, item: str, by: str, name: str | None) -> bool:
        """Is this what the annotator has said already?"""
        if name is None:
            return by in self.state.skips.get(item, ())
        return self.state.votes.get(item, {}).get(by) == self.state.named(name)


_CHANGEABLE = ["query_strategy", "init_strategy", "classifier", "warm_start"]


def _whole(label: Any) -> bool:
    return isinstance(label, int | np.integer) and not isinstance(label, bool)


def _act(kind: str, by: str, name: str | None = None, **what: Any) -> Act:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"id": name or str(uuid.uuid4()), "time": now, "by": by, "act": kind, **what}
