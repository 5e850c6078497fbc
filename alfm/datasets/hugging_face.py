"""Data sets of the Hugging Face `datasets` library, in memory-mapped files or streamed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

import numpy as np

from alfm.datasets.assemble import check_apart, fingerprint, labels_from_values, stratified_share
from alfm.datasets.audio import mono
from alfm.datasets.base import Dataset, ItemError, Modality
from alfm.datasets.csv_rows import read_csv
from alfm.datasets.files import Decode, decode_item, decode_options, decode_text
from alfm.datasets.ids import file_stem
from alfm.datasets.images import to_rgb
from alfm.datasets.intensity import settle
from alfm.datasets.labels import ASK
from alfm.datasets.names import same_name
from alfm.datasets.splits import split_names
from alfm.errors import UserError, nearest_names
from alfm.options import Fraction, Seed, checked


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


@checked
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
    data_files: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
    cache_dir: str | None = None,
    test_fraction: Fraction | None = None,
    seed: Seed = 0,
    classes: Sequence[Any] | None = None,
    unlabelled: Any = ASK,
    licence: str | None = None,
    **decode: Unpack[Decode],
) -> Dataset:
    """`datasets.load_dataset(path, config)`, all its splits, or the ones named ({train: train, test: validation}).

    `path`: a repository on the hub, a folder written by `save_to_disk`, or a format ("parquet", "csv", "json",
    "webdataset", ...) with `data_files`. Ids: `id_column`, else "<split>:<row>". `streaming` downloads nothing: a
    first pass reads the labels (and counts the rows), then items come in order. `test_fraction` cuts the split
    called train (not when streaming). Labels of the library's own kind for classes have names, and -1 for none there;
    for other columns see `labels_from_values` (`classes`, `unlabelled`). No code of a repository is ever run.
    `decode`: options of `read_image` or `read_audio`. `UserError`: not installed, not there, no such split or column,
    several labels per item.
    """
    try:
        import datasets
    except ImportError:
        raise UserError("this data set needs the Hugging Face datasets library: pip install 'alfm[hf]'") from None
    how = decode_options(modality, decode)
    if path == "csv":
        _check_csv(data_files, [c for c in (column, label_column, id_column) if c is not None])
    there = _load(datasets, path, config, streaming, revision, data_files, cache_dir)
    splits = dict(splits) if splits else {split: theirs for theirs, split in split_names(there).items()}
    check_apart("dataset.splits", {split: [source] for split, source in splits.items()})
    tables = {split: there[_found(source, list(there), path, "split")] for split, source in splits.items()}
    values: dict[str, list[Any]] = {}
    ids: dict[str, list[str]] = {}
    named: dict[str, list[str]] = {}
    for split, rows in tables.items():
        features = rows.features or {}
        if features:
            column = _found(column, list(features), path, "column")
            label_column, id_column = (
                None if wanted is None else _found(wanted, list(features), path, "column")
                for wanted in (label_column, id_column)
            )
        meta = [c for c in (label_column, id_column) if c is not None]
        if label_column is not None and getattr(features.get(label_column), "names", None) is not None:
            named[split] = list(features[label_column].names)
        if streaming:
            narrow = _undecoded(datasets, rows.select_columns(meta or [column]), column, modality)
            cells: dict[str, list[Any]] = {c: [] for c in meta}
            count = 0
            for count, row in enumerate(narrow, start=1):  # noqa: B007
                for c in meta:
                    cells[c].append(row[c])
        else:
            count = len(rows)
            cells = {c: list(rows[c]) for c in meta}
        values[split] = cells[label_column] if label_column is not None else [None] * count
        keys = _keys(cells[id_column], f"{path}, {splits[split]}") if id_column is not None else None
        ids[split] = keys or [f"{splits[split]}:{row}" for row in range(count)]
        if count == 0:
            raise UserError(f"{path}: the split {splits[split]!r} is empty")
        tables[split] = _undecoded(datasets, rows.select_columns([column]), column, modality)
    remarks: list[str] = []
    if modality == "text" and not streaming:
        remarks += _empty_texts({split: (rows, ids[split]) for split, rows in tables.items()}, column)
    if named and classes is not None:
        raise UserError(f"dataset.classes: {path} has names for its classes already; leave the option out")
    if len(named) == len(values) and len({tuple(names) for names in named.values()}) == 1:
        classes = next(iter(named.values()))
        labels = {split: _places(column, classes, path) for split, column in values.items()}
    else:
        for split, names in named.items():
            values[split] = [None if p < 0 else names[p] for p in _places(values[split], names, path)]
        labels, classes = labels_from_values(values, classes, unlabelled, remarks=remarks)

    built: dict[str, HubSplit] = {}
    kind = StreamedSplit if streaming else HubSplit
    for split, rows in tables.items():
        built[split] = kind(rows, column, modality, ids[split], labels[split], how)
    if test_fraction is not None:
        if streaming or "test" in built or "train" not in built:
            raise UserError("dataset.test_fraction cuts the split called train, of a data set that is not streamed")
        whole = built["train"]
        for split, kept in zip(("train", "test"), stratified_share(whole.labels, test_fraction, seed), strict=True):
            part_ids = [whole.ids[i] for i in kept]
            built[split] = HubSplit(whole.rows.select(kept), column, modality, part_ids, whole.labels[kept], how)
    marks = [str(getattr(rows, "_fingerprint", "")) for rows in tables.values() if not streaming]
    if modality == "text" and any(
        "binary" in str(getattr((r.features or {}).get(column), "dtype", "")) for r in tables.values()
    ):
        marks.append("bytes are text")  # they were embedded as they are printed in Python, b'...', by the first version
    options = sorted(how.items())
    reading = settle(modality, built, how)
    mark = fingerprint(built, classes, [path, config, revision, column], marks, options, reading.marks)
    return Dataset(
        name or file_stem(path.rstrip("/").split("/")[-1]),
        modality,
        built,
        classes,
        mark,
        licence,
        remarks=[*remarks, *reading.remarks],
        intensity_range=reading.range,
    )


def _found(wanted: str, present: list[str], path: str, what: str) -> str:
    """A name as it is written there; `UserError` when it is not."""
    match = wanted if wanted in present else next((p for p in present if same_name(p) == same_name(wanted)), None)
    if match is None:
        raise UserError(f"{path} has no {what} {wanted!r}; {nearest_names(wanted, present)}")
    return match


def _places(values: Sequence[int | None], names: list[str], path: str) -> np.ndarray:
    """Labels of the library's own kind, places in `names` and -1 or None for none, as int64 (N,)."""
    places = np.array([-1 if value is None else value for value in values], dtype=np.int64)
    wrong = np.flatnonzero((places < -1) | (places >= len(names)))
    if len(wrong):
        raise UserError(f"{path}: label {places[wrong[0]]} is no place among its {len(names)} classes")
    return places


