"""Where the items of a cache are: files below a folder, a data set that is built again, or a table of the user's."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from alfm.cache import FeatureCache
from alfm.datasets.any_csv import how_written, read_any_csv
from alfm.datasets.base import Dataset, Modality, Split
from alfm.datasets.folder import ENDINGS
from alfm.datasets.ids import unescape
from alfm.datasets.layout import has_ending
from alfm.datasets.marks import content_mark, mark_of_item
from alfm.datasets.stored import decoding, files_below, may_lie_outside, reopened
from alfm.datasets.table import read_table, ways_to_write
from alfm.errors import UserError

HINT = "say where they are with dataset.root=FOLDER or items=TABLE (columns id, and path or text)"


class ItemGone(UserError):
    """An item that cannot be shown: its file is missing, has changed, or is not known. The message names it."""


class Source:
    """Where the items of one cache are. This one: nowhere."""

    decode: dict[str, Any] = {}

    def __init__(self, unseen: str = "") -> None:
        self._unseen = unseen

    def why(self) -> str | None:
        """Why nothing can be shown."""
        return self._unseen

    def path(self, item_id: str) -> str | None:
        """The item's file."""
        return None

    def load(self, item_id: str) -> tuple[Any, str]:
        """An item that is no file of its own, and its mark."""
        raise ItemGone(f"{item_id} cannot be shown: {self.why()}")

    def encoded(self, item_id: str) -> Any:
        """The bytes that it is decoded from, if there are any."""
        self.load(item_id)  # says why not


class Below(Source):
    """Files below a folder, whose paths are the ids."""

    def __init__(self, root: str, decode: dict[str, Any], anywhere: bool) -> None:
        """`anywhere`: ids may be absolute paths."""
        self._root, self.decode, self._anywhere = os.path.normpath(root), decode, anywhere

    def why(self) -> str | None:
        if os.path.isdir(self._root):
            return None
        return f"The folder {self._root} of the items is not there, so they are labelled by id: {HINT}."

    def path(self, item_id: str) -> str | None:
        relative = unescape(item_id)
        place = os.path.normpath(os.path.join(self._root, relative))
        return place if self._anywhere or _is_below(place, self._root) else None

    def load(self, item_id: str) -> tuple[Any, str]:
        raise ItemGone(f"{item_id} lies outside {self._root}, where the items are: it is not opened.")


class Listed(Source):
    """A table of a user's: paths or texts by id."""

    def __init__(self, name: str, cells: dict[str, str], base: str | None, modality: Modality) -> None:
        """`base`: the folder that paths lie below, None where the cells are texts."""
        self._name, self._cells, self._base, self.modality = name, cells, base, modality

    def why(self) -> str | None:
        return None

    def path(self, item_id: str) -> str | None:
        cell = self._cells.get(item_id)
        if cell is None or self._base is None or os.path.lexists(cell):
            return None if self._base is None else cell
        others = map(os.path.normpath, ways_to_write(cell))  # as Windows and macOS write it
        return next((other for other in others if _is_below(other, self._base) and os.path.lexists(other)), cell)

    def load(self, item_id: str) -> tuple[Any, str]:
        if item_id not in self._cells:
            raise ItemGone(f"{item_id} is not in {self._name}: add a row for it.")
        return self._cells[item_id], mark_of_item(self._cells[item_id])


class Built(Source):
    """A data set that is built when the first of its items is wanted."""

    def __init__(self, build: Callable[[], Dataset], split: str, name: str) -> None:
        self._build, self._split, self._name = build, split, name
        self._lock = threading.Lock()
        self._dataset: Dataset | None = None
        self._places: dict[str, tuple[Split, int]] = {}
        self._failed: str | None = None

    def why(self) -> str | None:
        self._open()
        return self._failed

    def path(self, item_id: str) -> str | None:
        split, index = self._find(item_id)
        return split.path(index) if hasattr(split, "path") else None

    def load(self, item_id: str) -> tuple[Any, str]:
        split, index = self._find(item_id)
        with self._lock:  # a stream keeps its place, an archive its handle
            item = split.load(index)
            return item, content_mark(split, index, item)

    def encoded(self, item_id: str) -> Any:
        split, index = self._find(item_id)
        if not hasattr(split, "encoded") or getattr(split, "in_order", False):
            return None
        source = split.encoded(index)
        return Path(source).read_bytes() if isinstance(source, str) else source

    def _find(self, item_id: str) -> tuple[Split, int]:
        self._open()
        if self._failed is not None:
            raise ItemGone(f"{item_id} cannot be shown: {self._failed}")
        found = self._places.get(item_id) or self._places.get(unescape(item_id))
        if found is None:
            raise ItemGone(f"{item_id} is not in the data set any more.")
        return found

    def _open(self) -> None:
        with self._lock:
            if self._dataset is not None or self._failed is not None:
                return
            try:
                self._dataset = self._build()
            except Exception as error:  # whatever an old or foreign config leads to: labels by id work all the same
                reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
                self._failed = (
                    f"The items of {self._name} cannot be shown, so they are labelled by id ({reason}): {HINT}."
                )
                return
            splits = sorted(self._dataset.splits.items(), key=lambda pair: pair[0] == self._split)
            for _, split in splits:  # the one that was asked for last, so that it wins
                self._places.update((item_id, (split, index)) for index, item_id in enumerate(split.ids))


