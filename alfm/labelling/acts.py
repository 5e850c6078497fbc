"""From what callers say to acts: items by id, row or as they were asked for; classes by name or number."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from alfm.errors import UserError, nearest_names
from alfm.labelling.journal import Act
from alfm.labelling.state import State
from alfm.labelling.status import Item

Which = str | int | Item
"""An item: its id, its row in the pool, or as `ask` gives it."""
_MANY = 5000
"""Ids among which near ones are looked for."""


def act(kind: str, by: str, name: str | None = None, **what: Any) -> Act:
    """An act of now, under an identifier of its own or the caller's."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"id": name or str(uuid.uuid4()), "time": now, "by": by, "act": kind, **what}


def said(
    state: State, by: str, ids: Sequence[Which], labels: Sequence[Any], names: Sequence[str] | None = None
) -> list[Act]:
    """A label or skip for each item; without names for the acts, what the annotator has said already is left out.

    Raises UserError for items and labels that are none.
    """
    lists("tell", ids, labels, names)
    acts: list[Act] = []
    spoken: set[str] = set()
    for index, (which, label) in enumerate(zip(ids, labels, strict=True)):
        item, name = item_of(state, which), class_of(state, label)
        own = None if names is None else names[index]
        if name is None:
            known, what = by in state.skips.get(item, ()), act("skip", by, own, item=item)
        else:
            known = state.votes.get(item, {}).get(by) == state.named(name)
            what = act("label", by, own, item=item, label=name)
        if own is not None or not known or item in spoken:  # twice in one call: the last word stands
            acts.append(what)
            spoken.add(item)
    return acts


def lists(what: str, ids: Any, labels: Any = None, names: Any = None) -> None:
    """Raises UserError where these are not lists of one length; a text is none."""
    for word, given in (("items", ids), ("labels", labels), ("acts", names)):
        if given is None and word != "items":
            continue
        if isinstance(given, str | bytes) or not hasattr(given, "__len__"):
            raise UserError(f"{what}: {str(given)[:40]!r} is no list of {word}: put it into brackets, [...].")
        if len(given) != len(ids):
            raise UserError(f"{what}: {len(ids)} items and {len(given)} {word}; give one for each.")


def item_of(state: State, which: Which) -> str:
    """An item's key. Raises UserError where there is none."""
    if isinstance(which, Item):
        which = which.id
    if isinstance(which, str):
        if which in state.rows:
            return which
        near = nearest_names(which, state.items) if len(state.items) <= _MANY else "see the cache's ids"
        raise UserError(f"There is no item {which[:80]!r} in the pool: {near}")
    if isinstance(which, bool | np.bool_) or not isinstance(which, int | np.integer):
        raise UserError(f"{str(which)[:40]!r} is no item: give its id, its row number, or what ask returned.")
    if not 0 <= which < len(state.items):
        raise UserError(f"There is no row {which} in the pool: its rows are 0 to {len(state.items) - 1}.")
    return state.items[which]


def class_of(state: State, label: Any) -> str | None:
    """A class's name; None for what says nothing (None, NaN). Raises UserError for what is no name."""
    if label is None or (isinstance(label, float | np.floating) and np.isnan(label)):
        return None
    if isinstance(label, str):
        name = label.strip()
    else:
        name = str(int(label)) if isinstance(label, int | np.integer) and not isinstance(label, bool) else ""
        if name and state.declared and name not in state.declared and not any(map(str.isdigit, state.declared)):
            some = ", ".join(state.declared[:5])
            raise UserError(f"Label {name} is a number and the classes have names ({some}): give the name.")
    if not name:
        raise UserError(f"{str(label)[:40]!r} is no label: give a class's name, or None where it cannot be told.")
    return name
