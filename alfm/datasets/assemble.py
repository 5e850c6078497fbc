"""What every source shares: seeded stratified shares, class names to labels, and the fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from alfm.datasets.base import Split
from alfm.errors import UserError
from alfm.streams import stream


def stratified_share(labels: np.ndarray, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cut rows in two, class by class (unlabelled rows count as one class).

    `labels` int64 (N,); `fraction` in (0, 1) is the share of the second part. Returns two int64 index arrays,
    ascending. Each class gives its rounded share of rows, drawn from the stream of (seed, class). `UserError`
    when the fraction is out of range or leaves a part empty.
    """
    if not 0.0 < fraction < 1.0:
        raise UserError(f"test_fraction={fraction}: a share between 0 and 1 is needed, for example 0.2")
    chosen: list[np.ndarray] = []
    owed = 0.0  # what rounding left over is carried on, so that many tiny classes still add up to the share
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        owed += fraction * len(rows)
        take = min(len(rows), int(np.floor(owed + 0.5)))
        owed -= take
        chosen.append(stream(seed, 0, f"test share of class {label}").permutation(rows)[:take])
    second = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)
    first = np.setdiff1d(np.arange(len(labels)), second)
    if len(first) == 0 or len(second) == 0:
        raise UserError(f"test_fraction={fraction} of {len(labels)} items leaves one of the two parts empty")
    return first, second


def labels_from_values(
    values: Mapping[str, Sequence[Any]], classes: Sequence[str] | None = None
) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """What a source says about classes, per split -> int64 labels per split, and class names.

    A value is a class name, an integer (also as text, or as an integral float), or None / NaN / "" / a negative
    number for unlabelled (-1). With `classes` given, integers index it and names are looked up in it. Otherwise
    integers that are exactly 0..C-1 stay as they are; anything else gets numbers by sorted order over all splits.
    `UserError` for several labels per item, numbers that are no classes, or names missing from `classes`.
    """
    clean = {split: [_label(value) for value in column] for split, column in values.items()}
    present = {value for column in clean.values() for value in column if value is not None}
    if not all(isinstance(value, int) for value in present):
        present = {str(value) for value in present}
        clean = {s: [None if v is None else str(v) for v in column] for s, column in clean.items()}
    if classes is not None:
        names = [str(name) for name in classes]
        known: dict[Any, int] = {**{name: i for i, name in enumerate(names)}, **{i: i for i in range(len(names))}}
        strange = sorted(map(str, present - known.keys()))
        if strange:
            raise UserError(f"label {strange[0]!r} is not among the {len(names)} classes {names[:10]}")
    else:
        ordered = sorted(present)
        known = {value: index for index, value in enumerate(ordered)}
        names = [str(value) for value in ordered]
    labels = {
        split: np.array([-1 if value is None else known[value] for value in column], dtype=np.int64)
        for split, column in clean.items()
    }
    return labels, names or None


def _label(value: Any) -> int | str | None:
    """One value of a label column -> an integer, a name, or None for unlabelled."""
    if value is None:
        return None
    if isinstance(value, str):
        if value.removeprefix("-").isdecimal() and value.isascii():
            value = int(value)
        else:
            return value or None
    if isinstance(value, (bool, np.bool_, int, np.integer)):
        return int(value) if value >= 0 else None
    if isinstance(value, (float, np.floating)):
        if np.isnan(value) or value < 0:
            return None
        if value == int(value):
            return int(value)
        raise UserError(f"label {value} is not a class: single-label classification needs whole numbers or names")
    if isinstance(value, (list, tuple, set, dict, np.ndarray)):
        raise UserError(f"label {value!r}: several labels per item (multi-label) are not supported")
    text = str(value)
    return None if text in ("", "<NA>", "NaT") else text


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
