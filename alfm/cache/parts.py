"""Parts: the unit of work, of resuming, and of sharing work between processes and hosts.

Beside the cache to be made, `<cache>.parts/` holds

    manifest.json           what everyone must agree on; created once, by whoever comes first
    part-000012.part        a finished part; it is there whole or not at all (written aside, synced, renamed)
    computed-<owner>.log    one line per part that this worker computed
    given-up.txt            why the run stopped, when its settings were the reason: other settings start over then
    workers/, claims/       who works here on what: see `alfm.cache.claims`
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from alfm.cache.claims import Claims, link
from alfm.cache.layout import checksum, sync_folder
from alfm.errors import UserError

_MAGIC = b"ALFMPART"


# ---- one part ---------------------------------------------------------------------------------------------------


@dataclass
class Part:
    """A finished part read back. `features` (n, ...), `labels` int64 (n,), n ids, n marks (None in parts of earlier
    versions); items that were left out."""

    features: np.ndarray
    labels: np.ndarray
    ids: list[str]
    skipped: list[list[str]]
    events: list[str]
    checksum: str
    marks: list[str] | None = None
    on_cpu: dict[str, int] = field(default_factory=dict)
    """Images that were decoded on the CPU though a GPU decodes, counted by what they are."""


class PartWriter:
    """Streams the features of one part to disk, so that a worker never holds a whole part in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
        self._file: BinaryIO = self._temporary.open("wb")
        self._digest = blake2b(digest_size=16)
        self._shape: list[int] | None = None
        self._dtype = np.dtype("float16")
        self._labels: list[np.ndarray] = []
        self._ids: list[str] = []
        self._marks: list[str] = []
        self._skipped: list[Sequence[str]] = []
        self._events: list[str] = []
        self._on_cpu: Counter[str] = Counter()

    def append(
        self, features: np.ndarray, labels: np.ndarray, ids: Sequence[str], marks: Sequence[str] | None = None
    ) -> None:
        """Add a batch: features (b, ...) of one shape and dtype throughout, labels (b,), b ids, b marks."""
        if len(features):
            stored = np.ascontiguousarray(features, dtype=features.dtype.newbyteorder("<"))
            if self._shape is not None and list(stored.shape[1:]) != self._shape:
                raise UserError(f"The model gave features of shape {stored.shape[1:]} after {tuple(self._shape)}.")
            self._shape, self._dtype = list(stored.shape[1:]), stored.dtype
            raw = stored.view(np.uint8).data
            self._file.write(raw)
            self._digest.update(raw)
        self._labels.append(np.asarray(labels, dtype="<i8"))
        self._ids.extend(ids)
        self._marks.extend(marks if marks is not None else [""] * len(ids))

    def note(self, skipped: Iterable[Sequence[str]] = (), events: Iterable[str] = ()) -> None:
        """Items left out, as (id, reason), and things worth knowing (a retry in smaller pieces)."""
        self._skipped.extend(skipped)
        self._events.extend(events)

    def count_on_cpu(self, images: Mapping[str, int]) -> None:
        """See `Part.on_cpu`."""
        self._on_cpu.update(images)

    def finish(self) -> None:
        """Write labels and tail, sync, and rename into place."""
        labels = np.concatenate(self._labels) if self._labels else np.empty(0, "<i8")
        self._digest.update(labels.tobytes())
        for text in self._ids:
            self._digest.update(text.encode("utf-8") + b"\0")
        tail = json.dumps(
            {
                "rows": len(labels),
                "shape": self._shape,
                "dtype": self._dtype.str,
                "ids": self._ids,
                "marks": self._marks,
                "skipped": self._skipped,
                "events": self._events,
                "checksum": self._digest.hexdigest(),
                **({"on_cpu": dict(self._on_cpu)} if self._on_cpu else {}),
            }
        ).encode()
        self._file.write(labels.tobytes())
        self._file.write(tail)
        self._file.write(blake2b(tail, digest_size=16).digest() + len(tail).to_bytes(8, "little") + _MAGIC)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._path)
        sync_folder(self._path.parent)

    def abort(self) -> None:
        """Remove what was written so far."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()


def read_part(path: Path, with_features: bool = True) -> Part:
    """Read a finished part back. `UserError` when it is truncated or damaged (features: see `Part.checksum`)."""
    damaged = UserError(f"{path} is damaged: delete that file and run the extraction again, it makes only this part.")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 32:
            raise damaged
        file.seek(size - 32)
        end = file.read(32)
        length = int.from_bytes(end[16:24], "little")
        if end[24:] != _MAGIC or length > size - 32:
            raise damaged
        file.seek(size - 32 - length)
        raw = file.read(length)
        if blake2b(raw, digest_size=16).digest() != end[:16]:
            raise damaged
        tail = json.loads(raw)
        rows, shape, dtype = tail["rows"], tail["shape"] or [], np.dtype(tail["dtype"])
        count = rows * int(np.prod(shape)) if rows else 0
        if count * dtype.itemsize + rows * 8 != size - 32 - length:
            raise damaged
        file.seek(0)
        features = np.empty((0, *shape), dtype)
        if with_features and rows:
            features = np.fromfile(file, dtype, count).reshape(rows, *shape)
        file.seek(count * dtype.itemsize)
        labels = np.fromfile(file, "<i8", rows)
    return Part(
        features, labels, tail["ids"], tail["skipped"], tail["events"], tail["checksum"], tail.get("marks"),
        tail.get("on_cpu", {}),
    )  # fmt: skip


def part_is_whole(part: Part) -> bool:
    """Whether features, labels and ids still have the checksum they were written with."""
    return checksum(part.features, part.labels, part.ids) == part.checksum


# ---- the folder they share ------------------------------------------------------------------------------------------


class PartsFolder:
    """The parts of one cache, as one worker sees them. Leaving the `with` gives all its claims back."""

    def __init__(self, target: Path, lease: float = 120.0) -> None:
        self.target = target
        self.path = parts_path(target)
        self.claims = Claims(self.path, lease)
        self._mine: set[int] = set()

    def read_manifest(self) -> dict[str, Any] | None:
        """What a run here was begun with, or None."""
        try:
            return json.loads((self.path / "manifest.json").read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UserError(f"{self.path}/manifest.json is damaged: start over with force=true.") from error

    def create_manifest(self, manifest: dict[str, Any]) -> bool:
        """Write the manifest unless there is one already; False when somebody else was first."""
        for folder in (self.path, self.path / "workers", self.path / "claims"):
            folder.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f"manifest.{uuid.uuid4().hex[:12]}.tmp"
        try:
            with temporary.open("w") as file:
                json.dump(manifest, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            return link(temporary, self.path / "manifest.json")
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the folder. It vanishes in one rename, so that nobody sees half of it."""
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex[:12]}.gone"))
        self.tidy()

    def tidy(self, finished: str | None = None) -> None:
        """Remove what a worker killed while removing left, and the folder itself if it is that of run `finished`."""
        manifest = self.read_manifest()
        if manifest is not None and manifest["run"] == finished and not self.claims.live_workers():
            self.remove()
        for gone in self.path.parent.glob(f"{glob.escape(self.path.name)}.*.gone"):
            shutil.rmtree(gone, ignore_errors=True)

    def give_up(self, why: str) -> None:
        """Note that the run stopped at a mistake in its settings: the same command would stop there again."""
        with contextlib.suppress(OSError):
            (self.path / "given-up.txt").write_text(why)

    def given_up(self) -> bool:
        """Whether the run has stopped like that."""
        return (self.path / "given-up.txt").exists()

    def go_on(self) -> None:
        """Forget `give_up`: the same command is tried again."""
        (self.path / "given-up.txt").unlink(missing_ok=True)

    def part_path(self, index: int) -> Path:
        """Where part `index` is, once it is done."""
        return self.path / f"part-{index:06d}.part"

    def done(self) -> set[int]:
        """Indices of finished parts. `FileNotFoundError` when the folder is gone: somebody finalised it."""
        names = os.listdir(self.path)
        return {int(name[5:-5]) for name in names if name.startswith("part-") and name.endswith(".part")}

    def finished_by_another(self) -> bool:
        """Whether somebody put the cache together and removed this folder, perhaps while we were at work in it."""
        return self.target.exists() and not (self.path / "manifest.json").exists()

    def claim_first(self, indices: Iterable[int]) -> int | None:
        """Claim the first of `indices` that is neither done nor owned by somebody alive; None when there is none."""
        done, newest = self.done(), self.claims.newest()
        for index in indices:
            key = f"{index:06d}"
            if index in done or index in self._mine or (key in newest and self.claims.held(key, newest[key])):
                continue
            # its last owner may have finished it between our look and our claim
            if self.claims.claim(key) and not self.part_path(index).exists():
                self._mine.add(index)
                return index
        return None

    def count_computed(self, index: int) -> None:
        """Note that this worker computed part `index`, for whoever wants to count."""
        with contextlib.suppress(OSError), (self.path / f"computed-{self.claims.owner}.log").open("a") as file:
            file.write(f"{index}\n")

    def computed(self) -> list[int]:
        """Part indices as they were computed, by any worker, duplicates included."""
        lines = (log.read_text().split() for log in sorted(self.path.glob("computed-*.log")))
        return [int(index) for line in lines for index in line]

    def __enter__(self) -> PartsFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.claims.close()


def parts_path(target: Path) -> Path:
    """The folder of parts that belongs to a cache file."""
    return target.with_name(target.name + ".parts")
