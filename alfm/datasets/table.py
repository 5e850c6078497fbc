"""Tables (CSV, TSV, Parquet): one row per item, naming a file or holding a text."""

from __future__ import annotations

import lzma
import os
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Unpack

import numpy as np

from alfm.datasets.assemble import check_apart, fingerprint, labels_from_values, stratified_share
from alfm.datasets.base import Dataset, ItemError, Modality, Split
from alfm.datasets.csv_rows import Columns, Quoting, find_columns, read_csv
from alfm.datasets.files import Decode, Files, decode_options, file_size
from alfm.datasets.ids import escape, file_stem
from alfm.datasets.intensity import settle
from alfm.datasets.labels import ASK
from alfm.datasets.names import one_spelling, same_name
from alfm.datasets.splits import split_names
from alfm.errors import UserError
from alfm.options import Fraction, Means, Seed, checked

_JSON = "read it with dataset=hugging_face dataset.path=json dataset.data_files=FILE"
_OTHERS = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save the sheet as CSV (UTF-8)"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), _JSON),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z"), "unpack it"),
}
"""What people hold that is read in another way."""


@dataclass
class Texts:
    """Texts in memory; labels int64 (N,)."""

    texts: list[str]
    ids: list[str]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int) -> str:
        """The text, which may be empty."""
        return self.texts[index]


@dataclass
class RowFiles(Files):
    """Files that rows of a table name; an error says which row."""

    tables: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def load(self, index: int) -> Any:
        """The item, or `ItemError` naming the row (counted from 0, the header left out) and the table."""
        try:
            return super().load(index)
        except ItemError as error:
            raise ItemError(f"{error} (row {self.rows[index]} of {self.tables[index]})") from error


@dataclass
class Rows:
    """Rows of one or more tables, column by column: where each stands, its split, its path or text, its label."""

    tables: list[str]
    rows: list[int]
    splits: list[str]
    cells: list[str]
    labels: list[Any]
    keys: list[str] | None = None
    """Ids, where the tables have them."""
    remarks: list[str] = field(default_factory=list)
    """Sentences about how they were read."""

    def where(self, index: int) -> str:
        """For messages."""
        return f"row {self.rows[index]} of {self.tables[index]}"


@checked
def table(  # type: ignore[misc]  # `encoding` is the table's, and that of text files
    path: str | None = None,
    files: Annotated[Mapping[str, str], Means("{train: FILE, test: FILE} (a single table is dataset.path=FILE)")]
    | None = None,
    root: str | None = None,
    modality: Modality = "image",
    column: str = "path",
    label_column: str | None = None,
    split_column: str | None = None,
    id_column: str | None = None,
    name: str | None = None,
    test_fraction: Fraction | None = None,
    seed: Seed = 0,
    classes: Sequence[Any] | None = None,
    path_format: str | Sequence[str] | None = None,
    separator: str | None = None,
    columns: Sequence[Any] | None = None,
    quoting: Quoting = "auto",
    encoding: str | None = None,
    unlabelled: Any = ASK,
    allow_absolute: bool = False,
    licence: str | None = None,
    **decode: Unpack[Decode],
) -> Dataset:
    """Rows of one table (`path`), or of one table per split (`files`: {train: a.csv, test: b.csv}).

    `column` holds a text (modality text) or the path of an image or a recording, relative to `root` (default: the
    table's folder). `path_format` makes a path of a key, "images/{}.jpg"; of several, the first that exists.
    `label_column`: see `labels_from_values`. Splits: `files`, or the values of `split_column` (Training, TEST, ... are
    train, test), or a seeded stratified share, or all is `train`. Ids: `id_column`, else the path, else
    "<table>:<row>" with rows counted from 0 without the header. `separator` and `columns` (names for a file without a
    header) describe the text format. A path outside `root` is refused unless `allow_absolute`. `decode`: options of
    `read_image` or `read_audio`. Raises `UserError` for a missing table, column or split, and for contradictory
    options.
    """
    if (path is None) == (files is None):
        raise UserError("a table needs dataset.path=FILE, or dataset.files={train: FILE, test: FILE}")
    sources = {"": path} if path is not None else dict(files or {})
    check_apart("dataset.files", {split: [os.path.realpath(file)] for split, file in sources.items()})
    wanted = [c for c in (column, label_column, split_column, id_column) if c is not None]
    found = Rows([], [], [], [], [], None if id_column is None else [])
    for split, source in sources.items():
        read = read_table(source, wanted, separator, columns, quoting, encoding)
        count = len(read.cells[column])
        found.tables.extend([str(source)] * count)
        found.rows.extend(range(count))
        found.cells.extend(_texts(read.cells[column], str(source), column))
        found.labels.extend(read.cells[label_column] if label_column is not None else [None] * count)
        parts = _texts(read.cells[split_column], str(source), split_column) if split_column is not None else None
        found.splits.extend([split] * count if parts is None else map(str.strip, parts))
        if found.keys is not None and id_column is not None:
            found.keys.extend(_texts(read.cells[id_column], str(source), id_column))
        found.remarks.extend(read.remarks)
    if split_column is not None and "" in found.splits:
        raise UserError(f"{found.where(found.splits.index(''))}: nothing in the split column {split_column!r}")
    if split_column is not None:
        spelling = one_spelling(found.splits)
        split_of = split_names(dict.fromkeys(spelling.values()))
        found.splits = [split_of[spelling[split]] for split in found.splits]
    first = str(next(iter(sources.values())))
    return from_rows(
        found,
        root if root is not None else os.path.dirname(os.path.abspath(first)),
        name or file_stem(_stem(first)),
        modality=modality,
        test_fraction=test_fraction,
        seed=seed,
        classes=classes,
        path_format=path_format,
        unlabelled=unlabelled,
        allow_absolute=allow_absolute,
        licence=licence,
        **decode,
    )


