"""What people did, act by act: a file of JSON lines that only grows, and from which everything else follows.

Every act is on the disk before whoever did it hears so. Several processes may write one file: each takes the file's
lock, reads what the others wrote, and appends. A last line that a crash tore is no act.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from alfm.errors import UserError
from alfm.labelling import strict_json

Act = dict[str, Any]
FILE = "journal.jsonl"
_TAIL = 256
"""Bytes that are looked at again, to see that a file is still the one that was read."""


class Journal:
    """The acts in `folder`/journal.jsonl. Whoever uses it from several threads holds a lock of its own."""

    def __init__(self, folder: Path | str) -> None:
        """Makes the folder and an empty file where there is none. Raises UserError."""
        self.folder = Path(folder)
        self.path = self.folder / FILE
        self._read_to = self._lines = 0
        self._tail = b""
        try:
            if not self.path.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o666))
                for folder_ in (self.folder, self.folder.absolute().parent):
                    _sync_folder(folder_)
            self._inode = self.path.stat().st_ino
        except OSError as error:
            raise UserError(f"{self.folder} cannot hold a labelling state ({error.strerror}): name another.") from error

    @staticmethod
    def there(folder: Path | str) -> bool:
        """Does this folder hold acts? A first one that was torn is none."""
        try:
            with (Path(folder) / FILE).open("rb") as file:
                first = file.readline()
                return first.endswith(b"\n") or _act(first) is not None
        except OSError:
            return False

    def news(self) -> list[tuple[int, Act]]:
        """Acts that were not read before, each with the number of its line. Raises UserError for a broken line."""
        with self._open(os.O_RDONLY, fcntl.LOCK_SH) as file:
            return self._news(file)

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Nobody else writes for as long as the block lasts; it begins with what others have written since."""
        with self._open(os.O_RDWR | os.O_APPEND, fcntl.LOCK_EX) as file:
            yield Writer(self, file, self._news(file))

    @contextmanager
    def _open(self, how: int, lock: int) -> Iterator[int]:
        try:
            file = os.open(self.path, how)
        except PermissionError as error:
            what = "read" if how == os.O_RDONLY else "written"
            raise UserError(f"{self.path} may not be {what}: {error.strerror}.") from error
        except OSError as error:
            raise UserError(f"{self.path} is gone ({error.strerror}): put it back, or load the state again.") from error
        try:
            try:
                fcntl.flock(file, lock)
            except OSError as error:
                raise UserError(
                    f"{self.path} cannot be locked ({error.strerror}), so two who write could destroy each other's "
                    "work: keep it on a disk of this machine."
                ) from error
            yield file
        finally:
            os.close(file)

    def _news(self, file: int) -> list[tuple[int, Act]]:
        stat = os.fstat(file)
        known = _read(file, self._read_to - len(self._tail), self._read_to)
        if stat.st_size < self._read_to or stat.st_ino != self._inode or known != self._tail:
            raise UserError(f"{self.path} was replaced or cut while it was in use: load the state again.")
        text = _read(file, self._read_to, stat.st_size)
        lines = text.split(b"\n")
        whole, rest = lines[:-1], lines[-1]
        found = []
        for index, line in enumerate(whole):
            number = self._lines + index + 1
            if not line.strip():
                continue
            act = _act(line)
            if act is None:
                if index == len(whole) - 1 and not rest.strip():  # torn: never acknowledged
                    whole = whole[:-1]
                    break
                raise UserError(
                    f"Line {number} of {self.path} is no act: put the line right, or take it out with the loss of that "
                    "act."
                )
            found.append((number, act))
        self._lines += len(whole)
        self._read_to += sum(len(line) + 1 for line in whole)
        if rest.strip() and (act := _act(rest)) is not None:  # whole, but for its end of line: an editor's work
            found.append((self._lines + 1, act))
            self._read_to += len(rest)
        self._tail = _read(file, max(0, self._read_to - _TAIL), self._read_to)
        return found

    def _append(self, file: int, acts: Sequence[Act]) -> None:
        before = os.fstat(file).st_size
        try:
            if before > self._read_to:
                os.ftruncate(file, self._read_to)  # what is torn
                before = self._read_to
            ended = not before or os.pread(file, 1, before - 1) == b"\n"
            text = (b"" if ended else b"\n") + b"".join(_line(act) for act in acts)
            _write(file, text)
            os.fsync(file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(file, before)
                os.fsync(file)
            raise UserError(
                f"{self.path} cannot be written ({error.strerror}), so nothing was recorded: make room, then say it "
                "again."
            ) from error
        self._read_to, self._tail = before + len(text), text[-_TAIL:]
        self._lines += text.count(b"\n")


class Writer:
    """The pen, while it is held. others: what was written since this journal was last read."""

    def __init__(self, journal: Journal, file: int, others: list[tuple[int, Act]]) -> None:
        self._journal, self._file, self.others = journal, file, others

    def write(self, acts: Sequence[Act]) -> None:
        """In one piece, on the disk when this returns. Raises UserError, and then nothing was written."""
        if acts:
            self._journal._append(self._file, acts)


def _line(act: Act) -> bytes:
    try:
        return json.dumps(act, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a character, as file names may hold
        return json.dumps(act).encode() + b"\n"


def _act(line: bytes) -> Act | None:
    try:
        act = strict_json.loads(line)
    except (ValueError, RecursionError):
        return None
    return act if isinstance(act, dict) else None


def _read(file: int, start: int, stop: int) -> bytes:
    pieces = []
    while start < stop and (piece := os.pread(file, stop - start, start)):
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)


def _write(file: int, text: bytes) -> None:
    while text:
        text = text[os.write(file, text) :]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # file systems without
        pass
    finally:
        os.close(handle)
