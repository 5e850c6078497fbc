"""Which items of the pool a list on the page holds, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from alfm.errors import UserError
from alfm.features.spaces import UNIT
from alfm.geometry.topk import top
from alfm.labelling.page.desk import Desk
from alfm.strategies.facility_location import FacilityLocation
from alfm.strategies.query import Query

WHICH = ("all", "unlabelled", "labelled", "skipped", "ties")
SORTS = ("pool", "confidence", "suggestion", "label")
DUPLICATE = 0.98  # cosine from which on an item is called a near duplicate
MOST_ALIKE = 200


def find(desk: Desk, which: str, words: str, label: str, sort: str) -> list[int]:
    """Rows of a kind (`WHICH`) with all the words in text or id, and a class said or suggested, in order (`SORTS`).

    Raises UserError for another kind or order.
    """
    if which not in WHICH or sort not in SORTS:
        raise UserError(f"There is no list of {which[:50]!r} sorted by {sort[:50]!r}.")
    with desk.reading():
        rows = _of_kind(desk, which)
        if label:
            rows = [row for row in rows if label in (_label(desk, row) or _suggestion(desk, row),)]
    wanted = words.casefold().split()
    if wanted:  # which may read every text: nobody who labels meanwhile waits for that
        rows = [row for row in rows if all(word in _written(desk, row) for word in wanted)]
    with desk.reading():
        return _sorted(desk, rows, sort)


def _of_kind(desk: Desk, which: str) -> list[int]:
    state = desk.learner.state
    if which == "all":
        return list(range(len(state.items)))
    if which == "ties":
        return sorted(state.rows[name] for name in state.ties)
    if which == "skipped":
        return [state.rows[name] for name in state.all_skipped]
    if which == "labelled":
        return [row for row, name in enumerate(state.items) if state.label_of(name) is not None]
    return [row for row, name in enumerate(state.items) if state.wanted(name)]


def _label(desk: Desk, row: int) -> str | None:
    return desk.learner.state.label_of(desk.id(row))


def _suggestion(desk: Desk, row: int) -> str | None:
    return desk.suggested.name(row) if desk.suggested else None


def _written(desk: Desk, row: int) -> str:
    """All that words are looked for in, in lower case; read once."""
    if row not in desk.written:
        desk.written[row] = "\n".join(filter(None, (desk.items.text(row), desk.id(row)))).casefold()
    return desk.written[row]


def _sorted(desk: Desk, rows: list[int], sort: str) -> list[int]:
    """The least sure first; the same suggestion side by side, the surest first; ties by row."""
    if sort == "label":
        return sorted(rows, key=lambda row: (_label(desk, row) is None, _label(desk, row) or "", row))
    if sort == "pool" or desk.suggested is None:
        return rows
    found, sure = desk.suggested, desk.suggested.confidence
    if sort == "confidence":
        return sorted(rows, key=lambda row: (sure[row], row))
    return sorted(rows, key=lambda row: (found.labels[row], -sure[row], row))


def duplicates(desk: Desk, row: int, most: int = 48) -> list[tuple[int, float]]:
    """Unanswered items that are hardly to be told from this one, and the cosine; the nearest first."""
    desk.id(row)
    cosine = _cosine(desk, [row])
    allowed = _open(desk)
    allowed[row] = False
    rows = top(cosine, allowed & (cosine >= DUPLICATE), most)
    return [(int(other), float(cosine[other])) for other in rows]


def alike(desk: Desk, rows: Sequence[int], varied: bool, most: int = MOST_ALIKE) -> list[int]:
    """Unanswered items like the given ones: the nearest first; varied: such as show all sides of them (FLQMI)."""
    if not rows:
        raise UserError("More like which? Select an item or more.")
    for row in rows:
        desk.id(row)
    allowed = _open(desk)
    allowed[list(rows)] = False
    most = min(most, int(allowed.sum()))
    if not most:
        return []
    if not varied:
        return top(_cosine(desk, rows), allowed, most).tolist()
    learner = desk.learner
    none = torch.empty(1, 0, dtype=torch.int64, device=learner.features.device)
    query = Query(learner.features, none, none, allowed[None].to(none.device), 2, [learner.state.settings["seed"]], 1)
    strategy = FacilityLocation(query_rows=tuple(int(row) for row in rows), rows="pool", form="flqmi")
    return strategy.select(query, min(most, 48))[0].tolist()


def _open(desk: Desk) -> torch.Tensor:
    """(N,) bool on the host: items about which nothing has been said."""
    with desk.reading():
        return torch.tensor([not desk.answered(name) for name in desk.learner.state.items])


def _cosine(desk: Desk, rows: Sequence[int]) -> torch.Tensor:
    """(N,) on the host: the cosine to the nearest of some rows."""
    features = desk.learner.features
    unit = features.points(UNIT)  # a common offset would make all items duplicates
    some = torch.tensor(list(rows), device=features.device)
    shown = torch.nn.functional.normalize(unit.rows(some), dim=1)
    found = np.empty(features.N, dtype=np.float32)
    for block, x in unit.blocks():
        found[block] = (torch.nn.functional.normalize(x, dim=1) @ shown.T).amax(1).cpu().numpy()
    return torch.from_numpy(found)
