"""What the page is told, as plain data: items, and how things stand. Texts stay texts; the page shows them as such."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from alfm.config.paths import conf_dir
from alfm.labelling.page.desk import Desk, Purpose

LONGEST = 4000  # characters of a text that are shown


def item(desk: Desk, row: int, purpose: Purpose = "own") -> dict[str, Any]:
    """One item: what it is, who said what about it, what the model says, and its revision."""
    learner, name = desk.learner, desk.id(row)
    state, text = learner.state, desk.text(row)
    found = desk.suggested
    return {
        "row": row,
        "id": name,
        "text": None if text is None else text[:LONGEST],
        "cut": text is not None and len(text) > LONGEST,
        "label": state.label_of(name),
        "votes": state.votes.get(name, {}),
        "skipped": state.skipped(name),
        "rejected": sorted({label for own in state.rejections.get(name, {}).values() for label in own}),
        "suggestion": found and found.name(row),
        "confidence": found and float(found.confidence[row]),
        "revision": state.item_revision(name),
        "purpose": purpose,
    }


def listed(desk: Desk, rows: Iterable[int]) -> list[dict[str, Any]]:
    """The same of some rows."""
    with desk.reading():
        return [item(desk, row) for row in rows]


def queue(desk: Desk, most: int, by: str) -> list[dict[str, Any]]:
    """What an annotator is asked next, each with its purpose."""
    with desk.reading():
        return [item(desk, row, purpose) for row, purpose in desk.queue(most, by)]


def standing(desk: Desk, by: str) -> dict[str, Any]:
    """How things stand: classes and their balance, the batch, what runs, how good it is."""
    with desk.reading():
        state, status, busy = desk.learner.state, desk.learner.status(), desk.worker.busy_with()
        batch = state.batches[-1] if state.batches else None
        cold = batch is None or (batch.round == 1 and not any(one.round == 0 for one in state.training))
        strategy = ("init" if cold else "query") + "_strategy"
        name = state.settings["names"][strategy]
        return {
            "version": desk.version,
            "pool": status.items,
            "labelled": status.labelled,
            "classes": status.classes,
            "balance": status.by_class,
            "skipped": status.skipped,
            "ties": len(status.ties),
            "batch": batch and {"round": batch.round, "n": len(batch.items), "left": len(desk.waiting())},
            "audit": {"items": status.audit, "answered": status.audit_answered},
            "strategy": name,
            "why": about(strategy, name),
            "busy": busy and {"with": busy[0], "seconds": round(busy[1], 1)},
            "trouble": list(desk.worker.trouble.values()),
            "exhausted": desk.exhausted,
            "measured": desk.measured,
            "undo": desk.undoable(by),
        }


@cache
def about(group: str, name: str) -> str:
    """What a strategy picks, as the first line of its config says; nothing for one of the user's own."""
    file = conf_dir() / group / f"{name}.yaml"
    line = file.read_text(encoding="utf-8").partition("\n")[0] if file.is_file() else ""
    return line.removeprefix("# ").partition(" (")[0] if line.startswith("# ") else ""
