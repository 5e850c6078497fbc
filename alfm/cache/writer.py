"""Write one cache file: streamed in bounded memory under a temporary name, and there in a single rename."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from alfm.cache.layout import (
    FORMAT,
    FORMAT_VERSION,
    METADATA_CHECKSUM,
    checksum,
    marks_checksum,
    metadata_checksum,
    sync_folder,
)
from alfm.cache.sink import Sink
from alfm.datasets.marks import LONGEST as LONGEST_MARK
from alfm.errors import UserError

_CHUNK_BYTES = 1 << 20
# HDF5 1.10's format checksums its own metadata, so a flipped bit there is noticed when the file is opened
_LIBVER = ("v110", "v110")


class CacheWriter:
    """A cache being written. Use as a context manager: `finish` renames it into place, any other way out removes it.

    `attributes` are stored as they are (str, numbers, lists of str), anything else as JSON. Rows are given part by
    part; each part's checksum is kept in the file, so that `alfm.cache.verify` can tell which rows are damaged.
    """

    def __init__(self, path: Path, attributes: Mapping[str, Any], temporary: Path | None = None) -> None:
        self.path = path
        self._temporary = temporary or path.with_name(f"{path.name}.{os.getpid()}.tmp")
        self._splits: dict[str, _Split] = {}
        self._file: Any = None
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sink = Sink(self._temporary)
        try:
            with self._writing():
                self._file = h5py.File(self._sink, "w", libver=_LIBVER)
                self._file.attrs["format"] = FORMAT
                self._file.attrs["format_version"] = FORMAT_VERSION
                self._file.attrs["created"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                for key, value in attributes.items():
                    self._file.attrs[key] = _attribute(value)
        except BaseException:
            self.__exit__()
            raise

    def add_split(
        self,
        name: str,
        rows: int,
        item_shape: Sequence[int],
        dtype: np.dtype,
        has_ids: bool = True,
        has_marks: bool = False,
    ) -> None:
        """Announce a split of `rows` items with features of `item_shape`: (D,), or (V, D) with views."""
        row_bytes = max(1, int(np.prod(item_shape)) * np.dtype(dtype).itemsize)
        chunk = min(max(1, _CHUNK_BYTES // row_bytes), max(rows, 1))
        stored = np.dtype(dtype).newbyteorder("<")
        chunks = (chunk, *item_shape) if rows else None  # every item of a split may have been left out
        with self._writing():
            group = self._file.create_group(name)
            group.create_dataset("features", (rows, *item_shape), stored, chunks=chunks)
            group.create_dataset("labels", (rows,), "<i8")
            if has_ids:
                group.create_dataset("ids", (rows,), h5py.string_dtype())
            if has_marks:
                group.create_dataset("marks", (rows,), f"S{LONGEST_MARK}")
        self._splits[name] = _Split(group, has_ids, has_marks)

    def append(
        self,
        name: str,
        features: np.ndarray,
        labels: np.ndarray,
        ids: Sequence[str] | None,
        digest: str | None = None,
        marks: Sequence[str] | None = None,
    ) -> None:
        """Add one part: features (n, ...), labels (n,), n ids, n marks. `digest` if its checksum is already known."""
        split = self._splits[name]
        low, high = split.filled, split.filled + len(features)
        try:
            with self._writing():
                if high > low:  # all items of a part may have been left out
                    split.group["features"][low:high] = features
                    split.group["labels"][low:high] = labels
                if high > low and split.has_ids:
                    split.group["ids"][low:high] = np.array(list(ids or ()), dtype=object)
                if high > low and split.has_marks:
                    split.group["marks"][low:high] = np.array(marks or [""] * (high - low), f"S{LONGEST_MARK}")
        except ValueError as error:
            raise UserError(f"{self.path}: an id of {name} cannot be stored ({error}).") from error
        split.filled = high
        split.stops.append(high)
        split.checksums.append(digest or checksum(features, labels, ids if split.has_ids else None))
        split.mark_checksums.append(marks_checksum(marks or [""] * (high - low)))

    def list_skipped(self, name: str, skipped: Iterable[Sequence[str]]) -> None:
        """Store (id, reason) of items that were left out of a split."""
        rows = [list(pair) for pair in skipped]
        if rows:
            with self._writing():
                self._splits[name].group.create_dataset("skipped", data=rows, dtype=h5py.string_dtype())

    def finish(self) -> None:
        """Write the checksums, make the file durable, and rename it into place."""
        with self._writing():
            for name, split in self._splits.items():
                if split.filled != split.group["labels"].shape[0]:
                    raise ValueError(f"{name}: {split.filled} rows given of {split.group['labels'].shape[0]} announced")
                split.group.create_dataset("part_stops", data=np.array(split.stops, dtype="<i8"))
                split.group.create_dataset("checksums", data=np.array(split.checksums, dtype="S32"))
                if split.has_marks:
                    split.group.create_dataset("mark_checksums", data=np.array(split.mark_checksums, dtype="S32"))
            self._file.attrs[METADATA_CHECKSUM] = metadata_checksum(self._file)
            self._file.close()
            self._sink.sync()
            self._sink.close()
            self._check()
            self._temporary.replace(self.path)
            sync_folder(self.path.parent)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
            self._check()
        except (OSError, RuntimeError) as error:  # h5py reports a disk's errors as either, depending on where
            raise cannot_write(self.path, error) from error

    def _check(self) -> None:
        if self._sink.error is not None:
            raise self._sink.error

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._file:
                self._file.close()
        except (OSError, RuntimeError):
            pass  # the file is removed anyway
        finally:
            self._sink.close()
            self._temporary.unlink(missing_ok=True)


class _Split:
    def __init__(self, group: h5py.Group, has_ids: bool, has_marks: bool) -> None:
        self.group = group
        self.has_ids = has_ids
        self.has_marks = has_marks
        self.filled = 0
        self.stops: list[int] = []
        self.checksums: list[str] = []
        self.mark_checksums: list[str] = []


def cannot_write(path: Path, error: OSError | RuntimeError) -> UserError:
    """What an error while writing means, in one sentence. HDF5 has its number in the text only."""
    text = str(error)
    within = re.search(r"errno = (\d+)", text)
    number = getattr(error, "errno", None) or (int(within[1]) if within else None)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return UserError(
            f"The disk of {path.parent} is full: make room and run the same command again; parts already done are kept."
        )
    if number == errno.EFBIG:
        return UserError(f"{path} is larger than files may be here: raise the limit (ulimit -f) or use another disk.")
    if number in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR) or "Permission denied" in text:
        reason = getattr(error, "strerror", None) or "permission denied"
        return UserError(f"{path.parent} cannot be written to ({reason}): set FEATURE_CACHE_DIR to a folder that can.")
    return UserError(f"{path} could not be written ({text.splitlines()[0] if text else type(error).__name__}).")


def _attribute(value: Any) -> Any:
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        return np.array(value, dtype=h5py.string_dtype())
    if isinstance(value, str | int | float | np.generic):
        return value
    return json.dumps(value, default=str)
