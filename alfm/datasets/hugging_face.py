"""Data sets of the Hugging Face `datasets` library, in memory-mapped files or streamed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    datasets = _library()
    how = decode_options(modality, decode)
    columns = _Columns(column, label_column, id_column)
    if path == "csv":
        _check_csv(data_files, [column, *columns.beside_items()])
    there = _load(datasets, path, config, streaming, revision, data_files, cache_dir)
    splits = dict(splits) if splits else {split: theirs for theirs, split in split_names(there).items()}
    check_apart("dataset.splits", {split: [source] for split, source in splits.items()})
    sources = {split: there[_found(source, list(there), path, "split")] for split, source in splits.items()}
    tables: dict[str, _Table] = {}
    for split, rows in sources.items():
        columns = columns.as_in(rows.features or {}, path)
        tables[split] = _read(datasets, rows, columns, modality, path, splits[split], streaming)
    remarks = _empty_texts(tables) if modality == "text" and not streaming else []
    labels, classes = _labels(tables, classes, unlabelled, path, remarks)

    kind = StreamedSplit if streaming else HubSplit
    built: dict[str, HubSplit] = {
        split: kind(table.rows, table.item, modality, table.ids, labels[split], how) for split, table in tables.items()
    }
    if test_fraction is not None:
        if streaming or "test" in built or "train" not in built:
            raise UserError("dataset.test_fraction cuts the split called train, of a data set that is not streamed")
        built["train"], built["test"] = _cut(built["train"], test_fraction, seed)
    marks = _marks(tables.values(), modality, streaming)
    options = sorted(how.items())
    reading = settle(modality, built, how)
    mark = fingerprint(built, classes, [path, config, revision, columns.item], marks, options, reading.marks)
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


def _library() -> Any:
    """The `datasets` library; `UserError` when it is not installed."""
    try:
        import datasets
    except ImportError:
        raise UserError("this data set needs the Hugging Face datasets library: pip install 'alfm[hf]'") from None
    return datasets


@dataclass(frozen=True)
class _Columns:
    """Names of the columns that hold the items, and their labels and ids where there are such."""

    item: str
    label: str | None
    id: str | None

    def beside_items(self) -> list[str]:
        """The columns of labels and ids, one that holds both once."""
        return list(dict.fromkeys(name for name in (self.label, self.id) if name is not None))

    def as_in(self, features: Mapping[str, Any], path: str) -> _Columns:
        """As they are written in a split, if it says what it has; `UserError` when one of them is not there."""
        if not features:
            return self
        there = list(features)
        item = _found(self.item, there, path, "column")
        label, id_ = (
            None if wanted is None else _found(wanted, there, path, "column") for wanted in (self.label, self.id)
        )
        return _Columns(item, label, id_)


@dataclass
class _Table:
    """A split of N rows, before its labels are numbers: `rows` has the items' column only, called `item` there."""

    rows: Any
    item: str
    ids: list[str]
    values: list[Any]
    names: list[str] | None
    """Names of the classes, when the labels are of the library's own kind."""


def _read(
    datasets: Any, rows: Any, columns: _Columns, modality: Modality, path: str, source: str, streaming: bool
) -> _Table:
    """A split with its labels and ids; `UserError` for ids that are no text, and for a split without rows."""
    names = getattr((rows.features or {}).get(columns.label), "names", None)
    count, cells = _pass_over(datasets, rows, columns, modality) if streaming else _look_up(rows, columns)
    ids = _keys(cells[columns.id], f"{path}, {source}") if columns.id is not None else []
    if count == 0:
        raise UserError(f"{path}: the split {source!r} is empty")
    return _Table(
        _undecoded(datasets, rows.select_columns([columns.item]), columns.item, modality),
        columns.item,
        ids or [f"{source}:{row}" for row in range(count)],
        cells[columns.label] if columns.label is not None else [None] * count,
        None if names is None else list(names),
    )


def _look_up(rows: Any, columns: _Columns) -> tuple[int, dict[str, list[Any]]]:
    """How many rows there are, and the cells of the labels' and ids' columns."""
    return len(rows), {name: list(rows[name]) for name in columns.beside_items()}


def _pass_over(datasets: Any, rows: Any, columns: _Columns, modality: Modality) -> tuple[int, dict[str, list[Any]]]:
    """The same of a stream, which is read once for it; items are read only when there is no other column."""
    beside = columns.beside_items()
    narrow = _undecoded(datasets, rows.select_columns(beside or [columns.item]), columns.item, modality)
    cells: dict[str, list[Any]] = {name: [] for name in beside}
    count = 0
    for count, row in enumerate(narrow, start=1):  # noqa: B007
        for name in beside:
            cells[name].append(row[name])
    return count, cells


def _labels(
    tables: Mapping[str, _Table], classes: Sequence[Any] | None, unlabelled: Any, path: str, remarks: list[str]
) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """Labels int64 (N,) per split, and the names of the classes.

    Places stay as they are when every split has the same names; else labels meet by their names."""
    named = {split: table.names for split, table in tables.items() if table.names is not None}
    if named and classes is not None:
        raise UserError(f"dataset.classes: {path} has names for its classes already; leave the option out")
    if len(named) == len(tables) and len({tuple(names) for names in named.values()}) == 1:
        names = next(iter(named.values()))
        return {split: _places(table.values, names, path) for split, table in tables.items()}, names
    values = {split: table.values for split, table in tables.items()}
    for split, names in named.items():
        values[split] = [None if place < 0 else names[place] for place in _places(values[split], names, path)]
    return labels_from_values(values, classes, unlabelled, remarks=remarks)


def _cut(whole: HubSplit, test_fraction: float, seed: int) -> list[HubSplit]:
    """What stays of a split, and the share of it that becomes the test split."""
    return [
        replace(whole, rows=whole.rows.select(kept), ids=[whole.ids[i] for i in kept], labels=whole.labels[kept])
        for kept in stratified_share(whole.labels, test_fraction, seed)
    ]


def _marks(tables: Collection[_Table], modality: Modality, streaming: bool) -> list[str]:
    """What the fingerprint takes from the library: its own marks of tables that are not streamed."""
    marks = [str(getattr(table.rows, "_fingerprint", "")) for table in tables if not streaming]
    kinds = [getattr((table.rows.features or {}).get(table.item), "dtype", "") for table in tables]
    if modality == "text" and any("binary" in str(kind) for kind in kinds):
        marks.append("bytes are text")  # they were embedded as they are printed in Python, b'...', by the first version
    return marks


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


def _empty_texts(tables: Mapping[str, _Table]) -> list[str]:
    """A sentence when texts are empty, counted without making Python strings of all of them."""
    import pyarrow.compute as pc

    empty: list[str] = []
    for table in tables.values():
        cells = table.rows.with_format("arrow")[:][table.item]
        if str(cells.type) in ("string", "large_string"):
            blank = pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(cells)), 0), True)
            empty += [table.ids[row] for row in np.flatnonzero(blank.to_numpy(zero_copy_only=False))]
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
