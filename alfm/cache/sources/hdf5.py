"""HDF5 from anywhere: splits as groups, arrays at the root, and MATLAB 7.3, which stores them transposed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from alfm.cache.labels import fill_value
from alfm.cache.reader import check_link, checked_dataset, first_line, stored_class_names
from alfm.cache.sources.arrays import LABELS, Array, source_of
from alfm.cache.sources.base import Options, Source
from alfm.errors import UserError

_OURS = ("part_stops", "checksums", "skipped")
_REFERENCES = "holds references (a MATLAB cell or string), which are not read: store numbers, double(categorical(y))"
_RECORDS = "is a table of records, which are not read: store a column of its own"


def read_hdf5(path: Path, options: Options) -> Source:
    """Datasets at the root and in its groups, by name; features are read when they are asked for."""
    with opened(path) as file:
        class_names = stored_class_names(file, path)
        arrays = dict(_arrays(path, file))
    arrays.pop("class_names", None)
    _turn(path, arrays)
    return source_of(path, arrays, options, class_names)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The open file; what HDF5 reports as damage becomes a `UserError`."""
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, UnicodeDecodeError) as error:
        hint = "" if path.suffix.lower() != ".mat" else "; in MATLAB, save(FILE, 'X', 'y', '-v7.3') makes one"
        raise UserError(f"{path} is damaged or not HDF5 ({first_line(error)}){hint}.") from error


def _arrays(path: Path, file: h5py.File) -> Iterator[tuple[str, Array]]:
    for name in file:
        if name.startswith("#"):  # where MATLAB keeps what others refer to
            continue
        check_link(file, name)
        if isinstance(file[name], h5py.Dataset):
            yield name, _array(path, file, name)
            continue
        for leaf in file[name]:
            check_link(file[name], leaf)
            if isinstance(file[name][leaf], h5py.Dataset) and leaf not in _OURS:
                yield f"{name}/{leaf}", _array(path, file[name], leaf)


def _array(path: Path, group: h5py.Group, name: str) -> Array:
    dataset = group[name]
    if dataset.dtype.kind == "O" and h5py.check_string_dtype(dataset.dtype) is None:
        return Array(dataset.shape or (), dataset.dtype, lambda: None, problem=_REFERENCES)
    if dataset.dtype.kind == "V":
        return Array(dataset.shape or (), dataset.dtype, lambda: None, problem=_RECORDS)
    try:
        dataset = checked_dataset(group, name, path)
    except UserError as error:
        return Array(dataset.shape or (), dataset.dtype, lambda: None, problem=f"cannot be read ({error})")
    made = _stored(path, dataset.name, dataset.shape, dataset.dtype.newbyteorder("="), fill_value(dataset))
    return _turned(path, made, dataset.name) if "MATLAB_class" in dataset.attrs and dataset.ndim > 1 else made


def _stored(path: Path, whole: str, shape: tuple[int, ...], dtype: np.dtype, fill: Any) -> Array:
    def load() -> np.ndarray:
        with opened(path) as file:
            return file[whole][()]

    def read(start: int, stop: int) -> np.ndarray:
        with opened(path) as file:
            return file[whole][start:stop]

    return Array(shape, dtype, load, read, fill=fill)


def _turned(path: Path, array: Array, whole: str) -> Array:
    """The same with its axes in the opposite order: MATLAB counts the other way round."""

    def read(start: int, stop: int) -> np.ndarray:
        with opened(path) as file:
            return np.ascontiguousarray(file[whole][..., start:stop].T)

    return Array(array.shape[::-1], array.dtype, lambda: np.asarray(array.load()).T, read, fill=array.fill)


def _turn(path: Path, arrays: dict[str, Array]) -> None:
    """Vectors whose columns, not rows, are as many as the labels beside them are turned."""
    for name, array in list(arrays.items()):
        group = name.rpartition("/")[0]
        beside = [
            int(np.prod(other.shape))
            for key, other in arrays.items()
            if key.rpartition("/")[0] == group and key.rpartition("/")[2].casefold() in LABELS
        ]
        if array.is_vectors and len(beside) == 1 and array.shape[-1] == beside[0] != array.shape[0]:
            arrays[name] = _turned(path, array, "/" + name)