def from_rows(
    found: Rows,
    root: str,
    name: str,
    *,
    modality: Modality = "image",
    test_fraction: Fraction | None = None,
    seed: Seed = 0,
    classes: Sequence[Any] | None = None,
    path_format: str | Sequence[str] | None = None,
    unlabelled: Any = ASK,
    allow_absolute: bool = False,
    licence: str | None = None,
    **decode: Any,
) -> Dataset:
    """Rows -> a data set; the arguments are those of `table`, an empty split name means train."""
    how = decode_options(modality, decode)
    if not found.cells:
        raise UserError(f"{name}: the table has no rows")
    groups: dict[str, list[int]] = {}
    for index, split in enumerate(found.splits):
        groups.setdefault(split or "train", []).append(index)
    remarks = list(found.remarks)
    values = {split: [found.labels[i] for i in rows] for split, rows in groups.items()}
    labels, names = labels_from_values(values, classes, unlabelled, remarks=remarks)
    empty = [i for i, cell in enumerate(found.cells) if not cell.strip()] if modality == "text" else []
    if empty:
        remarks.append(f"texts that are empty: {len(empty):,}, the first in {found.where(empty[0])}")
    if test_fraction is not None:
        if "test" in groups or "train" not in groups:
            raise UserError(f"dataset.test_fraction cuts train; the table has the splits {', '.join(groups)}")
        first, second = stratified_share(labels["train"], test_fraction, seed)
        whole, whole_labels = groups["train"], labels["train"]
        groups["train"], groups["test"] = [whole[i] for i in first], [whole[i] for i in second]
        labels["train"], labels["test"] = whole_labels[first], whole_labels[second]

    splits: dict[str, Split] = {}
    content: list[Any] = []
    for split, chosen in groups.items():
        keys = [found.keys[i] for i in chosen] if found.keys is not None else None
        if modality == "text":
            stems = {path: file_stem(_stem(path)) for path in dict.fromkeys(found.tables)}
            ids = keys or [f"{stems[found.tables[i]]}:{found.rows[i]}" for i in chosen]
            texts = [found.cells[i] for i in chosen]
            splits[split] = Texts(texts, ids, labels[split])
            content.extend(texts)
            continue
        places = [_place(found, i, root, path_format, allow_absolute) for i in chosen]
        ids = keys or [escape(place) for place in places]
        where = [found.tables[i] for i in chosen], [found.rows[i] for i in chosen]
        splits[split] = RowFiles(root, ids, labels[split], modality, how, places, *where)
        content.extend(places)
        content.extend(file_size(os.path.join(root, place)) for place in places)
    options = sorted(how.items())
    reading = settle(modality, splits, how)
    mark = fingerprint(splits, names, content, options, reading.marks)
    return Dataset(
        name, modality, splits, names, mark, licence, remarks=remarks + reading.remarks, intensity_range=reading.range
    )


