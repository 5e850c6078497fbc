"""The pool that is labelled: one split of each of several caches, row after row, as features and as items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alfm import devices
from alfm.cache.reader import FeatureCache, open_cache
from alfm.cache.split import CacheRows
from alfm.errors import UserError
from alfm.features.features import Features, Memory
from alfm.labelling.state import Source
from alfm.results.row_numbers import RowNumbers
from alfm.strategies.base import Strategy

CacheName = FeatureCache | Path | str
Entry = Mapping[str, Any]
"""A cache as a settings act names it."""


class Caches:
    """The caches that are at hand, each with the split of it that is labelled."""

    def __init__(self, caches: Sequence[FeatureCache] = (), split: str = "train") -> None:
        self._given = [(cache, split) for cache in caches]
        self._found: dict[tuple[str, str], FeatureCache] = {}

    @classmethod
    def open(cls, given: CacheName | Sequence[CacheName], split: str = "train") -> Caches:
        """Paths or open caches. Raises UserError for what `open_cache` refuses."""
        several = [given] if isinstance(given, FeatureCache | Path | str) else list(given)
        if not several:
            raise UserError("cache=[] names no cache: give at least one.")
        return cls([c if isinstance(c, FeatureCache) else open_cache(Path(c).expanduser()) for c in several], split)

    def new(self, known: Sequence[Entry] = ()) -> list[dict[str, Any]]:
        """Entries of a settings act for those given that are not known. Raises UserError for caches that do not fit."""
        old = {entry["fingerprint"] for entry in known}
        if known and self._given and not any(cache.fingerprint in old for cache, _ in self._given):
            was, other = known[0]["path"], self._given[0][0].path
            raise UserError(
                f"{other} is none of the caches of this labelling state, which is about {was}: name another folder "
                f"with state=, or, to add these items to that pool, both with cache=[{was},{other}]."
            )
        first = self.find(known[0]) if known else self._given[0][0]
        entries = []
        for cache, given in self._given:
            if cache.fingerprint in old:
                continue
            split = known[0]["split"] if known else given
            if not cache.num_rows(split):
                raise UserError(f"Split {split!r} of {cache.path} holds no item: there is nothing to label.")
            if cache.dim != first.dim:
                raise UserError(
                    f"{first.path} holds features of {first.dim} dimensions and {cache.path} of {cache.dim}: embed "
                    "both with the same model."
                )
            entries.append(
                {
                    "name": cache.path.stem, "path": str(cache.path.absolute()), "fingerprint": cache.fingerprint,
                    "split": split, "rows": cache.num_rows(split),
                }
            )  # fmt: skip
        return entries

    def find(self, entry: Entry) -> FeatureCache:
        """The cache that an entry means: one of those given, or where it was. Raises UserError."""
        key = (entry["fingerprint"], entry["path"])
        if key not in self._found:
            self._found[key] = self._look_for(entry)
        return self._found[key]

    def _look_for(self, entry: Entry) -> FeatureCache:
        for cache, _ in self._given:
            if cache.fingerprint == entry["fingerprint"]:
                return cache
        path = Path(entry["path"])
        if not path.exists():
            raise UserError(f"The cache {path} is not there any more: say where it is now with cache=PATH.")
        cache = open_cache(path)
        if cache.fingerprint != entry["fingerprint"]:
            raise UserError(
                f"{path} has changed since it was labelled, so its rows may be other items: put the old file back "
                "(what is new goes into a file of its own, made with known=), or begin with another folder."
            )
        return cache

    def source(self, entry: Entry) -> Source:
        """Keys and stored labels of an entry's items: ids, or row numbers where it has none."""
        cache, split = self.find(entry), entry["split"]
        items = cache.ids(split) or list(map(str, range(cache.num_rows(split))))
        labels = cache.labels(split)
        named = {items[row]: self.class_name(cache, int(labels[row])) for row in np.flatnonzero(labels >= 0)}
        return Source(items, named)

    def class_names(self, labels_used: bool) -> list[str]:
        """The classes' names as the caches know them; their numbers where these are used as labels; else none."""
        names: dict[str, None] = {}
        for cache, _ in self._given:
            if cache.class_names is not None or labels_used:
                names |= dict.fromkeys(self.class_name(cache, label) for label in range(cache.num_classes))
        return list(names)

    @staticmethod
    def class_name(cache: FeatureCache, label: int) -> str:
        """The name of a class number."""
        return str(label) if cache.class_names is None else cache.class_names[label].strip()

    def in_pool(self, strategy: Strategy, entries: Sequence[Entry]) -> Strategy:
        """See `Strategy.in_pool`; in a pool of several caches rows count the pool's."""
        if len(entries) > 1:
            return strategy
        cache, split = self.find(entries[0]), entries[0]["split"]
        return strategy.in_pool(RowNumbers(cache, split, np.arange(cache.num_rows(split))))

    def features(self, entries: Sequence[Entry], device: str = "auto", memory: Memory = "auto") -> Features:
        """All items' plain features; where every cache holds augmented views, heads may train on these too."""
        pairs = [(self.find(entry), entry["split"]) for entry in entries]
        where = devices.choose_device(device, float64=True)
        count = min(cache.num_views(split) for cache, split in pairs)
        views = np.concatenate([cache.views(split)[:, 1:count] for cache, split in pairs]) if count > 1 else None
        if memory == "file":
            readers = [CacheRows(cache, split, np.arange(cache.num_rows(split))) for cache, split in pairs]
            return Features(readers[0] if len(readers) == 1 else _Joined(readers), where, memory, views=views)
        parts = [cache.features(split) for cache, split in pairs]
        return Features(parts[0] if len(parts) == 1 else np.concatenate(parts), where, memory, views=views)


class _Joined:
    """Several caches' rows as one `RowReader`."""

    checked = True

    def __init__(self, readers: Sequence[CacheRows]) -> None:
        self.readers = readers
        self.starts = np.cumsum([0, *(reader.shape[0] for reader in readers)])
        self.shape = (int(self.starts[-1]), readers[0].shape[1])

    def read(self, start: int, stop: int) -> np.ndarray:
        parts = []
        for reader, first, end in zip(self.readers, self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True):
            low, high = max(start, first), min(stop, end)
            if low < high:
                parts.append(reader.read(low - first, high - first))
        return np.concatenate(parts)

    def take(self, rows: np.ndarray) -> np.ndarray:
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        out: np.ndarray | None = None
        for index, reader in enumerate(self.readers):
            own = np.flatnonzero(owner == index)
            if len(own):
                part = reader.take(rows[own] - self.starts[index])
                out = np.empty((len(rows), part.shape[1]), np.float32) if out is None else out
                out[own] = part
        return np.empty((0, self.shape[1]), np.float32) if out is None else out
