"""What users hand over, as tensors: features, labels of which some are unknown, probabilities, candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from alfm import devices
from alfm.errors import UserError, nearest_names
from alfm.features.features import Features

MOST_CLASSES = 1 << 16
SUM_TOLERANCE = 1e-2
"""How far a row of probabilities may be from 1: those of float16 are off by half of it."""


@dataclass(frozen=True)
class Labels:
    """What is known of N items. rows, codes (n,) int64: labelled rows ascending, their classes as numbers from 0 on.

    values: what the user wrote for them, (n,) object. names: the classes in the order of their numbers, where they
    were given or are names; else None.
    """

    rows: np.ndarray
    codes: np.ndarray
    values: np.ndarray
    names: list[Any] | None

    @property
    def classes(self) -> int:
        """How many classes the labels speak of: C, or one more than the largest number."""
        return len(self.names) if self.names is not None else int(self.codes.max(initial=-1)) + 1


def features_of(given: Any) -> Features:
    """A matrix (N, D) of numbers (NumPy, torch, a table, lists) as features; `Features` themselves stay as they are.

    Where they lie and how they are rounded stays: a tensor is worked on where it is, float64 is computed in float64.
    Raises UserError for what is no matrix of numbers.
    """
    if isinstance(given, Features):
        return given
    if isinstance(given, Tensor):
        tensor = given.detach()
        return Features(tensor if tensor.is_floating_point() else tensor.float(), tensor.device)
    try:
        x = np.asarray(given)
        if x.dtype.kind not in "fiub":
            x = x.astype(np.float64)
    except (TypeError, ValueError):
        raise UserError("features must be a matrix of numbers, a row for each item: give one such array.") from None
    x = x if x.dtype.kind == "f" and x.dtype.itemsize <= 8 else x.astype(np.float32)
    return Features(np.require(x, requirements="W"))  # torch shares no memory that is read only


def labels_of(given: Any, N: int, classes: Sequence[Any] | None = None) -> Labels:
    """Labels of N items: class numbers from 0 on, or names; -1, None, NaN and "" where nobody knows. None: no labels.

    In a NumPy array of strings "-1", "nan" and "None" say so too: NumPy spells what stood beside names in this way.
    classes: what labels may be, in the order of their numbers. Without it a number is its own class, and names are
    numbered in the order in which they sort. Raises UserError for another length, for names beside numbers, for numbers
    that are no class, and for labels that are not in `classes`.
    """
    names = None if classes is None else list(classes)
    if names is not None and len(set(names)) < len(names):
        raise UserError("classes must be different from one another: name each class once.")
    if given is None:
        none = np.empty(0, np.int64)
        return Labels(none, none, np.empty(0, object), names)
    values = _objects(given)
    if values.shape != (N,):
        raise UserError(
            f"labels must be one for each of {N} items (-1, None or NaN: unknown); got shape {values.shape}."
        )
    unknown = np.asarray(pd.isna(values), bool)
    unknown |= np.fromiter((_says_nothing(value) for value in values), bool, N)
    rows = np.flatnonzero(~unknown)
    known = [_plain(values[row], row) for row in rows]
    kinds = {type(one) for one in known}
    if len(kinds) > 1:
        odd = next(row for row, one in zip(rows, known, strict=True) if type(one) is not type(known[0]))
        raise UserError(
            f"labels hold names beside numbers (rows {rows[0]} and {odd}): write all of them in one of the two ways."
        )
    if names is None and kinds == {str}:
        names = sorted(set(known))
    if names is None:
        codes = np.array(known, np.int64).reshape(-1)
        if len(codes) and (codes.min() < 0 or codes.max() >= MOST_CLASSES):
            row = rows[(codes < 0) | (codes >= MOST_CLASSES)][0]
            raise UserError(
                f"The label {values[row]} of row {row} is no class number from 0 to {MOST_CLASSES - 1}: give names, or "
                "-1 where it is unknown."
            )
    else:
        place = {_plain(name, -1): number for number, name in enumerate(names)}
        wrong = next(((row, one) for row, one in zip(rows, known, strict=True) if one not in place), None)
        if wrong is not None:
            near = nearest_names(str(wrong[1]), [str(name) for name in names])
            raise UserError(f"The label {wrong[1]!r} of row {wrong[0]} is not among the classes: {near}")
        codes = np.array([place[one] for one in known], np.int64).reshape(-1)
    return Labels(rows, codes, values[rows], names)


def log_probabilities(given: Any, N: int | None, like: Tensor | None) -> Tensor:
    """Probabilities (N, C) or (M, N, C) -> their finite logarithms, (1, N, C) or (M, N, C), as `like` or as they are.

    Raises UserError for another shape, for rows that do not sum to 1, for negative numbers and NaN.
    """
    p = given.detach() if isinstance(given, Tensor) else torch.as_tensor(np.require(given, requirements="W"))
    if p.ndim not in (2, 3) or (N is not None and p.shape[-2] != N) or 0 in p.shape or p.shape[-1] < 2:
        wanted = "N" if N is None else N
        raise UserError(
            f"probabilities must be ({wanted}, C), or (M, {wanted}, C) of M draws, for 2 classes or more; got "
            f"{tuple(p.shape)}."
        )
    p = p[None] if p.ndim == 2 else p
    p = p.to(devices.of(p).widest)
    total = p.sum(-1, keepdim=True)
    wrong = ~((p >= 0).all(-1) & ((total[..., 0] - 1).abs() <= SUM_TOLERANCE))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0, 1])
        raise UserError(
            f"The probabilities of row {row} are negative or do not sum to 1: give those of your model, not its logits."
        )
    dtype = (torch.float64 if _is_double(given) else torch.float32) if like is None else like.dtype
    log_p = (p / total).clamp_min(torch.finfo(torch.float32).tiny).log()
    return log_p.to(p.device if like is None else like.device, dtype)


def allowed_of(candidates: Any, N: int, labelled: np.ndarray) -> np.ndarray:
    """What may be picked, bool (N,): rows or a mask (None: all), less what is labelled; UserError where nothing is."""
    allowed = np.ones(N, bool)
    if candidates is not None:
        given = candidates.detach().cpu().numpy() if isinstance(candidates, Tensor) else np.asarray(candidates)
        if given.dtype == bool and given.shape == (N,):
            allowed = given.copy()
        elif given.ndim == 1 and (given.dtype.kind in "iu" or not given.size):
            beyond = given[(given < 0) | (given >= N)]
            if len(beyond):
                raise UserError(f"candidates names row {beyond[0]}, but the rows are 0 to {N - 1}: leave it out.")
            allowed = np.zeros(N, bool)
            allowed[given.astype(np.int64)] = True
        else:
            raise UserError(
                f"candidates must be row numbers or a mask of {N} booleans; got {given.dtype} {given.shape}."
            )
    allowed[labelled] = False
    if not allowed.any():
        raise UserError("Nothing is left to pick: every candidate has a label; give more items or other candidates.")
    return allowed


def _objects(given: Any) -> np.ndarray:
    if isinstance(given, Tensor):
        given = given.detach().cpu().numpy()
    if isinstance(given, (str, bytes)) or not hasattr(given, "__len__"):
        raise UserError("labels must be a list or an array with one label for each item.")
    array = np.empty(len(given), object)
    if isinstance(given, np.ndarray) and given.dtype.kind == "U":  # where NumPy has spelt what was no name
        given = np.where(np.isin(given, ("-1", "nan", "None")), "", given)
    for place, value in enumerate(given.tolist() if isinstance(given, np.ndarray) else given):
        array[place] = value
    return array


def _says_nothing(value: Any) -> bool:
    if isinstance(value, str):
        return not value
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and value == -1


def _plain(value: Any, row: Any) -> int | str:
    """A label as an int or a str."""
    if isinstance(value, Tensor) and value.ndim == 0:
        value = value.item()
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (bool, int, np.bool_, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    raise UserError(
        f"The label {value!r} of row {row} is neither a class name nor a whole number: write one of the two."
    )


def _is_double(given: Any) -> bool:
    dtype = given.dtype if isinstance(given, Tensor) else np.asarray(given).dtype
    return dtype in (torch.float64, np.float64)
