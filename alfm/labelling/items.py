"""The items behind the rows of a pool: found again through what the cache says about its data set, or in a table.

Nothing is read at opening but ids and marks. A file is shown only if it is the one that was embedded (see
`alfm.datasets.marks`): what is missing or has changed is named instead.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, Literal

import numpy as np

from alfm.cache import FeatureCache
from alfm.datasets.base import Dataset, Modality
from alfm.datasets.files import decode_item
from alfm.datasets.folder import ENDINGS
from alfm.datasets.marks import mark_of_bytes, mark_of_file, mark_of_item
from alfm.errors import UserError, nearest_names
from alfm.labelling.item_sources import ItemGone, Source, by_endings, read_items_table, source_of, stored_folder
from alfm.labelling.media import encoded, media_type

__all__ = ["ItemGone", "Items", "Status"]

Status = Literal["ok", "missing", "changed", "unknown"]


class Items:
    """N items, rows of the first cache, then of the next; everything by row.

    Attributes: `ids`; `N`; `modality`, None where nobody says. Opened with `open`.
    """

    def __init__(self, pools: Sequence[_Pool], modality: Modality | None) -> None:
        self._pools = list(pools)
        self.ids = [item_id for pool in pools for item_id in pool.ids]
        self.N = len(self.ids)
        self.modality: Modality | None = modality
        self._starts = np.cumsum([0, *(len(pool.ids) for pool in pools)])

    @classmethod
    def open(
        cls,
        caches: Sequence[FeatureCache],
        splits: Sequence[str],
        *,
        root: str | os.PathLike[str] | None = None,
        table: str | os.PathLike[str] | None = None,
        dataset: Dataset | None = None,
    ) -> Items:
        """The items of one split of each cache.

        Where they are: `table` (columns `id`, and `path` or `text`; paths start at `root`, by default at the table's
        folder), or `dataset` (a data set that has been built), or what each cache says, with `root` in place of a
        folder that has moved (of several caches with folders of their own: of those whose folder is gone). Raises
        `UserError`: an id that occurs twice, modalities that differ, a table that does not fit.
        """
        ids: list[list[str]] = []
        for cache, split in zip(caches, splits, strict=True):
            ids.append(_ids_of(cache, split, sum(map(len, ids))))
        _check_apart(caches, splits, ids)
        root = None if root is None else os.path.abspath(os.path.expanduser(root))
        if root is not None and not os.path.isdir(root):
            raise UserError(f"dataset.root={root} is not a folder: give the folder that the items lie in.")
        modality = _modality(caches)
        found = None if table is None else read_items_table(os.fspath(table), root, modality, ids)
        if dataset is not None:
            modality = dataset.modality
        elif modality is None:
            modality = found.modality if found is not None else by_endings(ids) if root is not None else None
        folders = {stored_folder(cache) for cache in caches}
        pools = []
        for cache, split, each in zip(caches, splits, ids, strict=True):
            stays = len(folders) > 1 and os.path.isdir(stored_folder(cache) or "")
            source = found or source_of(cache, split, None if stays else root, modality, dataset)
            pools.append(_Pool(each, cache.marks(split), source))
        return cls(pools, modality)

    @property
    def why_unseen(self) -> str | None:
        """A sentence where the items of a cache cannot be shown, so that they are labelled by id; None: all can be."""
        return next((why for pool in self._pools if (why := pool.source.why()) is not None), None)

    def row(self, item_id: str) -> int:
        """Where an item is. `UserError` with the nearest names."""
        found = self._rows.get(item_id)
        if found is None:
            near = self.ids if self.N <= 20_000 else [other for other in self.ids if other[:3] == item_id[:3]][:20_000]
            hint = nearest_names(item_id, near) if self.N <= 50 or near else ""
            hint = hint if hint.startswith("did") else f"such as {self.ids[0]!r}" if self.ids else "which is empty"
            raise UserError(f"There is no item {item_id!r} in the pool: {hint}")
        return found

    def path(self, row: int) -> str | None:
        """The file of an item, which may be gone; None where it is none, or where it would lie outside its folder."""
        pool, place = self._at(row)
        try:
            return pool.source.path(pool.ids[place])
        except ItemGone:  # not in the data set any more
            return None

    def text(self, row: int) -> str | None:
        """What a text says; None for other items, and for a text that is missing or has changed."""
        if self.modality != "text":
            return None
        try:
            return self.load(row)
        except ItemGone:
            return None

    def load(self, row: int, at_least: int | None = None) -> Any:
        """A PIL image in RGB, a str, or an `Audio`. `ItemGone` when it cannot be shown.

        `at_least`: JPEG files may be decoded at a reduced scale, with both sides at least this long.
        """
        pool, place = self._at(row)
        item_id = pool.ids[place]
        with _named(item_id):
            path = pool.source.path(item_id)
            if path is None:
                item, mark = pool.source.load(item_id)
                self._check(row, mark)
                return item
            with _opened(path, item_id) as file:
                if self.modality == "text":
                    item = decode_item(file, item_id, "text", pool.source.decode)
                    self._check(row, mark_of_item(item))
                    return item
                self._check(row, mark_of_file(file))
                if self.modality is None:
                    raise ItemGone(f"{item_id}: it is not known whether this is an image, a text or a recording.")
                reduced = {"decode_size": at_least} if at_least is not None and self.modality == "image" else {}
                return decode_item(file, item_id, self.modality, pool.source.decode | reduced)

    def file_bytes(self, row: int) -> tuple[bytes, str]:
        """An item as it was embedded, encoded, and its media type, by its content (never by its name):
        `application/octet-stream` for all but common images and recordings, `text/plain` for texts. `ItemGone` when it
        cannot be shown."""
        pool, place = self._at(row)
        item_id = pool.ids[place]
        if self.modality == "text":
            return self.load(row).encode("utf-8", "replace"), "text/plain; charset=utf-8"
        with _named(item_id):
            path = pool.source.path(item_id)
            raw: Any
            if path is not None:
                with _opened(path, item_id) as file:
                    raw = file.read()
            else:
                raw = pool.source.encoded(item_id)
            if isinstance(raw, bytes):
                self._check(row, mark_of_bytes(raw))
                return raw, media_type(raw)
        return encoded(self.load(row))

    def stamp(self, row: int) -> tuple[int, int] | None:
        """Changes when the item's file does: (modified, size); None where it is no file of its own, or is gone."""
        path = self.path(row)
        with suppress(OSError):
            found = os.stat(path) if path is not None else None
            return None if found is None else (found.st_mtime_ns, found.st_size)
        return None

    def size(self, row: int) -> int:
        """Bytes of the item's file, 0 where it is none."""
        found = self.stamp(row)
        return 0 if found is None else found[1]

    def status(self, row: int) -> Status:
        """Whether an item is there and is the one that was embedded; `unknown`: it is there, and the cache has no mark
        of it."""
        pool, place = self._at(row)
        item_id = pool.ids[place]
        try:
            with _named(item_id):
                path = pool.source.path(item_id)
                if path is None or self.modality == "text":
                    self.load(row)
                    return "ok" if self.mark(row) else "unknown"
                with _opened(path, item_id) as file:
                    self._check(row, mark_of_file(file))
                return "ok" if self.mark(row)[:1] == "b" else "unknown"
        except _Changed:
            return "changed"
        except ItemGone as gone:
            return "missing" if not isinstance(gone, _Unreadable) else "ok"

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.ids)}

    def _at(self, row: int) -> tuple[_Pool, int]:
        if not 0 <= row < self.N:
            raise IndexError(f"row {row} of {self.N}")
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._pools[number], row - int(self._starts[number])

    def mark(self, row: int) -> str:
        """The mark of its content when it was embedded (see `alfm.datasets.marks`), "" where there is none."""
        pool, place = self._at(row)
        return "" if pool.marks is None else pool.marks[place]

    def _check(self, row: int, now: str) -> None:
        """`ItemGone` when the mark is another one; those of another kind cannot be compared."""
        stored = self.mark(row)
        if stored and now and stored[0] == now[0] and stored != now:
            raise _Changed(f"{self.ids[row]} has changed since it was embedded: embed it again, or put the file back.")