def source_of(
    cache: FeatureCache, split: str, root: str | None, modality: Modality | None, dataset: Dataset | None = None
) -> Source:
    """Where the items of one split are: of a data set that was built, else where the cache says, or below `root`."""
    if dataset is not None:
        return Built(lambda: dataset, split, str(cache.path))
    config = stored_config(cache, "dataset_config")
    if config is None:
        if root is not None:  # ids of older caches are paths, too
            return Below(root, {}, False)
        return Source(f"{cache.path} does not say where its items are, so they are labelled by id: {HINT}.")
    try:
        scale = cache.attributes.get("intensity_range")
        scale = json.loads(scale) if isinstance(scale, str) else scale
        below = files_below(config, root)
        if below is None:
            return Built(lambda: reopened(config, root, scale), split, str(cache.path))
        return Below(below, decoding(config, modality or "image", scale), may_lie_outside(config))
    except Exception as error:  # a config that no extraction has written
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        return Source(f"{cache.path}: {reason}, so its items are labelled by id: {HINT}.")


def stored_folder(cache: FeatureCache) -> str | None:
    """The folder that the ids of a cache are paths below, as it says; None where it does not."""
    with suppress(Exception):  # a config that no extraction has written
        return files_below(stored_config(cache, "dataset_config") or {})
    return None


def stored_config(cache: FeatureCache, attribute: str) -> Mapping[str, Any] | None:
    """What an extraction has written there: `dataset_config` or `model_config`; None where there is none to be read."""
    text = cache.attributes.get(attribute)
    with suppress(ValueError, RecursionError):
        config = json.loads(text) if isinstance(text, str) else None
        return config if isinstance(config, dict) else None
    return None


def _is_below(place: str, root: str) -> bool:
    return place.startswith(root.rstrip(os.sep) + os.sep)


# ---- a table of the user's ------------------------------------------------------------------------------------------


def read_items_table(source: str, root: str | None, modality: Modality | None, ids: Sequence[Sequence[str]]) -> Listed:
    source = os.path.expanduser(source)
    if not os.path.isfile(source):
        raise UserError(f"items={source}: there is no such table.")
    parquet = os.path.splitext(source)[1].lower() in (".parquet", ".pq")
    if parquet:
        import pyarrow.parquet

        names = list(pyarrow.parquet.read_schema(source).names)
    else:
        names = how_written(source)[2]
    column = next((name for name in ("path", "text") if name in names), None)
    if column is None or "id" not in names:
        raise UserError(f"items={source} has the columns {', '.join(names[:8])}: id, and path or text, are needed.")
    read = read_table(source, ["id", column]) if parquet else read_any_csv(source, ["id", column])
    base = root or os.path.dirname(os.path.abspath(source))
    known = {item_id for each in ids for item_id in each}
    cells: dict[str, str] = {}
    for number, (item_id, cell) in enumerate(zip(read.cells["id"], read.cells[column], strict=True), start=1):
        item_id, cell = str(item_id), "" if cell is None else str(cell)
        if item_id not in known:
            continue
        if column == "path":
            place = os.path.normpath(os.path.join(base, os.path.expanduser(cell)))
            if not cell or not _is_below(place, base):
                where = f"items={source}, row {number}: "
                raise UserError(
                    f"{where}the path is empty."
                    if not cell
                    else f"{where}{cell} lies outside {base}: name the folder of all files, dataset.root=FOLDER."
                )
            cell = place
        if cells.setdefault(item_id, cell) != cell:
            raise UserError(
                f"items={source}, row {number}: the id {item_id!r} was there before, with another {column}."
            )
    if not cells:
        theirs = next(iter(read.cells["id"]), "none")
        ours = next(iter(known), "none")
        raise UserError(
            f"items={source} has no id of the pool: its first is {theirs!r}, and the pool has such as {ours!r}."
        )
    kind = modality or ("text" if column == "text" else by_endings([list(cells.values())]))
    if kind is None:
        raise UserError(
            f"items={source}: the endings of its paths are neither of images nor of recordings nor of texts."
        )
    if column == "text" and kind != "text":
        raise UserError(f"items={source} holds texts, and the cache was made of {kind} data: a column path is needed.")
    return Listed(source, cells, base if column == "path" else None, kind)


def by_endings(ids: Sequence[Sequence[str]]) -> Modality | None:
    """What the first names are, by their endings."""
    for item_id in (item_id for each in ids for item_id in each[:20]):
        for modality, endings in ENDINGS.items():
            if has_ending(item_id, endings):
                return cast(Modality, modality)
    return None
