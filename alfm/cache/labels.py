"""Arrays of labels as people hold them -> class numbers: (N, 1), (1, N), one-hot, NaN, fill values, gaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from alfm.cache.layout import MAX_CLASSES
from alfm.datasets.labels import ASK, Value, typed, unlabelled_values
from alfm.errors import UserError

_BLOCK_ROWS = 1 << 16


def label_column(values: Any, rows: int, where: str, fill: Any = None) -> np.ndarray:
    """int64 (rows,) of an array or HDF5 dataset of numbers: (N,), (N, 1), (1, N), or one-hot (N, C); NaN becomes -1.

    `fill`: what the file says stands for nothing (see `fill_value`). Raises `UserError`: several labels per item,
    another number of rows, numbers that are not whole.
    """
    shape = tuple(values.shape)
    if values.dtype.kind not in "iubf":
        raise UserError(f"{where} has dtype {values.dtype}: labels must be whole numbers or names.")
    if len(shape) == 2 and shape[0] == rows and shape[1] > 1:
        return _one_hot(values, where)
    if shape not in ((rows,), (rows, 1), (1, rows)):
        raise UserError(f"{where} has shape {shape} beside {rows} rows of features: one label per row is needed.")
    flat = np.asarray(values[:]).reshape(-1)
    if flat.dtype.kind == "f":
        labelled = ~np.isnan(flat)
        whole = np.isfinite(flat) & (flat == np.round(flat)) & (np.abs(flat) < 2**53)
        if not (whole | ~labelled).all():
            raise UserError(f"{where} holds {flat[labelled & ~whole][0]}: labels must be whole numbers.")
        flat = np.where(labelled, flat, -1)
    elif flat.dtype.kind == "u" and flat.size and flat.max() > np.iinfo(np.int64).max:
        raise UserError(f"{where} holds {flat.max()}, which is no class number.")
    labels = flat.astype(np.int64)
    if fill is not None and np.isfinite(fill):
        labels[_filled(labels, int(fill))] = -1
    return labels


def fill_value(dataset: h5py.Dataset) -> Any:
    """What an HDF5 dataset says stands for values that nobody wrote (a number), or None: chosen by whoever made it."""
    for key in ("_FillValue", "missing_value"):
        value = np.asarray(dataset.attrs.get(key, "")).reshape(-1)
        if value.size == 1 and value.dtype.kind in "iuf":
            return value[0]
    chosen = dataset.id.get_create_plist().fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED
    return dataset.fillvalue if chosen and np.asarray(dataset.fillvalue).dtype.kind in "iuf" else None


def class_numbers(
    path: Path,
    labels: Mapping[str, np.ndarray],
    names: Sequence[str] | None,
    unlabelled: Any = ASK,
    option: str = "--unlabelled",
    remarks: list[str] | None = None,
) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """Labels int64 (N,) per split, -1 = unlabelled -> the same with classes 0..C-1, and class names or None.

    With `names` numbers stay as they are. Without, gaps are closed over all splits together, and the names are the
    numbers that were there. `unlabelled`: which other numbers mean unlabelled, with `option` the setting to be named
    (see `alfm.datasets.labels.unlabelled_values`). Raises `UserError`: a label without a name, one that may mean "no
    label", one that is an id. `remarks` is given sentences.
    """
    remarks = [] if remarks is None else remarks
    counts: Counter[int] = Counter()
    for column in labels.values():
        found, each = np.unique(column, return_counts=True)
        counts.update(dict(zip(found.tolist(), each.tolist(), strict=True)))
    if counts.pop(-1, 0) and set(counts) == {1}:
        remarks.append("-1 means unlabelled: if it is a class, store the classes as 0 and 1, or as names")
    values = {Value(number, str(number)): count for number, count in counts.items()}
    try:
        meant = unlabelled_values(values, names or (), unlabelled, option, remarks)
        without = [value.number for value in meant if value.number is not None]
    except UserError as error:
        raise UserError(f"{path}: {error}.") from error
    out = {s: np.where(np.isin(column, without), -1, column) if without else column for s, column in labels.items()}
    numbers = sorted(counts.keys() - set(without))
    nameless = [number for number in numbers if names is not None and not 0 <= number < len(names)]
    if nameless and names is not None:
        split = next(split for split, column in out.items() if nameless[-1] in column)
        hint = typed(option, [Value(nameless[-1], str(nameless[-1]))])
        named = f"{path} names {len(names)} classes but {split} has label {nameless[-1]}"
        raise UserError(f"{named}: say {hint} if that means no label.")
    if numbers and numbers[-1] >= MAX_CLASSES:
        split = next(split for split, column in out.items() if numbers[-1] in column)
        raise UserError(f"{path} has label {numbers[-1]} in {split}: that is an id, not a class number.")
    if names is not None or numbers == list(range(len(numbers))):
        return out, list(names) if names is not None else None
    remarks.append(renumbered(numbers))
    return {split: _closed(column, numbers) for split, column in out.items()}, list(map(str, numbers))


def renumbered(numbers: Sequence[int]) -> str:
    """What is said about gaps that were closed."""
    last = len(numbers) - 1
    if not last:
        return f"the only class is numbered {numbers[0]}: read as 0, the number being its name"
    return (
        f"the {len(numbers):,} classes are numbered {numbers[0]} to {numbers[-1]}: read as 0 to {last}, the numbers "
        "being their names"
    )


def _closed(column: np.ndarray, numbers: list[int]) -> np.ndarray:
    place = np.searchsorted(numbers, column).clip(max=len(numbers) - 1)
    return np.where(np.asarray(numbers)[place] == column, place, -1)


def _one_hot(values: Any, where: str) -> np.ndarray:
    out = np.empty(values.shape[0], np.int64)
    for low in range(0, len(out), _BLOCK_ROWS):
        block = np.asarray(values[low : low + _BLOCK_ROWS])
        ones = block == 1
        wrong = (ones.sum(axis=1) != 1) | ~(ones | (block == 0)).all(axis=1)
        if wrong.any():
            raise UserError(
                f"{where} has shape {values.shape} and row {low + int(wrong.argmax())} is not one-hot (a single 1): "
                "several labels per item are not supported."
            )
        out[low : low + _BLOCK_ROWS] = ones.argmax(axis=1)
    return out


def _filled(labels: np.ndarray, fill: int) -> np.ndarray:
    """Which labels are the fill value; none are where it could as well be a class (0, or next to the others)."""
    filled = labels == fill
    largest = labels[~filled].max(initial=-2)
    return filled if fill < 0 or largest < 0 or fill > largest + 1 else np.zeros_like(filled)
