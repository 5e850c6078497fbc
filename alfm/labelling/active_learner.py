"""The loop with people in it: ask for items, tell what they are, and have the rest predicted.

    learner = alfm.ActiveLearner("pool.h5", query_strategy="uherding", folder="pool.labelling")
    batch = learner.ask(20)  # items: row, id, path or text, what the model takes them for
    learner.tell(batch, ["cat", "dog", None, ...])  # None: cannot tell
    learner.predict()  # the class of every item

Everything that was said is in the folder's journal before `tell` returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import torch

from alfm.cache.reader import FeatureCache
from alfm.errors import UserError, nearest_names
from alfm.features.features import Features, Memory
from alfm.heads.base import Classifier
from alfm.heads.linear import LinearHead
from alfm.labelling import parts
from alfm.labelling.acts import Which, act, lists
from alfm.labelling.items import Items
from alfm.labelling.journal import Act, Journal
from alfm.labelling.models import Models
from alfm.labelling.newest import Suggestions, probabilities
from alfm.labelling.pool import CacheName, Caches
from alfm.labelling.record import Record
from alfm.labelling.rounds import TrainingSet
from alfm.labelling.state import State
from alfm.labelling.status import Item, Purpose
from alfm.options import Seed, Whole, checked

_CHANGEABLE = ["query_strategy", "init_strategy", "classifier", "warm_start"]


@checked
class ActiveLearner(Record):
    """One pool, what people say of it (see `Record`), and what is made of that: batches, heads, suggestions.

    May be used from several threads: telling never waits for a fit.
    """

    def __init__(
        self,
        cache: CacheName | Sequence[CacheName],
        *,
        query_strategy: Any = "uherding",
        init_strategy: Any = None,
        classifier: Any = "logistic",
        seed: Seed = 0,
        classes: Sequence[str | int] | None = None,
        folder: Path | str | None = None,
        split: str = "train",
        labels_in_cache: Literal["use", "ignore"] = "use",
        warm_start: bool = True,
        device: str = "auto",
        memory: Memory = "auto",
        items: Path | str | None = None,
        root: Path | str | None = None,
    ) -> None:
        """Strategies and classifier: names of configs, or objects; init_strategy None: the query strategy's own.

        cache: one or several, whose items then follow one another. classes: all of them, where they are known: then
        picks are those of a simulation that knows them. labels_in_cache: whether labels that lie in the cache count as
        told. folder: a new one for the journal (`load` goes on with an old one). warm_start: as in `al_train`.
        items, root: a table of where the items are, and the folder that they lie in, where the cache does not say.
        Raises UserError.
        """
        if folder is not None and Journal.there(folder):
            raise UserError(f"{folder} holds a labelling state: go on with ActiveLearner.load({str(folder)!r}).")
        chosen = parts.chosen(query_strategy, init_strategy, classifier)
        if folder is not None:
            parts.refuse_unrecorded(chosen)
        given = Caches.open(cache, split)
        self._begin(given, None if folder is None else Journal(folder), device, memory, items, root)
        known = list(map(str, classes)) if classes is not None else given.class_names(labels_in_cache == "use")
        self._record(lambda: [act(
            "settings", "alfm", caches=given.new(), seed=int(seed), **parts.record(chosen), classes=known,
            classes_given=bool(known), labels_in_cache=labels_in_cache, warm_start=warm_start,
        )])  # fmt: skip
        self._models.take(self.state.settings, chosen)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        cache: CacheName | Sequence[CacheName] | None = None,
        *,
        device: str = "auto",
        memory: Memory = "auto",
        items: Path | str | None = None,
        root: Path | str | None = None,
        **changes: Any,
    ) -> ActiveLearner:
        """Go on with what is in a folder.

        cache: where the caches are now, and new ones behind them; None: where they were. changes: another
        `query_strategy`, `init_strategy`, `classifier` or `warm_start` from now on; recorded. Raises UserError.
        """
        if not Journal.there(folder):
            raise _nothing_in(folder)
        self = cls.__new__(cls)
        self._begin(Caches() if cache is None else Caches.open(cache), Journal(folder), device, memory, items, root)
        self.refresh()
        if not self.state.settings:
            raise _nothing_in(folder)
        self.change(**changes)
        return self

    def _begin(self, given: Caches, journal: Journal | None, *how: Any) -> None:
        super().__init__(State(given.source), journal)
        self._models = Models(given, *how)
        self._asking = Lock()

    # ---- asking ----------------------------------------------------------------------------------------

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
                    if not any(map(self.state.wanted, self.state.items)):
                        return []  # and the audit stays what it is
                    made, round, digest = len(self.state.batches), self.state.next_round, self.state.digest()
                    training, settings = self._training(), self.state.settings
                rows, filled = self._models.rounds(settings).ask(training, round, n)
                if not rows:
                    return []
                items = [self.state.items[row] for row in rows]
                new = act("batch", by, round=round, n=n, items=items, labels=digest, filled=filled)
                with self._lock:
                    self._record(partial(self._unless_asked, made, new))
                    if self.state.batches[-1].items == tuple(items) and (wanted := self.state.open_items()):
                        break
            return self._shown(wanted, "pick")

    def batch(self) -> list[Item]:
        """Items of the last batch that nobody has labelled or skipped yet: what to go on with after a break."""
        with self._asking:
            with self._lock:
                self.refresh()
                wanted = self.state.open_items()
            return self._shown(wanted, "pick")

    def ask_audit(self, n: Whole | None = None) -> list[Item]:
        """Items of the audit that have no label yet, in its order: at most n."""
        with self._asking:
            with self._lock:
                self.refresh()
                wanted = [item for item in self.state.window.items if self.state.wanted(item)][:n]
            return self._shown(wanted, "audit")

    def change(self, **changes: Any) -> None:
        """Another `query_strategy`, `init_strategy`, `classifier` or `warm_start` from now on, recorded if it is one.

        A new query strategy brings its own cold start unless one is named too. Raises UserError.
        """
        wrong = next((name for name in changes if name not in _CHANGEABLE), None)
        if wrong is not None:
            raise UserError(f"{wrong} cannot be changed: {nearest_names(wrong, _CHANGEABLE)}")
        with self._lock:
            self.refresh()
            old = self.state.settings
            new = {**old, "caches": old["caches"] + self._models.caches.new(old["caches"])}
            new["warm_start"] = changes.pop("warm_start", old.get("warm_start", True))
            chosen = parts.chosen_again(self._models.parts(old), changes) if changes else None
            if chosen is not None:
                if self.journal is not None:
                    parts.refuse_unrecorded(chosen)
                new |= parts.record(chosen)
            if new != old:
                self._record(lambda: [act("settings", "alfm", **new)])
                self._models.take(self.state.settings, chosen or self._models.parts(old))

    # ---- what the model says ---------------------------------------------------------------------------------------

    @property
    def head(self) -> LinearHead:
        """The head of what is labelled by now, fitted as a simulation fits it; its classes are `head_classes`."""
        return self._fitted()[0]

    def heads(self, training: TrainingSet) -> list[LinearHead]:
        """A head for each round of a `training_set`, in order, fitted on what was told in it and before."""
        with self._asking:
            return self._models.rounds(self.state.settings).heads(training)

    @property
    def classifier(self) -> Classifier:
        """What fits the heads."""
        return self._models.parts(self.state.settings)["classifier"].made

    @property
    def head_classes(self) -> list[str]:
        """Classes that are known to the head, in the order of its weights. Those seen in the audit alone are not."""
        return self.state.training_classes

    def predict(self, ids: Sequence[Which] | None = None) -> list[str]:
        """The model's class of each item, by default of all."""
        head, names, _ = self._fitted()
        return [names[index] for index in probabilities(self.features, head, self._rows(ids)).argmax(1)]

    def predict_proba(self, ids: Sequence[Which] | None = None) -> np.ndarray:
        """Probabilities (n, C) float32 of the `classes`, in their order; 0 for those that the head does not know."""
        head, names, classes = self._fitted()
        found = probabilities(self.features, head, self._rows(ids))
        out = np.zeros((len(found), len(classes)), np.float32)
        out[:, [classes.index(name) for name in names]] = found[:, : len(names)]
        return out

    def refit(self) -> LinearHead | None:
        """The head behind `suggestions`, of what is labelled now, begun at the one before; None: too few classes."""
        with self._lock:
            self.refresh()
            training, settings = self._training(), self.state.settings
        return self._models.newest(settings).fit(training)

    def suggestions(self) -> Suggestions | None:
        """The newest head's class of every item, and how sure it is; None before there are labels of two classes."""
        with self._lock:
            self.refresh()
            training, settings, own, classes = self._training(), self.state.settings, self.head_classes, self.classes
        return self._models.newest(settings).suggestions(training, own, classes)

    # ---- what lies where -------------------------------------------------------------------------------------------

    @property
    def caches(self) -> list[tuple[FeatureCache, str]]:
        """The caches of the pool in order, each with the split of it that is labelled."""
        return [(self._models.caches.find(entry), entry["split"]) for entry in self.state.settings["caches"]]

    @property
    def features(self) -> Features:
        """The pool's features, row by row; loaded when first asked for."""
        return self._models.features(self.state.settings)

    @property
    def items(self) -> Items:
        """What lies behind the rows: files, texts."""
        return self._models.items(self.state.settings)

    def training_set(self) -> TrainingSet:
        """What heads are fitted on, as rows and class numbers."""
        with self._lock:
            return self._training()

    def save(self, folder: Path | str) -> None:
        """Write all acts into a new folder. A learner that had none goes on writing there. Raises UserError."""
        parts.refuse_unrecorded(self._models.parts(self.state.settings))
        super().save(folder)

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _unless_asked(self, batches: int, new: Act) -> list[Act]:
        """The new batch, if there still are so many."""
        return [new] if len(self.state.batches) == batches else []

    def _training(self) -> TrainingSet:
        state = self.state
        told, number = state.training, {name: index for index, name in enumerate(state.training_classes)}
        return TrainingSet(
            [state.rows[one.item] for one in told], [number[one.label] for one in told], [one.round for one in told],
            len(number), [state.rows[item] for item in state.all_skipped],
        )  # fmt: skip

    def _fitted(self) -> tuple[LinearHead, list[str], list[str]]:
        """The head, its classes, and all classes."""
        with self._asking:
            with self._lock:
                self.refresh()
                training, settings = self._training(), self.state.settings
                own, classes = self.head_classes, self.classes
            head = self._models.rounds(settings).head(training)
        if head is None:
            raise UserError("Nothing is labelled yet: tell some labels before a model is asked for.")
        return head, own, classes

    def _rows(self, ids: Sequence[Which] | None) -> torch.Tensor | None:
        if ids is None:
            return None
        lists("predict", ids)
        return torch.tensor([self.state.rows[self.item(which)] for which in ids], dtype=torch.int64)

    def _shown(self, items: Sequence[str], purpose: Purpose) -> list[Item]:
        """With what the head before the last batch takes them for; whoever calls holds `_asking`."""
        with self._lock:
            rows, names, settings = [self.state.rows[item] for item in items], self.head_classes, self.state.settings
            training = self._training()
            training = training.before(self.state.round) if self.state.batches else training
        taken: list[tuple[str | None, float | None]] = [(None, None)] * len(items)
        if items and len(set(training.targets)) > 1 and (head := self._models.rounds(settings).head(training)):
            found = probabilities(self.features, head, torch.tensor(rows))
            taken = [(names[int(own.argmax())], float(own.max())) for own in found]
        seen = self._models.items(settings)
        return [
            Item(row, item, seen.path(row), seen.text(row), *own, purpose)
            for row, item, own in zip(rows, items, taken, strict=True)
        ]


def _nothing_in(folder: Path | str) -> UserError:
    return UserError(f"{folder} holds no labelling state: begin one with ActiveLearner(cache, folder=...).")
