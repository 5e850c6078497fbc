"""Tables (CSV, TSV, Parquet): one row per item, naming a file or holding a text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alfm.datasets.assemble import fingerprint, labels_from_values, stratified_share
from alfm.datasets.base import Dataset, ItemError, Modality, Split
from alfm.datasets.files import Files
from alfm.datasets.ids import escape, file_stem
from alfm.errors import UserError, nearest_names


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

    table: str = ""
    rows: list[int] | None = None

    def load(self, index: int) -> Any:
        """The item, or `ItemError` naming the row (counted from 0, the header left out) and the table."""
        try:
            return super().load(index)
        except ItemError as error:
            raise ItemError(f"{error} (row {self.rows[index] if self.rows else index} of {self.table})") from error


def table(
    path: str | None = None,
    files: Mapping[str, str] | None = None,
    root: str | None = None,
    modality: Modality = "image",
    column: str = "path",
    label_column: str | None = None,
    split_column: str | None = None,
    id_column: str | None = None,
    name: str | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    path_format: str | Sequence[str] | None = None,
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    allow_absolute: bool = False,
    licence: str | None = None,
    **decode: Any,
) -> Dataset:
    """Rows of one table (`path`), or of one table per split (`files`: {train: a.csv, test: b.csv}).

    `column` holds a text (modality text) or the path of an image or a recording, relative to `root` (default: the
    table's folder). `path_format` makes a path of a key, "images/{}.jpg"; of several, the first that exists.
    `label_column`: see `labels_from_values`. Splits: `files`, or the values of `split_column`, or a seeded
    stratified share, or all is `train`. Ids: `id_column`, else the path, else "<table>:<row>" with rows counted
    from 0 without the header. `separator` and `columns` (names for a file without a header) describe the text
    format. A path outside `root` is refused unless `allow_absolute`. `decode`: options of `read_image` or
    `read_audio`. Raises `UserError` for a missing table, column or split, and for contradictory options.
    """
    if (path is None) == (files is None):
        raise UserError("a table needs dataset.path=FILE, or dataset.files={train: FILE, test: FILE}")
    sources = {"": path} if path is not None else dict(files or {})
    wanted = [c for c in (column, label_column, split_column, id_column) if c is not None]
    frames = {split: read_table(source, wanted, separator, columns) for split, source in sources.items()}
    base = root if root is not None else os.path.dirname(os.path.abspath(next(iter(sources.values()))))
    rows = [
        Row(source, number, split, record)
        for split, source in sources.items()
        for number, record in enumerate(frames[split].to_dict("records"))
    ]
    for row in rows if split_column is not None else ():
        row.split = "" if _is_missing(row.record[split_column]) else str(row.record[split_column])
        if not row.split:
            raise UserError(f"{row.where}: nothing in the split column {split_column!r}")
    derived = file_stem(os.path.splitext(os.path.basename(next(iter(sources.values()))))[0])
    return from_rows(
        rows,
        base,
        name or derived,
        modality=modality,
        column=column,
        label_column=label_column,
        id_column=id_column,
        test_fraction=test_fraction,
        seed=seed,
        classes=classes,
        path_format=path_format,
        allow_absolute=allow_absolute,
        licence=licence,
        **decode,
    )


@dataclass
class Row:
    """One row of a table: where it stands, which split it belongs to ("" = not said), and its cells."""

    source: str
    number: int
    split: str
    record: dict[str, Any]

    @property
    def where(self) -> str:
        """For messages."""
        return f"row {self.number} of {self.source}"


def from_rows(
    rows: list[Row],
    root: str,
    name: str,
    *,
    modality: Modality = "image",
    column: str = "path",
    label_column: str | None = "label",
    id_column: str | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    path_format: str | Sequence[str] | None = None,
    allow_absolute: bool = False,
    licence: str | None = None,
    **decode: Any,
) -> Dataset:
    """Rows -> a data set; the arguments are those of `table`."""
    if not rows:
        raise UserError(f"{name}: the table has no rows")
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.split or "train", []).append(row)
    values = {s: [r.record[label_column] if label_column else None for r in group] for s, group in groups.items()}
    labels, names = labels_from_values(values, classes)
    if test_fraction is not None:
        if "test" in groups or "train" not in groups:
            raise UserError(f"dataset.test_fraction cuts train; the table has the splits {', '.join(groups)}")
        first, second = stratified_share(labels["train"], test_fraction, seed)
        whole, whole_labels = groups["train"], labels["train"]
        groups["train"], groups["test"] = [whole[i] for i in first], [whole[i] for i in second]
        labels["train"], labels["test"] = whole_labels[first], whole_labels[second]

    splits: dict[str, Split] = {}
    content: list[Any] = []
    for split, group in groups.items():
        cells = [_text(row.record[column]) for row in group]
        keys = [_text(row.record[id_column]) for row in group] if id_column is not None else None
        if modality == "text":
            stems = {r.source: file_stem(os.path.splitext(os.path.basename(r.source))[0]) for r in group}
            ids = keys or [f"{stems[row.source]}:{row.number}" for row in group]
            splits[split] = Texts(cells, ids, labels[split])
            content.extend(cells)
            continue
        places = [
            _place(cell, root, path_format, allow_absolute, row) for cell, row in zip(cells, group, strict=True)
        ]
        sources = ", ".join(dict.fromkeys(row.source for row in group))
        ids = keys or [escape(place) for place in places]
        numbers = [row.number for row in group]
        splits[split] = RowFiles(root, ids, labels[split], modality, decode, places, sources, numbers)
        content.extend(places)
        content.extend(_size(os.path.join(root, place)) for place in places)
    mark = fingerprint(splits, names, content, sorted(decode.items()))
    return Dataset(name, modality, splits, names, mark, licence)


def read_table(
    source: str | None, wanted: Sequence[str], separator: str | None = None, columns: Sequence[str] | None = None
) -> Any:
    """The wanted columns of a CSV, TSV or Parquet file as a pandas DataFrame; text cells stay text."""
    import pandas as pd

    if source is None or not os.path.isfile(source):
        raise UserError(f"there is no table {source!r}")
    try:
        if os.path.splitext(source)[1].lower() in (".parquet", ".pq"):
            _check_columns(source, wanted, _parquet_columns(source))
            return pd.read_parquet(source, columns=list(dict.fromkeys(wanted)))
        if separator is None:
            separator = "\t" if source.lower().endswith((".tsv", ".tab")) else ","
        shape = {"sep": separator, "encoding": "utf-8-sig", "dtype": str, "keep_default_na": False}
        if columns is not None:
            shape |= {"header": None, "names": list(columns)}
        else:
            _check_columns(source, wanted, list(pd.read_csv(source, nrows=0, **shape).columns))
        frame = pd.read_csv(source, **shape)
        _check_columns(source, wanted, list(frame.columns))
        return frame[list(dict.fromkeys(wanted))]
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is not UTF-8: {error.reason} at byte {error.start}") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, OSError) as error:
        raise UserError(f"{source} cannot be read as a table: {str(error).splitlines()[0]}") from error


def _parquet_columns(source: str) -> list[str]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError("reading Parquet needs pyarrow: pip install 'alfm[parquet]'") from None
    return list(pyarrow.parquet.read_schema(source).names)


def _check_columns(source: str, wanted: Sequence[str], present: list[str]) -> None:
    for column in wanted:
        if column not in present:
            raise UserError(f"{source} has no column {column!r}; {nearest_names(column, present)}")


def _is_missing(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and np.isnan(cell)) or str(cell) == "<NA>"


def _text(cell: Any) -> str:
    return "" if _is_missing(cell) else str(cell)


def _place(cell: str, root: str, formats: str | Sequence[str] | None, allow_absolute: bool, row: Row) -> str:
    """The path a row names, relative to `root` (or absolute, where allowed)."""
    if not cell:
        raise UserError(f"{row.where}: the path is empty")
    candidates = [cell]
    if formats is not None:
        candidates = [f.format(cell) for f in ([formats] if isinstance(formats, str) else formats)]
    candidates = [os.path.normpath(candidate) for candidate in candidates]
    for candidate in candidates:
        outside = os.path.isabs(candidate) or candidate.split(os.sep)[0] == ".."
        if outside and not allow_absolute:
            raise UserError(
                f"{row.where}: {candidate} lies outside {root}; set dataset.allow_absolute=true if that is meant"
            )
    there = (c for c in candidates if len(candidates) > 1 and os.path.exists(os.path.join(root, c)))
    return next(there, candidates[0])


def _size(path: str) -> int:
    """Bytes, or -1 for a file that is not there: its row says so when its turn comes."""
    try:
        return os.path.getsize(path)
    except OSError:
        return -1
