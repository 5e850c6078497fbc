"""What is known by now: acts in, labels out. A pure function of the pool's items and of the acts, in their order."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from alfm.errors import UserError, nearest_names
from alfm.labelling.window import Window

Act = Mapping[str, Any]
Do = Callable[[], None]
CACHE = "cache"
"""Who has said the labels that lie in a cache. Whatever a person says of an item counts instead."""


@dataclass(frozen=True)
class Source:
    """One cache's items as the pool has them: their keys in row order, and the labels that lie with them."""

    items: Sequence[str]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """What one question gave. labels: digest of what it was made from; settings: how many settings acts there were.

    after: the digest when it had been recorded: audit items that it took have labels already. None: labels were told
    while it was made.
    """

    round: int
    n: int
    items: tuple[str, ...]
    labels: str
    filled: int
    settings: int
    after: str | None


class Entry(NamedTuple):
    """Where an item stands among what is trained on: rounds in order; in one what was asked for, then the rest.

    round: of the last batch before it entered, 0 before the first. asked: 0 for an item of a batch, which stands by
    (batch, place); 1 for others, which stand by row.
    """

    round: int
    asked: int
    batch: int
    place: int


class Labelled(NamedTuple):
    """One label of the training set: the item, its class, and the round in which it came."""

    item: str
    label: str
    round: int


