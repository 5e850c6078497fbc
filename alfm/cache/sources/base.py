"""What the readers of all formats share: options, rows that are read when they are asked for, texts, splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alfm.datasets.assemble import labels_from_values
from alfm.datasets.labels import ASK
from alfm.datasets.splits import split_names
from alfm.errors import UserError

BLOCK_ROWS = 4096
UNLABELLED = "--unlabelled"


@dataclass
class Options:
    """Which names to take from the source; None finds the usual ones. `test_fraction` cuts a seeded stratified test
    split from a source that has none; `dtype` is that of the written features, `auto` float16 where it loses nothing;
    `unlabelled`: the label or labels, besides -1, that mean "no label", None: none does; `encoding` of text files."""

    features: str | None = None
    labels: str | None = None
    ids: str | None = None
    split: str | None = None
    test_fraction: float | None = None
    seed: int = 0
    dtype: str = "auto"
    unlabelled: Any = ASK
    encoding: str | None = None


@dataclass
class Rows:
    """Rows of one split: `read(start, stop)` gives float (n, D), or (n, V, D). labels int64 (N,), -1 = unlabelled."""

    count: int
    item_shape: tuple[int, ...]
    read: Callable[[int, int], np.ndarray]
    labels: np.ndarray
    ids: list[str] | None


@dataclass
class Source:
    """What a file holds. `remarks`: sentences for the person, about what was left out or taken for granted."""

    splits: dict[str, Rows]
    class_names: list[str] | None = None
    remarks: list[str] = field(default_factory=list)


def some_rows(whole: Rows, rows: np.ndarray) -> Rows:
    """Some rows (ascending): whole blocks are read and the rows taken out."""

    def read(start: int, stop: int) -> np.ndarray:
        wanted = rows[start:stop]
        first = int(wanted[0])
        pieces = []
        for low in range(first, int(wanted[-1]) + 1, BLOCK_ROWS):
            inside = wanted[(wanted >= low) & (wanted < low + BLOCK_ROWS)]
            if len(inside):
                pieces.append(whole.read(low, min(low + BLOCK_ROWS, whole.count))[inside - low])
        return np.concatenate(pieces)

    ids = None if whole.ids is None else [whole.ids[row] for row in rows]
    return Rows(len(rows), whole.item_shape, read, whole.labels[rows], ids)


def split_rows(path: Path, whole: Rows, column: Sequence[Any]) -> dict[str, Rows]:
    """The rows of every value of a split column, usual names in any case being train, test and val.

    `UserError` when a row has no value.
    """
    of_row = [as_text(value) for value in column]
    if "" in of_row:
        raise UserError(f"{path}: row {of_row.index('')} has nothing in the column of splits.")
    names = split_names(dict.fromkeys(of_row))
    found = np.array([names[name] for name in of_row])
    return {name: some_rows(whole, np.flatnonzero(found == name)) for name in sorted(set(names.values()))}


def as_text(value: Any) -> str:
    """A cell as text: bytes are UTF-8, nothing is empty, a byte order mark is dropped. `UserError` for other bytes."""
    if isinstance(value, (bytes, bytearray)):
        try:
            value = bytes(value).decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{bytes(value)!r} is not UTF-8 text: save ids and names as text.") from error
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return str(value).replace("\ufeff", "")


def named_labels(
    columns: Mapping[str, Sequence[Any]], options: Options, remarks: list[str]
) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """Labels of a column of names or numbers, per split, as `labels_from_values` reads them, and class names.

    Numbers that are 0..C-1 and no texts have no names, as in arrays.
    """
    labels, names = labels_from_values(columns, unlabelled=options.unlabelled, option=UNLABELLED, remarks=remarks)
    counted = names == [str(number) for number in range(len(names or ()))]
    if counted and not any(isinstance(value, str | bytes) for column in columns.values() for value in column):
        names = None
    return labels, names


def length_mismatch(path: Path, split: str, rows: int, labels: int, ids: Sequence[str] | None) -> UserError | None:
    """The error when labels or ids are not as many as the rows."""
    if labels == rows and (ids is None or len(ids) == rows):
        return None
    counts = f"{labels} labels" + ("" if ids is None else f" and {len(ids)} ids")
    return UserError(f"{path}: {split} has {rows} rows of features, {counts}.")
