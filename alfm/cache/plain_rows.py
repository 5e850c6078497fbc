"""Scattered rows of an HDF5 dataset, read where they lie in the file.

HDF5 is slow at each place that a program asks for, or reads a whole chunk for one row. Rows without filters
lie in the file as they are in memory, so the system can be asked for them directly.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np


@dataclass(frozen=True)
class PlainRows:
    """starts int64: where in the file each chunk of so many `rows` begins; a row is `width` numbers of `dtype`."""

    path: Path
    starts: np.ndarray
    rows: int
    width: int
    dtype: np.dtype

    def scattered(self, rows: np.ndarray) -> bool:
        """Would HDF5 need many reads for these rows int64 (n,), ascending?"""
        return bool((np.diff(rows) > 64).sum() > 64)

    def read(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Rows int64 (n,), ascending and distinct -> (n, width), in `out` if given. OSError where the file is short."""
        size = self.width * self.dtype.itemsize
        out = np.empty((len(rows), self.width), self.dtype) if out is None else out
        raw = out.data.cast("B")
        chunk, place = np.divmod(rows, self.rows)
        offsets = self.starts[chunk] + place * size
        cuts = np.flatnonzero(np.diff(offsets) != size) + 1
        handle = os.open(self.path, os.O_RDONLY)
        try:
            for first, last in zip([0, *cuts.tolist()], [*cuts.tolist(), len(rows)], strict=True):
                part = raw[first * size : last * size]
                if os.preadv(handle, [part], int(offsets[first])) != len(part):
                    raise OSError(f"rows {rows[first]} to {rows[last - 1]} are not all there")
        finally:
            os.close(handle)
        return out


def plain_rows(dataset: h5py.Dataset, path: Path) -> PlainRows | None:
    """How to read a dataset's rows (N, D) directly; None where that cannot be: filters, other shapes."""
    native = dataset.dtype.newbyteorder("=") == dataset.dtype
    if not hasattr(os, "preadv") or not native or dataset.ndim != 2 or not len(dataset):
        return None
    rows, width = dataset.shape
    if dataset.chunks is None:
        start = dataset.id.get_offset()
        return None if start is None else PlainRows(path, np.array([start]), rows, width, dataset.dtype)
    if dataset.id.get_create_plist().get_nfilters() or dataset.chunks[1] != width:
        return None
    if not hasattr(dataset.id, "chunk_iter"):  # before HDF5 1.12.3
        return None
    starts = np.full(-(-rows // dataset.chunks[0]), -1, dtype=np.int64)

    def place(chunk: Any) -> None:
        starts[chunk.chunk_offset[0] // dataset.chunks[0]] = chunk.byte_offset

    dataset.id.chunk_iter(place)
    return None if (starts < 0).any() else PlainRows(path, starts, dataset.chunks[0], width, dataset.dtype)
