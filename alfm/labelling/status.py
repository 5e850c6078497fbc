"""What people are shown of a labelling state: items that are asked for, and how far it has come."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from alfm.labelling.state import State

Purpose = Literal["pick", "audit"]


@dataclass(frozen=True)
class Item:
    """An item that is asked for. suggestion and confidence: the model's class and its probability, None without one.

    path or text: what it is, None where that cannot be shown; purpose: whether the strategy wants it, or the audit.
    """

    row: int
    id: str
    path: str | None = None
    text: str | None = None
    suggestion: str | None = None
    confidence: float | None = None
    purpose: Purpose = "pick"


@dataclass(frozen=True)
class Status:
    """How far it has come. labelled: items with a label, the audit's included; trained: those that heads learn from.

    ties and skipped: items; rejected: how often somebody said what an item is not; round: of the last batch, 0 before
    the first; audit: how many items are set aside, and how many of them have a label, in a row from the first on.
    """

    items: int
    labelled: int
    trained: int
    by_class: dict[str, int]
    classes: list[str]
    skipped: int
    ties: list[str]
    rejected: int
    annotators: dict[str, int]
    round: int
    open: int
    audit: int
    audit_answered: int
    notes: list[str]

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.by_class.items())
        lines = [
            f"{self.labelled:,} of {self.items:,} items labelled ({self.trained:,} to train on), round {self.round}, "
            f"{self.open} of the last batch open",
            f"Classes: {counts or 'none yet'}",
        ]
        if self.skipped or self.ties or self.rejected:
            lines.append(f"Skipped {self.skipped}, ties {len(self.ties)}, ruled out {self.rejected}")
        if self.audit:
            lines.append(f"Audit: {self.audit_answered} of {self.audit} answered")
        return "\n".join([*lines, *self.notes])


def status_of(state: State) -> Status:
    """Of what is known by now."""
    said = {item: label for item in {*state.votes, *state.stored} if (label := state.label_of(item)) is not None}
    counts, classes = Counter(said.values()), state.classes
    notes = []
    if not state.settings.get("classes_given"):
        notes.append(
            f"The classes were not given: heads know the {len(state.training_classes)} told so far and picks part from "
            "those of a run that knows all (its regularisation counts them); give classes=[...] where you know them."
        )
    answered = [state.label_of(item) is not None for item in state.window.items]
    return Status(
        items=len(state.items),
        labelled=len(said),
        trained=len(state.training),
        by_class={name: counts[name] for name in classes},
        classes=classes,
        skipped=len(state.all_skipped),
        ties=state.ties,
        rejected=sum(len(labels) for own in state.rejections.values() for labels in own.values()),
        annotators=dict(Counter(by for votes in state.votes.values() for by in votes)),
        round=state.round,
        open=len(state.open_items()),
        audit=state.window.size,
        audit_answered=answered.index(False) if False in answered else len(answered),
        notes=notes,
    )