def _keys(cells: list[Any], where: str) -> list[str]:
    try:
        return [_as_text(cell, f"{where}:{row}") for row, cell in enumerate(cells)]
    except ItemError as error:
        raise UserError(f"{error}, and cannot be an id: choose another dataset.id_column") from error


def _check_csv(data_files: Any, wanted: Sequence[str]) -> None:
    """The library moves fields of CSV rows that do not fit the header, and takes 007 for 7: such files are refused."""
    groups = data_files.values() if isinstance(data_files, Mapping) else [data_files]
    files = [file for group in groups for file in ([group] if isinstance(group, str) else group or ())]
    for file in filter(os.path.isfile, files):
        try:
            cells = read_csv(file, wanted).cells
        except UserError as error:
            raise UserError(f"{error}: with dataset=table dataset.path=FILE, which has these options") from error
        for name, column in cells.items():
            padded = next((cell for cell in column if cell.isdecimal() and cell != str(int(cell))), None)
            if padded is not None:
                raise UserError(f"{file}: {padded} in {name!r} would become {int(padded)}; use dataset=table")


def _as_text(cell: Any, where: str) -> str:
    """Text, numbers and UTF-8 bytes as text, "" for nothing; `ItemError` for anything else."""
    if isinstance(cell, bytes):
        return decode_text(cell, where)
    if isinstance(cell, (list, dict, np.ndarray)):
        raise ItemError(f"{where}: a cell of type {type(cell).__name__} is no text")
    return "" if cell is None else str(cell)


def _empty_texts(tables: Mapping[str, tuple[Any, list[str]]], column: str) -> list[str]:
    """A sentence when texts are empty, counted without making Python strings of all of them."""
    import pyarrow.compute as pc

    empty: list[str] = []
    for rows, ids in tables.values():
        cells = rows.with_format("arrow")[:][column]
        if str(cells.type) in ("string", "large_string"):
            blank = pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(cells)), 0), True)
            empty += [ids[row] for row in np.flatnonzero(blank.to_numpy(zero_copy_only=False))]
    return [f"texts that are empty: {len(empty):,}, the first {empty[0]}"] if empty else []


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
        return decode_text(cell, item_id, **decode) if isinstance(cell, bytes) else _as_text(cell, item_id)
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
