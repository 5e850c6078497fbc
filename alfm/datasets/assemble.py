"""What every source shares: seeded stratified shares, class names to labels, and the fingerprint."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from alfm.datasets.base import Split
from alfm.datasets.labels import BELOW_ZERO, Value, read_value, unlabelled_values
from alfm.datasets.names import one_spelling, same_name
from alfm.errors import UserError
from alfm.streams import stream


def stratified_share(labels: np.ndarray, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cut rows in two, class by class (unlabelled rows count as one class).

    `labels` int64 (N,); `fraction` in (0, 1) is the share of the second part. Returns two int64 index arrays,
    ascending. Each class gives its rounded share of rows, drawn from the stream of (seed, class), and keeps at least
    one row in the first part: what is tested can be learnt. `UserError` when the fraction is out of range or leaves a
    part empty.
    """
    if not 0.0 < fraction < 1.0:
        raise UserError(f"test_fraction={fraction}: a share between 0 and 1 is needed, for example 0.2")
    chosen: list[np.ndarray] = []
    owed = 0.0  # what rounding left over is carried on, so that many tiny classes still add up to the share
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        owed += fraction * len(rows)
        take = min(len(rows), int(np.floor(owed + 0.5)))
        owed -= take  # of the class as a whole, so that the others' shares do not depend on what it keeps
        kept = 1 if label >= 0 and take == len(rows) else 0
        chosen.append(stream(seed, 0, f"test share of class {label}").permutation(rows)[: take - kept])
    second = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)
    first = np.setdiff1d(np.arange(len(labels)), second)
    if len(first) == 0 or len(second) == 0:
        raise UserError(
            f"test_fraction={fraction} of {len(labels)} items leaves one of the two parts empty (the last item of a "
            "class is not taken)"
        )
    return first, second


def labels_from_values(
    values: Mapping[str, Sequence[Any]],
    classes: Sequence[str] | None = None,
    unlabelled: Any = BELOW_ZERO,
    option: str = "dataset.unlabelled",
    remarks: list[str] | None = None,
) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """What a source says about classes, per split -> int64 labels per split, and class names.

    A value is a class name (text or UTF-8 bytes), a whole number (also as text that a number is written as: "7" and
    "7.0", not "007"; or as an integral float), or None / NaN / "" for unlabelled (-1). Which others mean unlabelled
    says `unlabelled` (see `unlabelled_values`). All values together are either numbers or names. With `classes`, they
    are looked up in it as names if all of them are there, else numbers index it. Otherwise whole numbers that are
    exactly 0..C-1 stay as they are; anything else gets numbers by sorted order over all splits.
    `UserError`: several labels per item, numbers that are no classes, names missing from `classes`, names in one split
    and numbers in another. `remarks` is given sentences about what was taken for granted.
    """
    remarks = [] if remarks is None else remarks
    names = [str(name) for name in classes] if classes is not None else None
    meanings: dict[Any, Value | None] = {}
    columns = {split: [_meaning(value, meanings) for value in column] for split, column in values.items()}
    counts = Counter(value for column in columns.values() for value in column if value is not None)
    without = unlabelled_values(counts, names or (), unlabelled, option, remarks)
    present = counts.keys() - without
    if names is None:
        hint = "say which is which: dataset.classes=[NAME, ...] in the order of the numbers"
        hint = hint if option.startswith("dataset.") else "save both as names, or both as numbers"
        _check_alike({split: present & set(column) for split, column in columns.items()}, hint)
        number_of, names = _numbered(present, remarks)
    else:
        number_of = _looked_up(present, names, remarks)
    labels = {
        split: np.array([-1 if value is None else number_of.get(value, -1) for value in column], dtype=np.int64)
        for split, column in columns.items()
    }
    return labels, names or None


def _meaning(value: Any, known: dict[Any, Value | None]) -> Value | None:
    """`read_value`, once for every different value."""
    try:
        key = (type(value), value)
        if key not in known:
            known[key] = read_value(value)
        return known[key]
    except TypeError:  # cannot be a key: a list
        return read_value(value)


