"""The file that HDF5 writes into: it never fails, and remembers that it should have.

HDF5 does not survive a write that fails (a full disk): every later call prints errors, and closing may end in a
segmentation fault. So HDF5 is told that all is well, and whoever drives it asks for `error` afterwards.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any


class Sink(io.RawIOBase):
    """A new file at `path`, as h5py's `fileobj` driver takes it. After the first `error` nothing more is written."""

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
        self._at = 0
        self._end = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file, but the end is where it would be had everything been written."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        """Bytes from the start."""
        return self._at

    def write(self, data: Any) -> int:
        """All of `data`, a buffer, or an `error`."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self.error is None and len(rest):
                os.lseek(self._handle, self._at + size - len(rest), os.SEEK_SET)
                rest = rest[os.write(self._handle, rest) :]
        except OSError as error:
            self.error = error
        self._at += size
        self._end = max(self._end, self._at)
        return size

    def readinto(self, buffer: Any) -> int:
        """What was written before; zeros for what could not be."""
        target = memoryview(buffer).cast("B")
        target[:] = bytes(len(target))
        os.lseek(self._handle, self._at, os.SEEK_SET)
        got = os.read(self._handle, len(target))
        target[: len(got)] = got
        self._at += len(target)
        return len(target)

    def truncate(self, size: int | None = None) -> int:
        """Set the length."""
        size = self._at if size is None else size
        try:
            if self.error is None:
                os.truncate(self._handle, size)
        except OSError as error:
            self.error = error
        self._end = size
        return size

    def flush(self) -> None:
        """Nothing is held back."""

    def sync(self) -> None:
        """Make it durable."""
        try:
            os.fsync(self._handle)
        except OSError as error:
            self.error = self.error or error

    def close(self) -> None:
        """May be called again."""
        if not self.closed:
            os.close(self._handle)
        super().close()
