"""Data sets of the Hugging Face `datasets` library, in memory-mapped files or streamed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alfm.datasets.assemble import fingerprint, labels_from_values, stratified_share
from alfm.datasets.audio import mono
from alfm.datasets.base import Dataset, ItemError, Modality
from alfm.datasets.files import decode_item, decode_options
from alfm.datasets.ids import file_stem
from alfm.datasets.images import to_rgb
from alfm.datasets.intensity import settle
from alfm.errors import UserError, nearest_names


@dataclass
class HubSplit:
    """Rows of a `datasets.Dataset`; labels int64 (N,). Images and recordings are decoded by this package."""

    rows: Any
    column: str
    modality: Modality
    ids: list[str]
    labels: np.ndarray
    decode: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def encoded(self, index: int) -> Any:
        """The image as it lies in its row: a path, bytes, or decoded already."""
        return _encoded(self.rows[index][self.column])

    def load(self, index: int) -> Any:
        """The item. `ItemError` when it cannot be decoded."""
        return _item(self.rows[index][self.column], self.ids[index], self.modality, self.decode)


@dataclass
class StreamedSplit(HubSplit):
    """Rows of a `datasets.IterableDataset`. Made for reading in order: each process keeps its place in the stream,
    a step back starts the stream again."""

    in_order = True

    def __post_init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._iterator: Iterator[Any] | None = None
        self._next = 0
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_iterator": None, "_next": 0}

    def encoded(self, index: int) -> Any:
        """The image as it lies in its row; for the first rows."""
        return _encoded(self._row(index)[self.column])

    def load(self, index: int) -> Any:
        """The item; rows between the last one read and this one are passed over."""
        return _item(self._row(index)[self.column], self.ids[index], self.modality, self.decode)

    def _row(self, index: int) -> Any:
        if self._iterator is None or index < self._next or self._process != os.getpid():
            self._forget()
            self._iterator = iter(self.rows.skip(index))
            self._next = index
        row = None
        while self._next <= index:
            row = next(self._iterator, None)
            self._next += 1
        if row is None:
            raise ItemError(f"{self.ids[index]}: the stream ends before this row; it has changed since it was counted")
        return row


def hugging_face(
    path: str,
    modality: Modality,
    column: str,
    splits: Mapping[str, str] | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    config: str | None = None,
    name: str | None = None,
    streaming: bool = False,
    revision: str | None = None,
    data_files: Any = None,
    cache_dir: str | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    licence: str | None = None,
    **decode: Any,
) -> Dataset:
    """`datasets.load_dataset(path, config)`, all its splits, or the ones named ({train: train, test: validation}).

    `path`: a repository on the hub, a folder written by `save_to_disk`, or a format ("parquet", "csv", "json",
    "webdataset", ...) with `data_files`. Ids: `id_column`, else "<split>:<row>". `streaming` downloads nothing: a
    first pass reads the labels (and counts the rows), then items come in order. `test_fraction` cuts the split
    called train (not when streaming). No code of a repository is ever run. `decode`: options of `read_image` or
    `read_audio`. `UserError`: not installed, not there, no such split or column, several labels per item.
    """
    try:
        import datasets
    except ImportError:
        raise UserError("this data set needs the Hugging Face datasets library: pip install 'alfm[hf]'") from None
    decode = decode_options(modality, decode)
    there = _load(datasets, path, config, streaming, revision, data_files, cache_dir)
    splits = dict(splits) if splits else {split: split for split in there}
    for wanted in splits.values():
        if wanted not in there:
            raise UserError(f"{path} has no split {wanted!r}; {nearest_names(wanted, list(there))}")
    tables = {split: there[source] for split, source in splits.items()}
    values: dict[str, list[Any]] = {}
    ids: dict[str, list[str]] = {}
    names: list[str] | None = None
    for split, rows in tables.items():
        features = rows.features or {}
        for wanted in (column, label_column, id_column):
            if wanted is not None and features and wanted not in features:
                raise UserError(f"{path} has no column {wanted!r}; {nearest_names(wanted, list(features))}")
        meta = [c for c in (label_column, id_column) if c is not None]
        if label_column is not None:
            names = names or getattr(features.get(label_column), "names", None)
        if streaming:
            narrow = _undecoded(datasets, rows.select_columns(meta or [column]), column, modality)
            cells = {c: [] for c in meta}
            count = 0
            for count, row in enumerate(narrow, start=1):  # noqa: B007
                for c in meta:
                    cells[c].append(row[c])
        else:
            count = len(rows)
            cells = {c: list(rows[c]) for c in meta}
        values[split] = cells[label_column] if label_column is not None else [None] * count
        keys = [str(key) for key in cells[id_column]] if id_column is not None else None
        ids[split] = keys or [f"{splits[split]}:{row}" for row in range(count)]
        if count == 0:
            raise UserError(f"{path}: the split {splits[split]!r} is empty")
        tables[split] = _undecoded(datasets, rows.select_columns([column]), column, modality)
    labels, classes = labels_from_values(values, names)

    built: dict[str, HubSplit] = {}
    kind = StreamedSplit if streaming else HubSplit
    for split, rows in tables.items():
        built[split] = kind(rows, column, modality, ids[split], labels[split], decode)
    if test_fraction is not None:
        if streaming or "test" in built or "train" not in built:
            raise UserError("dataset.test_fraction cuts the split called train, of a data set that is not streamed")
        whole = built["train"]
        for split, kept in zip(("train", "test"), stratified_share(whole.labels, test_fraction, seed), strict=True):
            part_ids = [whole.ids[i] for i in kept]
            built[split] = HubSplit(whole.rows.select(kept), column, modality, part_ids, whole.labels[kept], decode)
    marks = [str(getattr(rows, "_fingerprint", "")) for rows in tables.values() if not streaming]
    options = sorted(decode.items())
    reading = settle(modality, built, decode)
    mark = fingerprint(built, classes, [path, config, revision, column], marks, options, reading.marks)
    return Dataset(
        name or file_stem(path.rstrip("/").split("/")[-1]),
        modality,
        built,
        classes,
        mark,
        licence,
        remarks=reading.remarks,
        intensity_range=reading.range,
    )


def _load(
    datasets: Any,
    path: str,
    config: str | None,
    streaming: bool,
    revision: str | None,
    data_files: Any,
    cache_dir: str | None,
) -> Mapping[str, Any]:
    """All splits by name."""
    from alfm.datasets.hub import from_hub

    if any(os.path.isfile(os.path.join(path, file)) for file in ("dataset_dict.json", "state.json")):
        found = datasets.load_from_disk(path)
        return found if isinstance(found, dict) else {"train": found}
    with from_hub(path, hint="dataset.path=FOLDER", what="data set"):
        return datasets.load_dataset(
            path, config, streaming=streaming, revision=revision, data_files=data_files, cache_dir=cache_dir
        )


def _undecoded(datasets: Any, rows: Any, column: str, modality: Modality) -> Any:
    """Encoded bytes instead of decoded media: one decoder for every source, and none that must be installed."""
    kind = (rows.features or {}).get(column)
    if modality == "image" and isinstance(kind, datasets.Image):
        return rows.cast_column(column, datasets.Image(decode=False))
    if modality == "audio" and isinstance(kind, datasets.Audio):
        return rows.cast_column(column, datasets.Audio(decode=False))
    return rows


def _encoded(cell: Any) -> Any:
    return (cell.get("bytes") or cell.get("path")) if isinstance(cell, dict) else cell


def _item(cell: Any, item_id: str, modality: Modality, decode: dict[str, Any]) -> Any:
    if modality == "text":
        return "" if cell is None else str(cell)
    if cell is None:
        raise ItemError(f"{item_id}: the cell is empty")
    if isinstance(cell, dict) and "array" in cell:
        return mono(np.asarray(cell["array"]), int(cell["sampling_rate"]), item_id)
    if isinstance(cell, dict):
        if cell.get("bytes"):
            return decode_item(cell["bytes"], item_id, modality, decode)
        cell = cell.get("path")
    if isinstance(cell, bytes):
        return decode_item(cell, item_id, modality, decode)
    if isinstance(cell, str) and cell:
        from alfm.datasets.files import read_file

        return read_file(cell, item_id, modality, decode)
    if hasattr(cell, "convert"):
        return to_rgb(cell, item_id, decode.get("intensity_range"), decode.get("intensity_clip", False))
    raise ItemError(f"{item_id}: a cell of type {type(cell).__name__} is no {modality}")