def read_table(
    source: str | None,
    wanted: Sequence[str],
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    quoting: Quoting = "auto",
    encoding: str | None = None,
) -> Columns:
    """The wanted columns of a CSV, TSV or Parquet file; text tables give text, Parquet what it holds."""
    source = None if source is None else os.path.expanduser(source)
    if source is None or not os.path.isfile(source):
        raise UserError(f"there is no table {source!r}")
    wanted = list(dict.fromkeys(wanted))
    other = _OTHERS.get(os.path.splitext(source)[1].lower())
    if other is not None:
        raise UserError(f"{source} is no CSV, TSV or Parquet file: {other}")
    try:
        if os.path.splitext(source)[1].lower() in (".parquet", ".pq"):
            return _read_parquet(source, wanted)
        return read_csv(source, wanted, separator, columns, quoting, encoding)
    except (ValueError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:  # pyarrow's are among them
        raise UserError(f"{source} cannot be read as a table: {(str(error).splitlines() or ['damaged'])[0]}") from error


def _read_parquet(source: str, wanted: list[str]) -> Columns:
    """Columns, and the levels of a pandas index, by the names they were written with."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError("reading Parquet needs pyarrow: pip install 'alfm[parquet]'") from None
    import pandas as pd

    schema = pyarrow.parquet.read_schema(source)
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    levels = [level["name"] if isinstance(level, dict) else level for level in index]  # a range is not stored as one
    present = list(dict.fromkeys([*schema.names, *(name for name in levels if name is not None)]))
    names = [present[place] for place in find_columns(source, wanted, present)]
    frame = pd.read_parquet(source, columns=[name for name in names if name in schema.names])
    if not set(names) <= set(frame.columns):
        frame.index = frame.index.set_names(levels)
        frame = frame.reset_index()
    return Columns({column: list(frame[name]) for column, name in zip(wanted, names, strict=True)})


def _is_missing(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and np.isnan(cell)) or str(cell) == "<NA>"


def _texts(cells: Sequence[Any], source: str, column: str) -> list[str]:
    """Cells as text, "" for none. `UserError` for bytes that are not UTF-8, and for lists and other structures."""
    texts = []
    for row, cell in enumerate(cells):
        try:
            texts.append(_text(cell))
        except (TypeError, UnicodeDecodeError) as error:
            kind = (
                "bytes that are not UTF-8 text" if isinstance(cell, bytes) else f"a {type(cell).__name__}, not a text"
            )
            raise UserError(
                f"row {row} of {source}: the column {column!r} holds {kind}; images and recordings inside a Parquet "
                "file are read with dataset=hugging_face dataset.path=parquet dataset.data_files=FILE"
            ) from error
    return texts


def _text(cell: Any) -> str:
    if isinstance(cell, (bytes, bytearray)):
        return cell.decode("utf-8")
    if isinstance(cell, (list, tuple, set, dict, np.ndarray)):
        raise TypeError
    return "" if _is_missing(cell) else str(cell)


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _place(found: Rows, index: int, root: str, formats: str | Sequence[str] | None, allow_absolute: bool) -> str:
    """The path a row names, relative to `root` (or absolute, where allowed)."""
    cell = found.cells[index]
    if not cell:
        raise UserError(f"{found.where(index)}: the path is empty")
    candidates = [cell]
    if formats is not None:
        candidates = [f.format(cell) for f in ([formats] if isinstance(formats, str) else formats)]
    candidates = [os.path.normpath(way) for candidate in candidates for way in ways_to_write(candidate)]
    for candidate in candidates:
        outside = os.path.isabs(candidate) or candidate.split(os.sep)[0] == ".."
        if outside and not allow_absolute:
            raise UserError(
                f"{found.where(index)}: {candidate} lies outside {root}; "
                "set dataset.allow_absolute=true if that is meant"
            )
    there = (c for c in candidates if len(candidates) > 1 and os.path.exists(os.path.join(root, c)))
    return next(there, candidates[0])


def ways_to_write(path: str) -> dict[str, None]:
    """A path as it stands, in either Unicode form, and with Windows' separators replaced; each once."""
    forms = [path] if path.isascii() else [path, same_name(path), unicodedata.normalize("NFD", same_name(path))]
    return dict.fromkeys([*forms, *(form.replace("\\", "/") for form in forms)])
