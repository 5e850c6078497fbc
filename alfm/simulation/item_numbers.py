"""Numbers that count a data set's training items, as rows of a cache's split, and back.

A cache may lack items of its data set, and those behind them would be shifted by as many. So numbers are told by ids:
by the number in them, or by the order of the data set, in which the items that were left out have their places.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from alfm.cache.layout import FORMAT
from alfm.cache.reader import FeatureCache
from alfm.datasets.stored import reopened
from alfm.errors import UserError

Counted = Literal["ids", "rows"]
"""How numbers count: by the numbers that the cache's ids end in, or by its rows."""
_NUMBER = re.compile(r"(|.*[/:])(\d{1,18})", re.DOTALL)


class ItemNumbers:
    """The number of every row of a split: numbers int64 (N,), and how many items there are to count."""

    def __init__(self, cache: FeatureCache, split: str, counted: Counted | None = None) -> None:
        """counted: None finds out. Raises UserError where that cannot be told."""
        self.split = split
        self.numbers, self.count = _numbers(cache, split, counted)
        self._row = np.full(self.count, -1, dtype=np.int64)
        self._row[self.numbers] = np.arange(len(self.numbers))

    def rows(self, numbers: np.ndarray, what: str) -> np.ndarray:
        """Items int64 (n,) -> rows of the split int64 (n,), -1 for items that the cache does not hold.

        Raises UserError, which says that `what` lists them, for items that there are not.
        """
        wrong = numbers[(numbers < 0) | (numbers >= self.count)]
        if len(wrong):
            raise UserError(
                f"{what} lists item {wrong[0]}, but the training items (split {self.split!r}) are 0 to "
                f"{self.count - 1}: correct the list."
            )
        return self._row[numbers]


def _numbers(cache: FeatureCache, split: str, counted: Counted | None) -> tuple[np.ndarray, int]:
    here, rows = f"split {split!r} of {cache.path}", np.arange(cache.num_rows(split))
    ids = cache.ids(split) if counted != "rows" else None
    if ids is None:
        if counted == "ids":
            raise UserError(f"index_sets.numbers=ids: {here} holds no ids; leave the option out.")
        return rows, len(rows)
    absent = _left_out(cache, split)
    prefix, own = _counted_by_ids([*ids, *absent])
    by_split = prefix in (f"{split}/", f"{split}:")  # what items are called that have no name but their number
    if own is not None and (counted == "ids" or by_split or sorted(own) == list(range(len(own)))):
        return own[: len(ids)], int(own.max()) + 1
    if counted == "ids":
        raise UserError(f"index_sets.numbers=ids: ids of {here} do not all end in a number of their own.")
    if not absent:
        if own is None or cache.attributes.get("format") == FORMAT:
            return rows, len(rows)
        raise UserError(
            f"The numbers of index sets may count the rows of {cache.path} or be those in its ids, such as {ids[-1]}: "
            "add index_sets.numbers=rows or index_sets.numbers=ids."
        )
    if own is not None:
        return _places(own.tolist(), len(ids))
    if ids == sorted(ids):  # as a folder is listed
        return _places([*ids, *absent], len(ids))
    return _by_data_set(cache, split, ids), len(ids) + len(absent)


def _left_out(cache: FeatureCache, split: str) -> list[str]:
    """Ids of the items that an extraction left out."""
    with cache.file() as file:
        if "skipped" not in file[split]:
            return []
        pairs: list[list[Any]] = file[split]["skipped"][:].tolist()
    texts = [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one, _ in pairs]
    known = set(cache.ids(split) or [])
    return [one for one in dict.fromkeys(texts) if one not in known]  # a second item of an id has no number of its own


def _counted_by_ids(ids: Sequence[str]) -> tuple[str | None, np.ndarray | None]:
    """What ids begin with and the numbers that they end in; None where not all do, in different ones."""
    found = [_NUMBER.fullmatch(one) for one in ids]
    prefixes = {match[1] for match in found if match}
    if None in found or len(prefixes) != 1:
        return None, None
    numbers = np.array([int(match[2]) for match in found if match], dtype=np.int64)
    if len(np.unique(numbers)) < len(numbers) or numbers.max() > 100 * len(numbers) + 10**6:
        return None, None  # keys of something else
    return prefixes.pop(), numbers


def _places(keys: Sequence[Any], kept: int) -> tuple[np.ndarray, int]:
    """Place of each of the first `kept` keys among all in order, and how many there are."""
    place = {key: number for number, key in enumerate(sorted(keys))}
    return np.array([place[key] for key in keys[:kept]], dtype=np.int64), len(keys)


def _by_data_set(cache: FeatureCache, split: str, ids: Sequence[str]) -> np.ndarray:
    """Places of ids in the data set itself, which is opened again. Raises UserError."""
    try:
        config = json.loads(str(cache.attributes["dataset_config"]))
        place = {one: number for number, one in enumerate(reopened(config).splits[split].ids)}
        return np.array([place[one] for one in ids], dtype=np.int64)
    except (UserError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"Items were left out of {cache.path}, and which numbers they have cannot be told, since its data set does "
            f"not open ({str(error).rstrip('.')}): put it back where it was, or say index_sets.numbers=rows if they "
            "count the cache's rows."
        ) from None
