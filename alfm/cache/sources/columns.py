"""One column of labels, ids or splits in a file beside an array: `.npy`, `.csv`, `.tsv`, `.txt`, `.parquet`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alfm.cache.sources.arrays import IDS, LABELS, SPLIT
from alfm.cache.sources.npy import load_npy
from alfm.datasets.files import find_encoding
from alfm.datasets.names import same_name
from alfm.errors import UserError, nearest_names

_USUAL = {"labels": LABELS, "ids": IDS, "split": SPLIT}


def read_column(given: str, what: str, rows: int, encoding: str | None = None) -> Sequence[Any] | np.ndarray:
    """The values of a file, one per row: FILE, or FILE:COLUMN where it has several.

    `.txt`: one value a line. `.csv`, `.tsv`: a first line that is one too many for `rows` is the header. `encoding`:
    UTF-8 by default, or what a mark at the file's beginning says. Raises `UserError`: no such file or column,
    several columns, another encoding or separator.
    """
    path, column = Path(given), None
    if not path.exists() and ":" in given:
        name, _, column = given.rpartition(":")
        path = Path(name)
    if not path.exists():
        raise UserError(f"There is no file {path}: give --{what} FILE, or FILE:COLUMN.")
    kind = path.suffix.lower()
    if kind == ".npy":
        return np.array(load_npy(path))
    if kind in (".parquet", ".pq"):
        return _parquet(path, what, column)
    if kind not in (".txt", ".csv", ".tsv"):
        raise UserError(f"--{what} {given}: a .npy, .csv, .tsv, .txt or .parquet file is needed.")
    text = _text(path, encoding)
    if kind == ".txt":
        return text.splitlines()
    return _csv(path, text, "\t" if kind == ".tsv" else ",", what, rows, column)


def _text(path: Path, encoding: str | None) -> str:
    raw = path.read_bytes()
    if encoding is None:
        encoding = find_encoding(None, raw[:4])
    try:
        return raw.decode(encoding)
    except LookupError as error:
        raise UserError(f"--encoding {encoding}: there is no such encoding; utf-8, utf-16, cp1252 are.") from error
    except UnicodeError as error:
        raise UserError(f"{path} cannot be read as {encoding} text: say --encoding cp1252, or another.") from error


def _csv(path: Path, text: str, separator: str, what: str, rows: int, column: str | None) -> list[str]:
    lines = [line for line in csv.reader(io.StringIO(text), delimiter=separator) if line]
    width = len(lines[0]) if lines else 0
    wrong = next((number for number, line in enumerate(lines) if len(line) != width), None)
    if wrong is not None:
        raise UserError(f"{path}: record {wrong + 1} has {len(lines[wrong])} fields and the first has {width}.")
    others = [mark for mark in ";\t|," if mark != separator and all(mark in line[0] for line in lines)]
    if width == 1 and others:
        raise UserError(
            f"{path} has one column, and {others[0]!r} in every record: save it with {separator!r} instead."
        )
    header = lines[0] if len(lines) == rows + 1 else None
    if header is None:
        if width > 1 or column is not None:
            raise UserError(
                f"{path} has {len(lines)} records of {width} fields for {rows} rows of features: one column is needed, "
                "or a header and one record per row."
            )
        return [line[0] for line in lines]
    place = header.index(_chosen(path, what, header, column))
    return [line[place] for line in lines[1:]]


def _parquet(path: Path, what: str, column: str | None) -> list[Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError("Parquet files need pyarrow: pip install 'alfm[parquet]'.") from error
    try:
        file = pq.ParquetFile(path)
        name = _chosen(path, what, file.schema_arrow.names, column)
        return file.read(columns=[name]).column(name).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged or no Parquet file ({str(error).splitlines()[0]}).") from error


def _chosen(path: Path, what: str, names: Sequence[str], column: str | None) -> str:
    if column is not None:
        found = [name for name in names if name == column] or [n for n in names if same_name(n) == same_name(column)]
        if len(found) != 1:
            raise UserError(f"{path} has no column {column!r}: {nearest_names(column, list(names))}")
        return found[0]
    usual = [name for name in names if name.casefold() in _USUAL[what]]
    found = list(names) if len(names) == 1 else usual
    if len(found) != 1:
        raise UserError(f"{path} has the columns {', '.join(names)}: name one with --{what} {path}:COLUMN.")
    return found[0]