def _opened(path: str, item_id: str) -> BinaryIO:
    """`ItemGone` for what is no file: a pipe would be waited for, and a device has no end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ItemGone(f"{item_id} is no file.")
    return open(path, "rb")


class _Changed(ItemGone):
    pass


class _Unreadable(ItemGone):
    """There, and cannot be decoded."""


@dataclass
class _Pool:
    ids: list[str]
    marks: list[str] | None
    source: Source


class _named:
    """What goes wrong inside becomes an `ItemGone` that names the item."""

    def __init__(self, item_id: str) -> None:
        self.item_id = item_id

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if error is None or isinstance(error, ItemGone) or not isinstance(error, Exception):
            return
        text = str(error) or type(error).__name__
        if isinstance(error, OSError):
            text = error.strerror or text
        text = text if self.item_id in text else f"{self.item_id}: {text}"
        gone = isinstance(error, OSError | KeyError)
        raise (ItemGone if gone else _Unreadable)(text.rstrip(".") + ".") from error


# ---- ids ------------------------------------------------------------------------------------------------------------


def _ids_of(cache: FeatureCache, split: str, first: int) -> list[str]:
    """Ids as stored, or the numbers that rows have in the pool, of which `first` is this cache's first."""
    ids = cache.ids(split)
    return [str(row) for row in range(first, first + cache.num_rows(split))] if ids is None else ids


def _check_apart(caches: Sequence[FeatureCache], splits: Sequence[str], ids: Sequence[Sequence[str]]) -> None:
    """`UserError` for an id that stands for two rows."""
    owner: dict[str, int] = {}
    for number, each in enumerate(ids):
        if len(set(each)) < len(each):
            seen: set[str] = set()
            twice = next(text for text in each if text in seen or seen.add(text))  # type: ignore[func-returns-value]
            raise UserError(
                f"{caches[number].path}: the id {twice!r} occurs more than once in {splits[number]}, so labels could "
                "not be told apart: make the ids unique and write the cache again."
            )
        for item_id in each:
            other = owner.setdefault(item_id, number)
            if other != number:
                raise UserError(
                    f"The id {item_id!r} is in {caches[other].path} and in {caches[number].path}: embed only what is "
                    f"new with python -m alfm.extract ... known={caches[other].path}."
                )


def _modality(caches: Sequence[FeatureCache]) -> Modality | None:
    kinds = {kind for cache in caches if (kind := cache.attributes.get("modality")) in ENDINGS}
    if len(kinds) > 1:
        raise UserError(
            f"The caches of one pool hold {' and '.join(sorted(kinds))} data: label them one after the other."
        )
    return next(iter(kinds), None)
