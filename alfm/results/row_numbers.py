"""Row numbers that people give, as rows of the pool: in files, in options, and in what other runs have picked.

A cache counts all items of a split; a simulated pool leaves out those without a label, and others where it is made so
(see `alfm.simulation.pools`, also for the numbers of copies, which are beyond the cache's). Only where both hold the
same do they count the same, so elsewhere a list has to say what it counts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alfm.cache.reader import FeatureCache, open_cache
from alfm.datasets.names import same_name
from alfm.errors import UserError
from alfm.results.run_folder import read_config

Counted = Literal["cache", "pool"]
"""What a list of row numbers counts: the cache's rows, or the pool's, which may leave items out."""


class RowNumbers:
    """Which rows of a cache's split the pool holds: cache_rows int64 (N,), ascending, from its `size` on copies."""

    def __init__(self, cache: FeatureCache, split: str, cache_rows: np.ndarray) -> None:
        self.cache, self.split, self.cache_rows = cache, split, cache_rows
        self.size = cache.num_rows(split)
        copies = int(cache_rows.max(initial=0)) // self.size
        self._pool_row = np.full(self.size * (copies + 1), -1, dtype=np.int64)
        self._pool_row[cache_rows] = np.arange(len(cache_rows))
        self._matched: dict[Path, np.ndarray] = {}

    @property
    def whole(self) -> bool:
        """Does the pool hold every row, and none twice, so that cache and pool count alike?"""
        return len(self.cache_rows) == len(self._pool_row)

    def of_cache(self, rows: np.ndarray, what: str) -> np.ndarray:
        """Cache rows int64 (n,) -> pool rows int64 (n,), -1 for one that is not in the pool.

        Raises UserError, which says `what` lists them, for rows that the cache does not have.
        """
        wrong = rows[(rows < 0) | (rows >= len(self._pool_row))]
        if len(wrong):
            last = len(self._pool_row) - 1
            raise UserError(f"{what} lists row {wrong[0]}, but {self._here} has rows 0 to {last}: correct the list.")
        return self._pool_row[rows]

    def listed(self, rows: np.ndarray | Sequence[int], counted: Counted | None, what: str, option: str) -> np.ndarray:
        """Rows of a list that a user made -> pool rows int64 (n,), as in `of_cache`.

        counted: what the list counts; None is enough where it makes no difference. option: by which the user says it.
        Raises UserError: not said, no whole numbers, beyond the cache or the pool.
        """
        rows = np.asarray(rows)
        if rows.dtype.kind not in "iu" or rows.ndim != 1:
            raise UserError(f"{what} must be a list of row numbers; it holds {rows.dtype} of shape {rows.shape}.")
        rows = rows.astype(np.int64)
        if counted == "cache" or self.whole:
            return self.of_cache(rows, what)
        if counted is None:
            left_out = self.size - int((self.cache_rows < self.size).sum())
            raise UserError(
                f"{what} lists row numbers, which may count the cache's rows or those of the pool, from which "
                f"{left_out} items of {self._here} are left out: add {option}=cache or {option}=pool."
            )
        wrong = rows[(rows < 0) | (rows >= len(self.cache_rows))]
        if len(wrong):
            last = len(self.cache_rows) - 1
            raise UserError(f"{what} lists row {wrong[0]}, but the pool has rows 0 to {last}: correct the list.")
        return rows

    def of_run(self, picks: np.ndarray, folder: Path, option: str = "init_strategy.rows") -> np.ndarray:
        """What the run in `folder` has picked, rows int64 (n,) of ITS cache -> pool rows int64 (n,).

        -1: the item is not in the pool. Raises UserError, which advises `option`, when that cache is another one and
        its items cannot be told.
        """
        try:
            return self._of_run(picks, folder)
        except UserError as error:
            raise UserError(str(error).replace("init_strategy.rows", option)) from None

    def names_of_run(self, picks: np.ndarray, folder: Path) -> list[str]:
        """Ids of what the run in `folder` has picked, "row 5" where its cache has none or is not there."""
        try:
            cache, split = self._cache_of(folder)
            ids = cache.ids(split)
        except UserError:
            ids = None
        return [f"row {row}" if ids is None else ids[row % len(ids)] for row in picks.tolist()]

    def _of_run(self, picks: np.ndarray, folder: Path) -> np.ndarray:
        same, copies = self.is_same(folder), pool_has_copies(read_config(folder))
        if same and not copies:
            return self.of_cache(picks, f"{folder}/picks.npz")
        match = np.arange(self.size) if same else self.match(folder)
        if len(picks) and not 0 <= picks.min() <= picks.max() < (np.inf if copies else len(match)):
            raise self._cannot(folder, f"lists rows beyond the {len(match)} of that run's cache")
        rows, copy = match[picks % len(match)], picks // len(match)
        numbers = np.where(rows < 0, len(self._pool_row), rows + copy * self.size)
        there = numbers < len(self._pool_row)
        return np.where(there, self._pool_row[np.where(there, numbers, 0)], -1)

    def not_in_pool(self, what: str, row: int) -> UserError:
        """For `what`, which lists the row of an item that is not in the pool."""
        return UserError(
            f"{what} lists row {row}, and that item is not in the pool: {self._here} does not hold it, has no label "
            "for it, or the pool leaves it out; choose other rows."
        )

    def is_same(self, folder: Path) -> bool:
        """Was that run made on this cache, and its pool on this split?"""
        config = read_config(folder)
        return _pool_split(config) == self.split and config["run"]["cache_fingerprint"] == self.cache.fingerprint

    def match(self, folder: Path) -> np.ndarray:
        """For every row of the run's cache the row of this one with the same id, -1 where there is none."""
        folder = folder.absolute()
        if folder not in self._matched:
            other, split = self._cache_of(folder)
            self._matched[folder] = self._by_id(other, split, folder)
        return self._matched[folder]

    def _cache_of(self, folder: Path) -> tuple[FeatureCache, str]:
        """The run's cache and its pool's split; UserError when it is not found, or has changed since."""
        config = read_config(folder)
        wanted = config["run"]["cache_fingerprint"]
        if wanted == self.cache.fingerprint:
            return self.cache, _pool_split(config)
        try:
            path = Path(json.loads((folder / "environment.json").read_text())["sessions"][-1]["cache"])
            other = open_cache(path)
            if other.fingerprint != wanted:
                raise UserError(f"{path} has other features now")
        except (OSError, ValueError, KeyError, IndexError, TypeError, UserError) as error:
            raise self._cannot(folder, f"that run's cache cannot be read ({error})") from None
        return other, _pool_split(config)

    def _by_id(self, other: FeatureCache, split: str, folder: Path) -> np.ndarray:
        theirs, ours = other.ids(split) if split in other.splits else None, self.cache.ids(self.split)
        if theirs is None or ours is None:
            which = other.path if theirs is None else self.cache.path
            raise self._cannot(folder, f"{which} holds no ids by which to match its items")
        place = {same_name(item): row for row, item in enumerate(ours)}
        if len(place) < len(ours):
            raise self._cannot(folder, f"ids occur twice in {self._here}")
        found = np.array([place.get(same_name(item), -1) for item in theirs], dtype=np.int64)
        theirs_named, ours_named = _labels(other, split, self.cache), _labels(self.cache, self.split, other)
        for row, here in enumerate(found):
            there, own = theirs_named[row], ours_named[here]
            if here >= 0 and there is not None and own is not None and there != own:
                told = f"{theirs[row]} is {there!r} in {other.path} and {own!r} in {self.cache.path}"
                raise self._cannot(folder, f"{told}, so equal ids are not equal items")
        return found

    def _cannot(self, folder: Path, why: str) -> UserError:
        return UserError(
            f"{folder}/picks.npz counts rows of another cache or split than {self._here}, and {why}; where both hold "
            "the same items in the same order, say so with init_strategy.rows=cache."
        )

    @property
    def _here(self) -> str:
        return f"split {self.split!r} of {self.cache.path}"


def _pool_split(config: dict[str, Any]) -> str:
    splits = config.get("splits")
    return str(splits.get("pool", "train")) if isinstance(splits, dict) else "train"


def pool_has_copies(config: dict[str, Any]) -> bool:
    """Does a run's pool hold items more than once?"""
    pool = config.get("pool")
    return isinstance(pool, dict) and bool(pool.get("duplicates"))


def _labels(cache: FeatureCache, split: str, other: FeatureCache) -> list[str | int | None]:
    """Each row's class by name where both caches have names, else by number; None without a label."""
    named = cache.class_names is not None and other.class_names is not None
    names = [same_name(name) for name in cache.class_names or []]
    return [None if label < 0 else names[label] if named else int(label) for label in cache.labels(split).tolist()]