def _numbered(present: Set[Value], remarks: list[str]) -> tuple[dict[Value, int], list[str]]:
    """Classes by sorted order: of numbers, or of names if one value is a name."""
    if all(value.number is not None for value in present):
        numbers = sorted({value.number for value in present if value.number is not None})
        place = {number: index for index, number in enumerate(numbers)}
        return {value: place[value.number] for value in present if value.number is not None}, list(map(str, numbers))
    spelling = one_spelling(value.written for value in present)
    names = sorted(set(spelling.values()))
    near: dict[Any, set[str]] = {}
    for value in present:
        alike = value.written.strip().casefold() if value.number is None else value.number
        near.setdefault(alike, set()).add(spelling[value.written])
    for group in near.values():
        if len(group) > 1:
            remarks.append(f"the classes {', '.join(map(repr, sorted(group)))} are nearly the same, and kept apart")
    index = {name: number for number, name in enumerate(names)}
    return {value: index[spelling[value.written]] for value in present}, names


def _looked_up(present: Set[Value], names: list[str], remarks: list[str]) -> dict[Value, int]:
    """Places in `names`: of names if all are there, else of what is there, and numbers are places."""
    place: dict[str, int] = {}
    for index, name in enumerate(names):
        place.setdefault(same_name(name), index)
    named = {
        value: place[text]
        for value in present
        for text in (same_name(value.written), str(value.number))[: 1 if value.number is None else 2]
        if text in place
    }
    counted = {v: v.number for v in present if v.number is not None and 0 <= v.number < len(names)}
    if len(named) == len(present):
        twice = [name for name, count in Counter(map(same_name, names)).items() if count > 1]
        if twice and any(place[name] in named.values() for name in twice):
            raise UserError(f"dataset.classes has {twice[0]!r} more than once: every class needs a name of its own")
        if len(counted) == len(present) and counted != named:
            remarks.append(_reading(min(counted, key=counted.__getitem__), named, names, "names, not as places"))
        return named
    known = counted | named
    if any((value := read_value(name)) is not None and value.number is not None for name in names):
        known = counted if len(counted) == len(present) else named  # one or the other, where both could be meant
        if known is counted:
            remarks.append(_reading(min(counted, key=counted.__getitem__), counted, names, "places, from 0"))
    strange = sorted(value.written for value in present - known.keys())
    if strange:
        raise UserError(f"label {strange[0]!r} is not among the {len(names)} classes {names[:10]}")
    return known


def _reading(value: Value, number_of: Mapping[Value, int], names: list[str], how: str) -> str:
    return (
        f"dataset.classes has numbers among its names, and labels were read as {how}: label {value.written} is the "
        f"class {names[number_of[value]]!r}"
    )


def _check_alike(present: Mapping[str, Set[Value]], hint: str) -> None:
    """`UserError`, which ends with the hint, when all labels of one split are numbers and all of another are names."""
    numbers = [split for split, found in present.items() if found and all(v.number is not None for v in found)]
    named = [
        split
        for split, found in present.items()
        if found and all(value.number is None and not value.written.isdecimal() for value in found)
    ]
    if numbers and named:
        one, other = numbers[0], named[0]
        raise UserError(
            f"the labels of {one} are numbers ({_some(present[one])}) and those of {other} are names "
            f"({_some(present[other])}): {hint}"
        )


def _some(values: Set[Value]) -> str:
    first = sorted((value.number or 0, value.written) for value in values)[:3]
    return ", ".join([written for _, written in first] + (["..."] if len(values) > 3 else []))


def check_apart(option: str, sources: Mapping[str, Iterable[str]]) -> None:
    """`UserError` when two splits take their items from one place: what is tested would have been trained on."""
    owner: dict[str, str] = {}
    for split, places in sources.items():
        for place in places:
            if owner.setdefault(place, split) != split:
                raise UserError(f"{option}: {place} is given for {owner[place]} and for {split}; a split needs its own")


def fingerprint(splits: Mapping[str, Split], classes: Sequence[str] | None, *content: Iterable[Any]) -> str:
    """SHA-256 (first 32 hex digits) over split names, ids, labels, class names, and what marks the content.

    Each `content` is an iterable of bytes, or of things whose `str` tells them apart (sizes, texts, options).
    """
    digest = hashlib.sha256()

    def add(piece: Any) -> None:
        raw = piece if isinstance(piece, bytes) else str(piece).encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))  # lengths, so that ("ab", "c") and ("a", "bc") differ
        digest.update(raw)

    for name in sorted(splits):
        add(name)
        add(np.ascontiguousarray(splits[name].labels, dtype="<i8").tobytes())
        for item_id in splits[name].ids:
            add(item_id)
    for piece in classes or ():
        add(piece)
    for part in content:
        for piece in part:
            add(piece)
    return digest.hexdigest()[:32]
