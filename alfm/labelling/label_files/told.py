"""What a file of labels says, item by item, and what of it could not be used, named and counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from alfm.datasets.labels import NOTHING, read_value
from alfm.errors import UserError, nearest_names
from alfm.labelling.label_files.matching import Keys, Matcher

Kind = Literal["label", "skip", "reject"]
CANNOT_TELL = "?"
"""In a column of labels: the annotator cannot tell. (A class of this name is a class.)"""
_SHOWN = 5
_NO_TEXT = re.compile("[\0-\b\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Told(NamedTuple):
    """One act: a label, a skip (label None), or a class that it is not. annotator None: whoever gave the file."""

    item: str
    kind: Kind
    label: str | None = None
    annotator: str | None = None


class LeftOut(NamedTuple):
    """One thing that was not used: where it stands, what it is, and why, a reason that others may share."""

    where: str
    what: str
    why: str


@dataclass
class LabelFile:
    """A file of labels as it was read."""

    source: str
    acts: list[Told] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """What -> how often, beside acts: rows without a label, the same once more, ..."""
    notes: list[str] = field(default_factory=list)
    """Sentences about how the file was read."""

    @property
    def by_kind(self) -> Counter[str]:
        """How many labels, skips and rejections."""
        return Counter(act.kind for act in self.acts)

    @property
    def by_class(self) -> Counter[str]:
        """Class -> how many items were given it."""
        return Counter(act.label for act in self.acts if act.kind == "label" and act.label is not None)

    @property
    def listed(self) -> list[str]:
        """Sentences on what was not used, reason by reason, the first few of each by name."""
        reasons: dict[str, list[LeftOut]] = {}
        for one in self.left_out:
            reasons.setdefault(one.why, []).append(one)
        said = []
        for why, ones in reasons.items():
            names = ", ".join(f"{shown(one.what)} ({one.where})" for one in ones[:_SHOWN])
            more = f" and {len(ones) - _SHOWN:,} more" if len(ones) > _SHOWN else ""
            said.append(f"{len(ones):,} left out, {why}: {names}{more}")
        return said

    def __str__(self) -> str:
        kinds = self.by_kind
        words = [f"{kinds['label']:,} labels"]
        words += [f"{kinds['skip']:,} that nobody can tell"] if kinds["skip"] else []
        words += [f"{kinds['reject']:,} rejected classes"] if kinds["reject"] else []
        words += [f"{count:,} {what}" for what, count in self.counts.items() if count]
        return f"{self.source}: {', '.join(words)}"


class Gathering:
    """Collects what a reader finds. `last_word`: whether a later word of an annotator on an item replaces an earlier
    one (journals); else both are left out and listed (tables, where no line is the later one)."""

    def __init__(self, source: str, matcher: Matcher, classes: Collection[str], last_word: bool) -> None:
        self.file = LabelFile(source)
        self.matcher, self.classes, self.last_word = matcher, frozenset(classes), last_word
        self._said: dict[tuple[str, str | None], tuple[str, Kind, str | None, str]] = {}
        """(item, annotator) -> when, what, label, where."""
        self._against: dict[tuple[str, str | None], list[str]] = {}
        """(item, annotator) -> all that was said, where it contradicts itself."""
        self._rejected: dict[tuple[str, str, str | None], None] = {}
        self._cells: dict[str, str | None] = {}
        """A cell -> what it says, since the same are written again and again."""

    def add(
        self, where: str, keys: Keys, kind: Kind, label: str | None, annotator: str | None = None, when: str = ""
    ) -> None:
        """One statement; `where` for messages, `when` sorts statements of one annotator on one item (ISO times)."""
        item, why = self.matcher.find(keys)
        if item is None:
            self.leave_out(where, keys.said, why)
        else:
            self.add_item(where, item, kind, label, annotator, when)

    def add_item(
        self, where: str, item: str, kind: Kind, label: str | None, annotator: str | None = None, when: str = ""
    ) -> None:
        """The same of an item that is known."""
        if label is not None and _NO_TEXT.search(label):
            self.leave_out(where, label, "its label holds a NUL or another character that is no text")
            return
        if kind == "reject" and label is not None:
            self._rejected[(item, label, annotator)] = None
            return
        key = (item, annotator)
        before = self._said.get(key)
        if before is None:
            self._said[key] = (when, kind, label, where)
        elif before[1:3] == (kind, label):
            self.count("said once more")
        elif not self.last_word:
            self._against.setdefault(key, [_word(before[1], before[2])]).append(_word(kind, label))
        else:
            self.count("said anew later")
            if when >= before[0]:
                self._said[key] = (when, kind, label, where)

    def leave_out(self, where: str, what: str, why: str) -> None:
        """List something that is not used."""
        self.file.left_out.append(LeftOut(where, what, why))

    def count(self, what: str) -> None:
        """Count something that needs no name."""
        self.file.counts[what] += 1

    def cell(self, where: str, keys: Keys, text: str, annotator: str | None = None, when: str = "") -> None:
        """One cell of a column of labels: a class, nothing, or `?`."""
        if text not in self._cells:
            self._cells[text] = _class_in(text, self.classes)
        label = self._cells[text]
        if label == "":
            self.count("without a label")
        elif label is None:
            self.leave_out(
                where, keys.said, f"{text.strip()!r} may mean nothing (a class of this name goes into classes=)"
            )
        elif label == CANNOT_TELL and CANNOT_TELL not in self.classes:
            self.add(where, keys, "skip", None, annotator, when)
        else:
            self.add(where, keys, "label", label, annotator, when)

    def done(self) -> LabelFile:
        """What was read. Contradictions of one table are listed, and none of them used."""
        for (item, annotator), words in self._against.items():
            where = self._said[(item, annotator)][3]
            self.leave_out(where, item, f"it is given {' and '.join(dict.fromkeys(words))}")
        for (item, annotator), (_, kind, label, _where) in self._said.items():
            if (item, annotator) not in self._against:
                self.file.acts.append(Told(item, kind, label, annotator))
        for item, rejected, annotator in self._rejected:
            self.file.acts.append(Told(item, "reject", rejected, annotator))
        if self.classes:
            for label, count in self.file.by_class.items():
                if label not in self.classes:
                    near = nearest_names(label, sorted(self.classes))
                    hint = f" ({near})" if near.startswith("did") else ""
                    self.file.notes.append(f"{shown(label)} is a new class, of {count:,} items{hint}")
        return self.file


def class_of(value: object, where: str) -> str | None:
    """What a JSON value says: a class name, None for nothing. `UserError` for several labels and for what is none."""
    if isinstance(value, dict) and isinstance(value.get("choices"), list):
        value = value["choices"]
    if isinstance(value, list) and all(isinstance(one, str | int | float) for one in value):
        several = list(dict.fromkeys(map(str, value)))
        if len(several) > 1:
            raise UserError(
                f"{where} has several labels, {', '.join(map(shown, several[:4]))}: one class per item is needed "
                "(multi-label is not supported), so keep one of them or split the task into one question per class"
            )
        value = value[0] if value else None
    if isinstance(value, bool | list | dict):
        raise UserError(f"{where}: {shown(str(value))} is no class name: one text or whole number per item is needed")
    if value is None or isinstance(value, str):
        return value if value and value.strip() else None
    read = read_value(value)
    return None if read is None else str(read.number if read.number is not None else read.written)


def shown(text: str) -> str:
    """A name in quotes, on one line, cut where it is long."""
    line = repr(text)
    return line if len(line) <= 60 else f"{line[:56]}...{line[0]}"


def _class_in(cell: str, classes: Collection[str]) -> str | None:
    """The class that a cell of a table names; "" for none, None for a word that may mean none."""
    label = cell if cell in classes else cell.strip()
    if not label or label in classes or label == CANNOT_TELL:
        return label
    if label.lower() in NOTHING:
        return None
    number = None if (value := read_value(label)) is None else value.number  # "1.0" of a column of floats is 1
    return label if number is None else str(number)


def _word(kind: Kind, label: str | None) -> str:
    return shown(label) if kind == "label" and label is not None else "no label (cannot tell)"
