"""Look a cache over, byte by byte: flipped bits, truncation, NaN, missing or damaged parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from alfm.cache.layout import (
    FORMAT,
    METADATA_CHECKSUM,
    REQUIRED_ATTRIBUTES,
    checksum,
    marks_checksum,
    metadata_checksum,
    rows_not_finite,
)
from alfm.cache.merge import expected_parts
from alfm.cache.parts import PartsFolder, part_is_whole, parts_path, read_part
from alfm.cache.reader import FeatureCache, open_cache
from alfm.errors import UserError

_BLOCK_ROWS = 4096


@dataclass
class Verdict:
    """`problems` is empty for a sound cache; `checked` says what was looked at."""

    problems: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)


def verify(path: Path) -> Verdict:
    """Check a cache file (ours against its checksums, a foreign one for what can be known) or a folder of parts.

    Problems of the content are collected, not raised; `UserError` when there is nothing at `path`.
    """
    folder = path if path.name.endswith(".parts") else parts_path(path)
    if folder.is_dir() and not path.is_file():
        return _verify_parts(folder)
    verdict = Verdict()
    if not path.is_file():
        raise UserError(f"There is no cache {path}, nor parts of one.")
    try:
        cache = open_cache(path, unlabelled=None)
        ours = cache.attributes.get("format") == FORMAT
        if ours:
            absent = [name for name in REQUIRED_ATTRIBUTES if name not in cache.attributes]
            verdict.problems += [f"the attribute {name} is missing" for name in absent]
            with cache.file() as file:
                if metadata_checksum(file) != cache.attributes.get(METADATA_CHECKSUM):
                    verdict.problems.append("the attributes do not match their checksum")
        for split in cache.splits:
            verdict.problems += _verify_split(cache, split, ours)
            what = "checksums" if ours else "shapes and values, it has no checksums"
            verdict.checked.append(f"{split}: {cache.num_rows(split)} rows ({what})")
    except UserError as error:
        verdict.problems.append(str(error))
    return verdict


def _verify_split(cache: FeatureCache, split: str, ours: bool) -> list[str]:
    rows, labels = cache.num_rows(split), cache.stored_labels(split)
    stops, sums = _checksums(cache, split) if ours else (None, None)
    if stops is None or sums is None:
        problems = [f"{split}: the checksums are missing"] if ours else []
        stops, sums = [*range(_BLOCK_ROWS, rows, _BLOCK_ROWS), rows], None
    else:
        problems = []
        if (stops[-1] if stops else 0) != rows or any(a > b for a, b in zip(stops, stops[1:], strict=False)):
            problems.append(f"{split}: parts end at row {stops[-1] if stops else 0} of {rows}: some are missing")
            return problems
        if len(sums) != len(stops):
            return [f"{split}: {len(sums)} checksums for {len(stops)} parts"]
    ids = cache.ids(split) if ours else None
    marks, mark_sums = cache.marks(split), _mark_checksums(cache, split) if sums is not None else None
    if marks is not None and (mark_sums is None or len(mark_sums) != len(stops)):
        problems.append(f"{split}: the checksums of the marks are missing")
        mark_sums = None
    start = 0
    for part, stop in enumerate(stops):
        where = f"{split}: part {part}, rows {start} to {stop - 1}"
        for low in range(start, stop, _BLOCK_ROWS) if sums is None else [start]:
            high = min(low + _BLOCK_ROWS, stop) if sums is None else stop
            block = _raw_rows(cache, split, low, high)
            bad = rows_not_finite(block)
            if bad.any():
                problems.append(f"{where}: NaN or Inf, first in row {low + int(bad.argmax())}")
            if sums is not None:
                part_ids = None if ids is None else ids[low:high]
                if checksum(block, labels[low:high], part_ids) != sums[part]:
                    problems.append(f"{where}: the content does not match its checksum")
        if marks is not None and mark_sums is not None and marks_checksum(marks[start:stop]) != mark_sums[part]:
            problems.append(f"{where}: the marks of the items do not match their checksum")
        start = stop
    return problems


def _raw_rows(cache: FeatureCache, split: str, low: int, high: int) -> np.ndarray:
    """Features as stored, NaN and all: (b, D), or (b, V, D) where there are views."""
    with cache.file() as file:
        block = file[split]["features"][low:high]
    return block.astype(block.dtype.newbyteorder("="), copy=False)


def _checksums(cache: FeatureCache, split: str) -> tuple[list[int] | None, list[str] | None]:
    with cache.file() as file:
        group = file[split]
        if not all(isinstance(group.get(name), h5py.Dataset) for name in ("part_stops", "checksums")):
            return None, None
        sums = [text.decode("ascii", "replace") for text in group["checksums"][:].astype("S").tolist()]
        return group["part_stops"][:].tolist(), sums


def _mark_checksums(cache: FeatureCache, split: str) -> list[str] | None:
    with cache.file() as file:
        found = file[split].get("mark_checksums")
        if not isinstance(found, h5py.Dataset):
            return None
        return [text.decode("ascii", "replace") for text in found[:].astype("S").tolist()]


def _verify_parts(folder: Path) -> Verdict:
    target = folder.with_name(folder.name.removesuffix(".parts"))
    parts = PartsFolder(target)
    manifest = parts.read_manifest()
    verdict = Verdict()
    if manifest is None:
        verdict.problems.append(f"{folder} has no manifest")
        return verdict
    expected = expected_parts(manifest)
    missing = sorted(set(range(len(expected))) - parts.done())
    if missing:
        shown = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
        verdict.problems.append(f"{len(missing)} of {len(expected)} parts are missing: {shown}")
    verdict.problems += list(_damaged_parts(parts))
    verdict.checked.append(f"{len(parts.done())} parts of an unfinished extraction")
    return verdict


def _damaged_parts(parts: PartsFolder) -> Iterator[str]:
    for index in sorted(parts.done()):
        try:
            part = read_part(parts.part_path(index))
        except UserError as error:
            yield str(error)
            continue
        if not part_is_whole(part):
            yield f"part {index}: the content does not match its checksum"
        elif len(part.features) and rows_not_finite(part.features).any():
            yield f"part {index}: NaN or Inf"
