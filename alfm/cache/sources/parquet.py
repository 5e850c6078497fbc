"""Parquet with a column of vectors, beside columns of labels, ids and splits. Vectors are streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alfm.cache.labels import label_column, renumbered
from alfm.cache.sources.arrays import IDS, LABELS, SPLIT
from alfm.cache.sources.base import BLOCK_ROWS, Options, Rows, Source, as_text, named_labels, split_rows
from alfm.datasets.names import same_name
from alfm.errors import UserError, nearest_names


def read_parquet(path: Path, options: Options) -> Source:
    """Rows of the vector column; labels as numbers, names or one-hot lists; -1 among others is asked about.

    Raises `UserError`: several columns for one thing, a column that is not there, missing or unequal vectors.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError("Parquet files need pyarrow: pip install 'alfm[parquet]'.") from error
    source = Source({})
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        index = _range_index(schema)
        vectors = [field.name for field in schema if _is_vector(pa, field.type)]
        column = _column(path, "features", options.features, vectors, vectors)
        if column is None:
            found = f"several columns of vectors ({', '.join(vectors)})" if vectors else "no column of vectors"
            raise UserError(f"{path} has {found}: name one with --features COLUMN.")
        label = _column(path, "labels", options.labels, LABELS, schema.names)
        id_column = _column(path, "ids", options.ids, IDS, [*schema.names, *index])
        split_column = _column(path, "split", options.split, SPLIT, schema.names)
        light = [name for name in dict.fromkeys((label, id_column, split_column)) if name and name not in index]
        table = file.read(columns=light) if light else None
        rows = file.metadata.num_rows
        values = {name: table.column(name).to_pylist() for name in light} if table is not None else {}
        first = next(file.iter_batches(batch_size=1, columns=[column]), None)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged or no Parquet file ({str(error).splitlines()[0]}).") from error
    if first is None or not rows:
        raise UserError(f"{path} has no rows.")
    dim = len(first.column(0)[0].as_py() or [])
    reader = _ParquetRows(pa, file, path, column, dim)
    labels, source.class_names = np.full(rows, -1, dtype=np.int64), None
    if label is not None:
        labels, source.class_names = _labels(path, label, values[label], options, source.remarks)
    values |= {name: index[name] for name in index}
    ids = None if id_column is None else [as_text(value) for value in values[id_column]]
    whole = Rows(rows, (dim,), reader, labels, ids)
    source.splits = {"train": whole} if split_column is None else split_rows(path, whole, values[split_column])
    rest = [name for name in schema.names if name not in (column, label, id_column, split_column)]
    if rest:
        folds = " (a split is taken from it with --split fold)" if "fold" in rest and split_column is None else ""
        source.remarks.append(f"not used: {', '.join(rest)}{folds}")
    return source


class _ParquetRows:
    """Rows of a vector column. Reading goes forward through the file; going back starts again."""

    def __init__(self, pa: Any, file: Any, path: Path, column: str, dim: int) -> None:
        self._pa, self._file, self._path, self._column, self._dim = pa, file, path, column, dim
        self._batches: Iterator[Any] = iter(())
        self._start = self._stop = -1
        self._block = np.empty((0, dim))

    def __call__(self, start: int, stop: int) -> np.ndarray:
        pieces = []
        while start < stop:
            if not self._start <= start < self._stop:
                self._seek(start)
            end = min(stop, self._stop)
            pieces.append(self._block[start - self._start : end - self._start])
            start = end
        return np.concatenate(pieces) if pieces else np.empty((0, self._dim))

    def _seek(self, row: int) -> None:
        if row < self._start or self._start < 0:
            self._batches = self._file.iter_batches(batch_size=BLOCK_ROWS, columns=[self._column])
            self._start = self._stop = 0
        while not self._start <= row < self._stop:
            try:
                column = next(self._batches).column(0)
            except (OSError, self._pa.ArrowException) as error:
                raise UserError(f"{self._path} is damaged ({str(error).splitlines()[0]}).") from error
            self._start = self._stop
            self._stop += len(column)
            self._block = self._matrix(column)

    def _matrix(self, column: Any) -> np.ndarray:
        values = column.flatten()
        if column.null_count or values.null_count or len(values) != len(column) * self._dim:
            raise UserError(f"{self._path}: {self._column} has missing values or vectors of different lengths.")
        return values.to_numpy(zero_copy_only=False).reshape(len(column), self._dim)


def _labels(
    path: Path, name: str, values: list[Any], options: Options, remarks: list[str]
) -> tuple[np.ndarray, list[str] | None]:
    where = f"{path}: {name}"
    if values and isinstance(values[0], list):
        try:
            onehot = np.array(values)
        except ValueError:  # of different lengths
            onehot = np.zeros((len(values), 2))
        values = label_column(onehot, len(values), where).tolist()
    try:
        labels, names = named_labels({"all": values}, options, remarks)
    except UserError as error:
        raise UserError(f"{where}: {str(error).rstrip('.')}.") from error
    numbers = [int(text) for text in names or () if text.lstrip("-").isdecimal()]
    if names and len(numbers) == len(names) and numbers != list(range(len(numbers))):
        remarks.append(renumbered(numbers))
    return labels["all"], names


def _column(path: Path, what: str, given: str | None, usual: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that was named, or the one with a usual name. `UserError`: not there, or several for the labels."""
    if given is not None:
        found = next((name for name in names if same_name(name) == same_name(given)), None)
        if found is None:
            raise UserError(f"{path} has no column {given!r} for {what}: {nearest_names(given, list(names))}")
        return found
    if what == "features":
        return usual[0] if len(usual) == 1 else None
    here = sorted((name for name in names if name.casefold() in usual), key=lambda name: usual.index(name.casefold()))
    if what == "labels" and len(here) > 1:
        raise UserError(f"{path} has several columns of labels ({', '.join(here)}): name one with --labels COLUMN.")
    return here[0] if here else None


def _range_index(schema: Any) -> dict[str, range]:
    """A named pandas index that counts rows: it is kept in the file's metadata alone."""
    found = {}
    for one in (schema.pandas_metadata or {}).get("index_columns", ()):
        if isinstance(one, dict) and one.get("kind") == "range" and one.get("name"):
            found[str(one["name"])] = range(one["start"], one["stop"], one["step"])
    return found


def _is_vector(pa: Any, kind: Any) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in lists) and pa.types.is_floating(kind.value_type)
