"""Finalising: all parts into one cache file, streaming, one part in memory at a time, and one rename at the end."""

from __future__ import annotations

import errno
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alfm.cache.parts import PartsFolder, part_is_whole, read_part
from alfm.cache.writer import CacheWriter, cannot_write
from alfm.errors import UserError


@dataclass
class Merged:
    """What came out: rows and skipped items per split, and things worth knowing."""

    rows: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, list[list[str]]] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    on_cpu: Counter[str] = field(default_factory=Counter)
    """See `Part.on_cpu`."""


def expected_parts(manifest: dict[str, Any]) -> list[tuple[str, int, int]]:
    """(split, start, stop) of every part of a manifest, by part index."""
    settings = manifest["settings"]
    size = settings["part_size"]
    return [
        (name, start, min(start + size, rows)) for name, rows in settings["splits"] for start in range(0, rows, size)
    ]


def merge(folder: PartsFolder, besides: Mapping[str, Any] | None = None) -> Merged:
    """Write the cache from its finished parts and remove their folder; interrupted, it can simply be begun again.

    `besides`: attributes that a manifest of an earlier version may lack. Items of parts of earlier versions have no
    mark. Raises `UserError` when parts are missing or damaged, when nothing could be read, or when the disk is full.
    """
    manifest = folder.read_manifest()
    if manifest is None:
        raise UserError(f"{folder.path} has no manifest: there is nothing to merge.")
    parts = expected_parts(manifest)
    missing = sorted(set(range(len(parts))) - folder.done())
    if missing:
        shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        raise UserError(
            f"{len(missing)} of {len(parts)} parts of {folder.target} are missing ({shown}): run the extraction again."
        )
    needed = sum(folder.part_path(index).stat().st_size for index in range(len(parts)))
    if shutil.disk_usage(folder.path).free < needed:  # said now, in place of HDF5's own words in the middle of it
        raise cannot_write(folder.target, OSError(errno.ENOSPC, "No space left on device"))
    merged = Merged()
    shapes: dict[str, list[int]] = {}
    dtype: Any = None
    marked: set[str] = set()
    for index, (split, _, _) in enumerate(parts):
        tail = read_part(folder.part_path(index), with_features=False)
        merged.rows[split] = merged.rows.get(split, 0) + len(tail.labels)
        merged.skipped.setdefault(split, []).extend(tail.skipped)
        merged.events.extend(tail.events)
        merged.on_cpu.update(tail.on_cpu)
        marked |= {split} if tail.marks is not None and any(tail.marks) else set()
        if len(tail.labels):
            shape = list(tail.features.shape[1:])
            dtype = tail.features.dtype
            if shapes.setdefault(split, shape) != shape:
                raise UserError(f"Part {index} has features of shape {shape} after {shapes[split]}: start over.")
    if not shapes:
        first = next((pair for pairs in merged.skipped.values() for pair in pairs), ["?", "the data set is empty"])
        raise UserError(f"No item could be read, the first being {first[0]}: {first[1]}")
    some = next(iter(shapes.values()))
    attributes = {**(besides or {}), **manifest["attributes"]} | {
        "run": manifest["run"],
        "num_skipped": sum(map(len, merged.skipped.values())),
        "num_events": len(merged.events),
        "events": merged.events[:20],
        **({"decoded_on_cpu": dict(merged.on_cpu)} if merged.on_cpu else {}),
    }
    # a temporary file inside the folder goes away with it, whoever left it there
    with CacheWriter(folder.target, attributes, folder.path / f"merged.{uuid.uuid4().hex[:12]}.tmp") as writer:
        for split, rows in merged.rows.items():
            writer.add_split(split, rows, shapes.get(split, some), dtype, has_marks=split in marked)
            writer.list_skipped(split, merged.skipped[split])
        for index, (split, _, _) in enumerate(parts):
            path: Path = folder.part_path(index)
            part = read_part(path)
            if not part_is_whole(part):
                raise UserError(f"{path} is damaged: delete that file and run the extraction again.")
            writer.append(split, part.features, part.labels, part.ids, part.checksum, part.marks)
        writer.finish()
    folder.remove()
    return merged
