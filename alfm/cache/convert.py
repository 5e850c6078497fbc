"""Embeddings that people already have, as a cache of ours: HDF5 caches, `.npz`, `.npy` + labels, Parquet.

Rows are streamed; `.npy`, HDF5 and Parquet never have to fit in memory. Nothing is unpickled.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from alfm.cache.layout import FLOAT16_MAX, MAX_CLASSES, rows_not_finite
from alfm.cache.reader import FeatureCache, open_cache
from alfm.cache.writer import CacheWriter
from alfm.datasets.assemble import labels_from_values, stratified_share
from alfm.errors import UserError, nearest_names

_BLOCK_ROWS = 4096
_FEATURES = ("features", "embeddings", "embedding", "vectors", "vector", "X", "x")
_LABELS = ("labels", "label", "targets", "target", "class", "y")
_IDS = ("ids", "id", "key", "path", "filename", "uuid")
_SPLIT = ("split", "subset", "fold")


@dataclass
class Options:
    """Which names to take from the source; None finds the usual ones. `test_fraction` cuts a seeded stratified test
    split from a source that has none; `dtype` is that of the written features."""

    features: str | None = None
    labels: str | None = None
    ids: str | None = None
    split: str | None = None
    test_fraction: float | None = None
    seed: int = 0
    dtype: str = "float16"


@dataclass
class _Source:
    """Rows of one split of a source: `read(start, stop)` gives float (n, D), or (n, V, D)."""

    rows: int
    item_shape: tuple[int, ...]
    read: Any
    labels: np.ndarray
    ids: list[str] | None


def convert(source: Path, target: Path, options: Options | None = None, force: bool = False) -> FeatureCache:
    """Write `source` as a cache at `target` and open it.

    By suffix: `.hdf`, `.h5`, `.hdf5` (AL-foundation-models included), `.npz` (arrays `features`, `labels`, `ids`, or
    with `train_`/`test_` before or `_train`/`_test` after), `.npy` (labels in the file `options.labels`), `.parquet` (a
    column of vectors; labels as numbers or names). Raises `UserError` for anything that is not what it should be.
    """
    options = options or Options()
    if target.exists() and (source.resolve() == target.resolve() or not force):
        raise UserError(f"{target} is there already: name another target, or replace it with --force.")
    if not source.exists():
        raise UserError(f"There is no file {source}.")
    readers = {".npz": _npz, ".npy": _npy, ".parquet": _parquet, ".pq": _parquet}
    readers |= dict.fromkeys((".hdf", ".h5", ".hdf5"), _hdf5)
    reader = readers.get(source.suffix.lower())
    if reader is None:
        raise UserError(f"{source}: one of {', '.join(sorted(readers))} is needed.")
    splits, classes = reader(source, options)
    if options.test_fraction is not None:
        splits = _cut_test(splits, options)
    _write(source, target, splits, classes, options.dtype)
    return open_cache(target)


def _write(source: Path, target: Path, splits: dict[str, _Source], classes: list[str] | None, dtype_name: str) -> None:
    if dtype_name not in ("float16", "float32"):
        raise UserError(f"--dtype {dtype_name}: use float16 or float32.")
    dtype = np.dtype(dtype_name)
    mark = _fingerprint(source)
    attributes: dict[str, Any] = {
        "dataset": target.parent.name or target.stem,
        "dataset_fingerprint": mark,
        "model": target.stem,
        "model_fingerprint": mark,
        "converted_from": source.name,
        "dtype": dtype_name,
    }
    if classes:
        attributes["class_names"] = classes
    with CacheWriter(target, attributes) as writer:
        for name, split in splits.items():
            writer.add_split(name, split.rows, split.item_shape, dtype, split.ids is not None)
            for low in range(0, split.rows, _BLOCK_ROWS):
                high = min(low + _BLOCK_ROWS, split.rows)
                block = np.asarray(split.read(low, high))
                _check_block(source, name, low, block, dtype)
                ids = None if split.ids is None else split.ids[low:high]
                writer.append(name, block.astype(dtype), split.labels[low:high], ids)
        writer.finish()


def _check_block(source: Path, name: str, low: int, block: np.ndarray, dtype: np.dtype) -> None:
    if block.dtype not in (np.float16, np.float32):
        block = block.astype(np.float64)
    bad = rows_not_finite(block)
    if bad.any():
        raise UserError(f"{source}: NaN or Inf in {name}, row {low + int(bad.argmax())}.")
    if block.size and np.abs(block).max() > (FLOAT16_MAX if dtype == np.float16 else np.finfo(np.float32).max):
        row = low + int(np.abs(block.reshape(len(block), -1)).max(axis=1).argmax())
        raise UserError(f"{source}: {name}, row {row} has values beyond {dtype}: use --dtype float32.")


def _fingerprint(source: Path) -> str:
    digest = blake2b(digest_size=16)
    with source.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _cut_test(splits: dict[str, _Source], options: Options) -> dict[str, _Source]:
    if "test" in splits or "train" not in splits:
        raise UserError(f"--test-fraction cuts train where there is no test; there are {', '.join(splits)}.")
    whole = splits["train"]
    train, test = stratified_share(whole.labels, options.test_fraction or 0, options.seed)
    return splits | {"train": _rows_of(whole, train), "test": _rows_of(whole, test)}


def _rows_of(whole: _Source, rows: np.ndarray) -> _Source:
    """Some rows (ascending) of a source: whole blocks are read and the rows taken out."""

    def read(start: int, stop: int) -> np.ndarray:
        wanted = rows[start:stop]
        first = int(wanted[0])
        pieces = []
        for low in range(first, int(wanted[-1]) + 1, _BLOCK_ROWS):
            inside = wanted[(wanted >= low) & (wanted < low + _BLOCK_ROWS)]
            if len(inside):
                pieces.append(whole.read(low, min(low + _BLOCK_ROWS, whole.rows))[inside - low])
        return np.concatenate(pieces)

    ids = None if whole.ids is None else [whole.ids[row] for row in rows]
    return _Source(len(rows), whole.item_shape, read, whole.labels[rows], ids)


# ---- the formats ----------------------------------------------------------------------------------------------------


def _hdf5(path: Path, options: Options) -> tuple[dict[str, _Source], list[str] | None]:
    cache = open_cache(path)
    splits = {}
    for name in cache.splits:
        views = cache.num_views(name)
        shape = (cache.dim,) if views == 1 else (views, cache.dim)

        def read(start: int, stop: int, name: str = name, view: int | None = 0 if views == 1 else None) -> np.ndarray:
            return cache.read_rows(name, start, stop, view)

        splits[name] = _Source(cache.num_rows(name), shape, read, cache.labels(name), cache.ids(name))
    return splits, cache.class_names


def _npz(path: Path, options: Options) -> tuple[dict[str, _Source], list[str] | None]:
    names = _npz_members(path)
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in names}
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        split, kind = _role(name, options)
        if kind:
            found.setdefault(split, {})[kind] = array
    found = {split: roles for split, roles in found.items() if "features" in roles}
    if not found:
        hint = nearest_names(options.features, list(arrays)) if options.features else f"it has {', '.join(arrays)}"
        raise UserError(f"{path} has no array of features ({hint}): name it with --features NAME.")
    return _from_arrays(path, found)


def _npy(path: Path, options: Options) -> tuple[dict[str, _Source], list[str] | None]:
    features = _load_npy(path, mapped=True)
    roles = {"features": features}
    if options.labels:
        roles["labels"] = _load_npy(Path(options.labels))
    if options.ids:
        ids = Path(options.ids)
        roles["ids"] = _load_npy(ids) if ids.suffix == ".npy" else np.array(_lines(ids))
    return _from_arrays(path, {"train": roles})


def _parquet(path: Path, options: Options) -> tuple[dict[str, _Source], list[str] | None]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError("Parquet files need pyarrow: pip install 'alfm[parquet]'.") from error
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        vectors = [field.name for field in schema if _is_vector(pa, field.type)]
        column = _column(path, "features", options.features, vectors, vectors, required=True)
        label = _column(path, "labels", options.labels, _LABELS, schema.names)
        id_column = _column(path, "ids", options.ids, _IDS, schema.names)
        split_column = _column(path, "split", options.split, _SPLIT, schema.names)
        light = [name for name in (label, id_column, split_column) if name]
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
    labels, classes = _labels(path, values[label] if label else [None] * rows)
    ids = [str(value) for value in values[id_column]] if id_column else None
    whole = _Source(rows, (dim,), reader, labels, ids)
    if split_column is None:
        return {"train": whole}, classes
    of_row = np.array([str(value) for value in values[split_column]])
    return {name: _rows_of(whole, np.flatnonzero(of_row == name)) for name in sorted(set(of_row))}, classes


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
            self._batches = self._file.iter_batches(batch_size=_BLOCK_ROWS, columns=[self._column])
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


# ---- what they share ------------------------------------------------------------------------------------------------


def _from_arrays(path: Path, found: dict[str, dict[str, np.ndarray]]) -> tuple[dict[str, _Source], list[str] | None]:
    named = {split: roles["labels"] for split, roles in found.items() if _is_text(roles.get("labels"))}
    classes = None
    if named:
        texts, classes = labels_from_values({split: [str(text) for text in column] for split, column in named.items()})
        for split, labels in texts.items():
            found[split]["labels"] = labels
    splits = {}
    for name, roles in found.items():
        features = roles["features"]
        if features.ndim not in (2, 3) or features.dtype.kind != "f" or 0 in features.shape:
            raise UserError(f"{path}: {name} has {features.dtype} features of shape {features.shape}: floats (N, D).")
        rows = len(features)
        labels = _whole_numbers(path, roles.get("labels", np.full(rows, -1)))
        ids = None if "ids" not in roles else [str(text) for text in roles["ids"].reshape(-1)]
        if len(labels) != rows or (ids is not None and len(ids) != rows):
            counts = f"{len(labels)} labels" + ("" if ids is None else f" and {len(ids)} ids")
            raise UserError(f"{path}: {name} has {rows} rows of features, {counts}.")
        splits[name] = _Source(rows, features.shape[1:], lambda a, b, x=features: x[a:b], labels, ids)
    return splits, classes


def _is_text(array: np.ndarray | None) -> bool:
    return array is not None and array.dtype.kind in "US"


def _labels(path: Path, values: Sequence[Any]) -> tuple[np.ndarray, list[str] | None]:
    """Labels of a table column: class names become numbers, nothing becomes -1."""
    if any(isinstance(value, str) for value in values):
        labels, classes = labels_from_values({"all": [None if value is None else str(value) for value in values]})
        return labels["all"], classes
    return _whole_numbers(path, np.array([-1 if value is None else value for value in values])), None


def _whole_numbers(path: Path, values: np.ndarray) -> np.ndarray:
    if values.ndim == 2 and values.shape[1] > 1:
        raise UserError(f"{path}: several labels per item are not supported (shape {values.shape}).")
    flat = values.reshape(-1)
    if flat.dtype.kind not in "iubf" or (flat.dtype.kind == "f" and not (flat == np.round(flat)).all()):
        raise UserError(f"{path}: labels must be whole numbers or names, not {flat.dtype}.")
    if flat.size and not -1 <= flat.min() <= flat.max() < MAX_CLASSES:
        raise UserError(f"{path}: labels go from {flat.min()} to {flat.max()}: 0, 1, ... are needed, -1 = unlabelled.")
    return flat.astype(np.int64)


def _role(name: str, options: Options) -> tuple[str, str | None]:
    """`train_features`, `X_test`, `labels` ... -> (split, what it is)."""
    split, stem = "train", name
    for candidate in ("train", "test", "val"):
        for cut in (name.removeprefix(f"{candidate}_"), name.removesuffix(f"_{candidate}")):
            if cut != name:
                split, stem = candidate, cut
    for kind, wanted, usual in (
        ("features", options.features, _FEATURES),
        ("labels", options.labels, _LABELS),
        ("ids", options.ids, _IDS),
    ):
        if name == wanted or stem == wanted or (wanted is None and stem in usual):
            return split, kind
    return split, None


def _column(
    path: Path, what: str, given: str | None, usual: Sequence[str], names: Sequence[str], required: bool = False
) -> str | None:
    if given is not None:
        if given not in names:
            raise UserError(f"{path} has no column {given!r} for {what}: {nearest_names(given, list(names))}")
        return given
    here = [name for name in usual if name in names]
    if required and len(here) != 1:
        found = f"several columns of vectors ({', '.join(here)})" if here else "no column of vectors"
        raise UserError(f"{path} has {found}: name one with --{what} COLUMN.")
    return here[0] if here else None


def _is_vector(pa: Any, kind: Any) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in lists) and pa.types.is_floating(kind.value_type)


def _load_npy(path: Path, mapped: bool = False) -> np.ndarray:
    try:
        # mapped first: the header's claim is checked against the file's size before memory is taken
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return array if mapped else np.array(array)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged or holds Python objects, which are not loaded ({error}).") from error


def _npz_members(path: Path) -> list[str]:
    """Names of the arrays in an archive whose headers agree with their sizes; nothing is allocated to find out."""
    names = []
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as file:
                    version = np.lib.format.read_magic(file)
                    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                    shape, _, dtype = read[version](file)
                    claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
                    bomb = member.file_size > 1100 * member.compress_size + 4096
                    if dtype.hasobject or bomb or claimed > member.file_size:
                        raise ValueError(f"{member.filename} claims {claimed} bytes of {dtype}")
                names.append(member.filename.removesuffix(".npy"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged or holds Python objects, which are not loaded ({error}).") from error
    return names


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text, one id per line ({error}).") from error