class State:
    """See `apply`. Everything that may be read is a plain attribute or a method without effects.

    settings: the newest, see `alfm.labelling.settings`. votes: item -> annotator -> class; skips: item -> annotators
    who cannot tell; rejections: item -> annotator -> classes that it is not, in their view. batches: all of them.
    window: the audit. declared: classes that were given or added, in order. revision: acts applied.
    """

    def __init__(self, source_of: Callable[[Any], Source]) -> None:
        """source_of: an entry of a settings act's `caches` -> its items; may raise UserError."""
        self._source_of = source_of
        self.settings: dict[str, Any] = {}
        self.items: list[str] = []
        self.rows: dict[str, int] = {}
        self.stored: dict[str, str] = {}
        self.votes: dict[str, dict[str, str]] = {}
        self.skips: dict[str, set[str]] = {}
        self.rejections: dict[str, dict[str, list[str]]] = {}
        self.declared: list[str] = []
        self.batches: list[Batch] = []
        self.window = Window()
        self.revision = 0
        self.known: set[str] = set()
        """Identifiers of the acts that were applied."""
        self._aliases: dict[str, str] = {}
        self._appeared: dict[str, None] = {}
        self._entered: dict[str, Entry] = {}
        self._asked: dict[str, tuple[int, int]] = {}
        self._audited: set[str] = set()
        self.volunteered: set[str] = set()
        """Items trained on that nobody had asked for when they were told, beside an audit."""
        self._revisions: dict[str, int] = {}
        self.settings_acts = 0
        self._digest: str | None = None
        self._training: list[Labelled] | None = None

    # ---- acts ----------------------------------------------------------------------------------------------------

    def apply(self, act: Act) -> bool:
        """One act more; False for one that was applied before. Raises UserError for what is none, changing nothing."""
        do = self.prepared(act)
        return do is not None and do()

    def prepared(self, act: Act) -> Callable[[], bool] | None:
        """What applies an act, found in order now; None for one that was applied before. Raises UserError as there."""
        kind, name = act.get("act"), act.get("id")
        if not isinstance(name, str) or not name:
            raise UserError("the act has no id")
        if name in self.known:
            return None
        read = getattr(self, f"_{kind}_act", None) if isinstance(kind, str) else None
        if read is None:
            raise UserError(f"there is no act {str(kind)[:40]!r}: it was written by a newer alfm, or edited")
        if not self.settings and kind != "settings":
            raise UserError("acts begin with one that says the settings")
        try:
            do = read(act)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UserError(f"the act {kind!r} lacks something or holds what it may not ({error!r})") from error

        def apply() -> bool:
            if name in self.known:  # the same twice in one piece
                return False
            do()
            self.known.add(name)
            self.revision += 1
            self._digest = self._training = None
            return True

        return apply

    # Each of these reads one kind of act, raises what is wrong with it, and returns what applies it.

    def _settings_act(self, act: Act) -> Do:
        old, new = self.settings, {key: value for key, value in act.items() if key not in ("id", "time", "by", "act")}
        before, after, seed = old.get("caches", []), new["caches"], new["seed"]
        if not isinstance(seed, int) or new["labels_in_cache"] not in ("use", "ignore") or not isinstance(after, list):
            raise UserError(f"seed {seed!r}, labels_in_cache {new['labels_in_cache']!r} or the caches are none")
        same = [_identity(one) for one in after[: len(before)]] == [_identity(one) for one in before]
        if not same or (old and (old["seed"], old["labels_in_cache"]) != (new["seed"], new["labels_in_cache"])):
            raise UserError("settings may add caches behind those there are, and change neither these nor the seed")
        sources = [self._source_of(one) for one in after[len(before) :]]
        items = [item for source in sources for item in source.items]
        counts = Counter(items)
        twice = next((item for item in items if counts[item] > 1 or item in self.rows), None)
        if twice is not None:
            raise UserError(
                f"item {twice!r} is there twice, and a label could mean either: embed only what is new, with known="
            )
        classes = [_name(name) for name in new["classes"]]

        def do() -> None:
            self.settings, self.settings_acts = new, self.settings_acts + 1
            for name in classes if not before else ():
                self._declare(name)
            self.rows.update({item: len(self.items) + index for index, item in enumerate(items)})
            self.items += items
            self.window.extend(seed, items)
            for source in sources if new["labels_in_cache"] == "use" else ():
                for item, label in source.labels.items():
                    self.stored[item] = self._appear(label)
                    self._enter(item)
            self._settle()

        return do

    def _label_act(self, act: Act) -> Do:
        item, by, given = self._item(act), _by(act), _name(act["label"])

        def do() -> None:
            label = self._appear(given)
            self._take_back(item, by, rejections=False)
            self.votes.setdefault(item, {})[by] = label
            if label in (rejected := self.rejections.get(item, {}).get(by, [])):
                rejected.remove(label)
            self._spoken_of(item)

        return do

    def _skip_act(self, act: Act) -> Do:
        item, by = self._item(act), _by(act)

        def do() -> None:
            self._take_back(item, by, rejections=False)
            self.skips.setdefault(item, set()).add(by)
            self._spoken_of(item)

        return do

    def _clear_act(self, act: Act) -> Do:
        item, by = self._item(act), _by(act)

        def do() -> None:
            self._take_back(item, by)
            self._spoken_of(item)

        return do

    def _reject_act(self, act: Act) -> Do:
        item, by, given = self._item(act), _by(act), _name(act["label"])

        def do() -> None:
            label = self._appear(given)
            own = self.rejections.setdefault(item, {}).setdefault(by, [])
            if label not in own:
                own.append(label)
            if self.votes.get(item, {}).get(by) == label:
                self._take_back(item, by, rejections=False)
            self._spoken_of(item)

        return do

    def _class_act(self, act: Act) -> Do:
        if "add" in act:
            added = _name(act["add"])
            return lambda: self._declare(added)
        if "rename" in act:
            old, new = map(_name, act["rename"])
            olds = [old]
            if new in self.classes and new != old:
                raise UserError(f"class {new!r} is there already: merge {old!r} into it")
        else:
            olds, new = [_name(one) for one in act["merge"][0]], _name(act["merge"][1])
        classes = self.classes
        for old in olds:
            if old not in classes:
                raise UserError(f"there is no class {old!r}: {nearest_names(old, classes)}")

        def do() -> None:
            for old in olds:
                if old != new:
                    self._call(old, new)

        return do

    def _batch_act(self, act: Act) -> Do:
        items = tuple(self._item({"item": item}) for item in act["items"])
        if len(set(items)) < len(items):
            raise UserError("a batch names an item twice")
        round, n, filled, labels = int(act["round"]), int(act["n"]), int(act.get("filled", 0)), str(act["labels"])
        if round < self.round:
            raise UserError(f"a batch of round {round} stands behind one of round {self.round}")

        def do() -> None:
            current, number = self.digest() == labels, len(self.batches)
            self.batches.append(Batch(round, n, items, labels, filled, self.settings_acts, None))
            self._asked |= {item: (number, place) for place, item in enumerate(items)}
            self.window.remove(items)
            self._settle()
            self._digest = self._training = None
            if current:
                self.batches[-1] = replace(self.batches[-1], after=self.digest())

        return do

    def _audit_act(self, act: Act) -> Do:
        size = act["items"]
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise UserError(f"an audit of {size!r} items: a whole number from 0 on is needed")

        def do() -> None:
            self.window.resize(size)
            self._settle()

        return do

    # ---- what they make of it ------------------------------------------------------------------------------------

    def label_of(self, item: str) -> str | None:
        """What most annotators say; None where nobody does, or where as many say something else."""
        votes = self.votes.get(item)
        if not votes:
            stored = self.stored.get(item)
            refused = item in self.skips or any(stored in own for own in self.rejections.get(item, {}).values())
            return None if refused else stored
        if len(votes) == 1:
            return next(iter(votes.values()))
        ranked = Counter(votes.values()).most_common(2)
        return None if len(ranked) > 1 and ranked[0][1] == ranked[1][1] else ranked[0][0]

    def skipped(self, item: str) -> bool:
        """Does somebody say that it cannot be told, and nobody what it is?"""
        return item in self.skips and not self.votes.get(item)

    @property
    def ties(self) -> list[str]:
        """Items on which annotators are split: they have no label and are asked again."""
        return [item for item, votes in self.votes.items() if votes and self.label_of(item) is None]

    @property
    def all_skipped(self) -> list[str]:
        """Items that are skipped, in row order."""
        return sorted((item for item in self.skips if self.skipped(item)), key=self.rows.__getitem__)

    @property
    def classes(self) -> list[str]:
        """Given and added ones in their order, then others that somebody's label names, as they appeared."""
        used = {label for votes in self.votes.values() for label in votes.values()} | set(self.stored.values())
        return self.declared + [name for name in self._appeared if name in used]

    @property
    def training(self) -> list[Labelled]:
        """What is trained on, in training order: see `Entry`."""
        if self._training is None:
            known = sorted((entry, item) for item, entry in self._entered.items())
            named = [(item, self.label_of(item), entry.round) for entry, item in known]
            self._training = [Labelled(item, label, round) for item, label, round in named if label is not None]
        return self._training

    @property
    def training_classes(self) -> list[str]:
        """The classes that heads know: given and added ones, then others in training order. Audit labels add none."""
        own = dict.fromkeys(one.label for one in self.training)
        return self.declared + [name for name in own if name not in self.declared]

    def named(self, label: str) -> str:
        """The class that a label means today, renamed as it may be."""
        while label in self._aliases:
            label = self._aliases[label]
        return label

    @property
    def once_trained(self) -> set[str]:
        """Items that are or were trained on."""
        return set(self._entered)

    def in_training(self, item: str) -> bool:
        """Is or was it trained on?"""
        return item in self._entered

    @property
    def round(self) -> int:
        """Of the last batch, 0 before the first."""
        return self.batches[-1].round if self.batches else 0

    @property
    def next_round(self) -> int:
        """Of the next question: that of the last while it is the same question."""
        return self.round + (self.batches[-1].labels != self.digest() if self.batches else 1)

    def digest(self) -> str:
        """Names what a batch is made from: labels with their rounds, in training order; classes; skipped items."""
        if self._digest is None:
            known = [self.training, self.training_classes, self.all_skipped]
            self._digest = hashlib.blake2b(json.dumps(known).encode(), digest_size=8).hexdigest()
        return self._digest

    def recorded(self, n: int | None = None) -> Batch | None:
        """The last batch, where it still answers the question: nothing was told since, or set otherwise."""
        last = self.batches[-1] if self.batches else None
        if last is None or last.settings != self.settings_acts or (n is not None and n != last.n):
            return None
        return last if self.digest() in (last.labels, last.after) else None

    def open_items(self, batch: Batch | None = None) -> list[str]:
        """Items of a batch, by default the last, that nobody has labelled or skipped."""
        batch = batch or (self.batches[-1] if self.batches else None)
        return [item for item in batch.items if self.wanted(item)] if batch else []

    def wanted(self, item: str) -> bool:
        """Has it no label yet, and may be asked for?"""
        return self.label_of(item) is None and not self.skipped(item)

    def item_revision(self, item: str) -> int:
        """How many acts there were when somebody last said something about it, 0 for never."""
        return self._revisions.get(item, 0)

    # ---- inside --------------------------------------------------------------------------------------------------

    def _item(self, act: Act) -> str:
        item = act["item"]
        if item not in self.rows:
            raise UserError(f"there is no item {str(item)[:80]!r} in the pool")
        return str(item)

    def _take_back(self, item: str, by: str, rejections: bool = True) -> None:
        for said in (self.votes, self.rejections) if rejections else (self.votes,):
            of_item: Any = said.get(item, {})
            of_item.pop(by, None)
            if not of_item:
                said.pop(item, None)
        if by in (skips := self.skips.get(item, set())):
            skips.remove(by)
            if not skips:
                del self.skips[item]

    def _spoken_of(self, item: str) -> None:
        """Somebody said something about it: it is used, or, skipped, leaves the audit."""
        self._revisions[item] = self.revision + 1
        if self.skipped(item):
            self.window.skip(item)
        elif self.window.unskip(item):
            self._settle()
        self._use(item)

    def _use(self, item: str) -> None:
        """Its label, if it has one, is the audit's where it is in the audit, and trained on otherwise."""
        if self.label_of(item) is None:
            return
        if item in self.window:
            self._audited.add(item)
        else:
            if self.window.size and item not in self._asked and item not in self._entered:
                self.volunteered.add(item)
            self._enter(item)

    def _enter(self, item: str) -> None:
        """From now on it is trained on. What it stood by when it first entered stands."""
        if item in self._entered:
            return
        asked = self._asked.get(item)
        place = (1, 0, self.rows[item]) if asked is None else (0, *asked)
        self._entered[item] = Entry(self.round, *place)
        self.window.remove([item])

    def _settle(self) -> None:
        """Labelled items that the audit no longer holds are trained on."""
        for item in [item for item in self._audited if item not in self.window]:
            self._audited.remove(item)
            if self.label_of(item) is not None:
                self._enter(item)

    def _declare(self, name: str) -> None:
        self._aliases.pop(name, None)
        self._appeared.pop(name, None)
        if name not in self.declared:
            self.declared.append(name)

    def _appear(self, label: str) -> str:
        """The class that a label means today, which is known from now on."""
        label = self.named(label)
        if label not in self.declared:
            self._appeared.setdefault(label)
        return label

    def _call(self, old: str, new: str) -> None:
        """Whatever is called `old` is called `new`; `new` may be there."""
        for votes in self.votes.values():
            votes.update({by: new for by, label in votes.items() if label == old})
        for by_annotator in self.rejections.values():
            for by, labels in by_annotator.items():
                by_annotator[by] = list(dict.fromkeys(new if label == old else label for label in labels))
        self.stored.update({item: new for item, label in self.stored.items() if label == old})
        there = new in self.declared
        self.declared = [new if name == old else name for name in self.declared if not (there and name == old)]
        self._appeared = dict.fromkeys(new if name == old else name for name in self._appeared)
        if new in self.declared:
            self._appeared.pop(new, None)
        self._aliases.pop(new, None)
        self._aliases[old] = new
        for item in self.votes:  # a merger may end a tie
            self._use(item)


def _identity(cache: Mapping[str, Any]) -> tuple[Any, ...]:
    return cache["fingerprint"], cache["split"], cache["rows"]


def _name(given: Any) -> str:
    if not isinstance(given, str) or not given.strip():
        raise UserError(f"a class is named by a text, not by {str(given)[:40]!r}")
    return given.strip()


def _by(act: Act) -> str:
    by = act["by"]
    if not isinstance(by, str) or not by:
        raise UserError("an act says who acts")
    return by
