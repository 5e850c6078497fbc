"""`.npz` archives and `.npy` files. Nothing is unpickled, and no header is believed before memory is taken."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alfm.cache.sources.arrays import Array, source_of
from alfm.cache.sources.base import Options, Source
from alfm.cache.sources.columns import read_column
from alfm.cache.sources.npy import load_npy
from alfm.errors import UserError

_MOST_COMPRESSION = 1100
_OBJECTS = "holds Python objects, which are not loaded: save it as numbers or texts, e.g. np.array(list(x), dtype=str)"


def read_npz(path: Path, options: Options) -> Source:
    """Arrays by name; only those that are used are read."""
    return source_of(path, _members(path), options, None)


def read_npy(path: Path, options: Options) -> Source:
    """One array of features, and the files of labels, ids and splits that options name."""
    if options.features is not None:
        raise UserError(f"{path} holds one array: leave --features away.")
    features = load_npy(path)
    arrays = {"features": _array(features, lambda start, stop: features[start:stop])}
    rows = len(features) if features.ndim else 0
    for what in ("labels", "ids", "split"):
        if (given := getattr(options, what)) is not None:
            values = np.asarray(read_column(given, what, rows, options.encoding))
            arrays[what] = _array(values)
    taken = Options(test_fraction=options.test_fraction, unlabelled=options.unlabelled)
    return source_of(path, arrays, taken, None)


def _array(values: np.ndarray, read: Any = None) -> Array:
    return Array(values.shape, values.dtype, lambda: values, read)


def _members(path: Path) -> dict[str, Array]:
    """The arrays of an archive whose headers agree with their sizes; nothing is allocated to find out."""
    arrays: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as file:
                    version = np.lib.format.read_magic(file)
                    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                    shape, _, dtype = read[version](file)
                claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
                bomb = member.file_size > _MOST_COMPRESSION * member.compress_size + 4096
                name = member.filename.removesuffix(".npy")
                if dtype.hasobject:
                    arrays[name] = Array(shape, dtype, lambda: None, problem=_OBJECTS)
                    continue
                if bomb or claimed > member.file_size:
                    raise ValueError(f"{member.filename} claims {claimed} bytes of {dtype}")
                arrays[name] = Array(shape, dtype, partial(_member, path, name))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged or no archive of arrays ({error}).") from error
    return arrays


def _member(path: Path, name: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive[name]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zipfile.error) as error:
        raise UserError(f"{path}: {name} is damaged ({error}).") from error
