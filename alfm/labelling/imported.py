"""Files of labels become acts, each once: given again a file changes nothing, and a new version what is new."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from alfm.labelling.active_learner import ActiveLearner
from alfm.labelling.label_files import LabelFile, Told

_OF_A_FILE = "file-"
_Key = tuple[str, str]
"""An item and an annotator."""


@dataclass(frozen=True)
class Imported:
    """What a file changed. stand: labels of earlier files that are not in this one."""

    new: int
    known: int
    stand: int

    def __str__(self) -> str:
        words = f"{self.new:,} of these are new, {self.known:,} were read before"
        return words + (f"; {self.stand:,} of earlier files are not in it and stand" if self.stand else "")


def import_labels(learner: ActiveLearner, file: LabelFile, annotator: str) -> Imported:
    """Tell a learner what a file says. annotator: whose labels these are, where the file does not say.

    What an earlier file said last of an item in an annotator's name is not said again: so what was put right elsewhere
    since stands. Raises UserError.
    """
    before = _last_of_files(learner)
    new = list(_unread(learner, before, file.acts, annotator))
    for by in dict.fromkeys(by for by, _, _ in new):
        labels = [(told, name) for who, told, name in new if who == by and told.kind != "reject"]
        against = [(told, name) for who, told, name in new if who == by and told.kind == "reject"]
        if labels:
            told, names = zip(*labels, strict=True)
            learner.tell([one.item for one in told], [one.label for one in told], by=by, acts=list(names))
        if against:
            told, names = zip(*against, strict=True)
            learner.reject([one.item for one in told], [one.label for one in told], by=by, acts=list(names))
    here = {(told.item, told.annotator or annotator) for told in file.acts}
    return Imported(len(new), len(file.acts) - len(new), len(before.keys() - here))


def unread(learner: ActiveLearner, file: LabelFile, annotator: str) -> int:
    """How much a file says that nobody has told the learner."""
    votes, skips = learner.state.votes, learner.state.skips
    return sum(
        by not in skips.get(told.item, ()) if told.label is None else votes.get(told.item, {}).get(by) != told.label
        for by, told, _ in _unread(learner, _last_of_files(learner), file.acts, annotator)
    )


def _last_of_files(learner: ActiveLearner) -> dict[_Key, tuple[str, str | None]]:
    """(item, annotator) -> the name of the last act that came from a file, and the label in it (None: a skip)."""
    found = {}
    for act in learner.acts:
        if str(act["id"]).startswith(_OF_A_FILE) and act["act"] in ("label", "skip"):
            found[act["item"], act["by"]] = (act["id"], act.get("label"))
    return found


def _unread(
    learner: ActiveLearner, before: dict[_Key, tuple[str, str | None]], acts: Iterable[Told], annotator: str
) -> Iterable[tuple[str, Told, str]]:
    """(annotator, what is new, the name of its act)."""
    for told in acts:
        by = told.annotator or annotator
        last = before.get((told.item, by)) if told.kind != "reject" else None
        if last is not None and last[1] == (told.label and told.label.strip()):
            continue
        name = _name(by, told, last and last[0])
        if name not in learner.state.known:
            yield by, told, name


def _name(by: str, told: Told, after: str | None) -> str:
    """Of what it says, and of what a file had said before it: so that a word may come again later."""
    said = json.dumps([by, told.item, told.kind, told.label, after]).encode()
    return _OF_A_FILE + hashlib.blake2b(said, digest_size=12).hexdigest()
