"""A cache's checksums are looked at once: what was found whole is remembered until the file changes.

In LOG_DIR, not beside the cache, which may be read-only or shared: `.checked/<name>-<hash of the path>.json`, one small
file per cache and written by one rename, so processes do not disturb each other. Delete the folder to check again.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from alfm.cache.layout import FORMAT
from alfm.cache.reader import FeatureCache
from alfm.cache.verify import verify
from alfm.commands import command
from alfm.errors import UserError
from alfm.files import replacing

_CHECKS = 1
"""Raised when `verify` learns to look at more."""

Stamp = tuple[int, int, int, int]
_whole: dict[Path, Stamp] = {}
"""What this process has found whole."""


def check_once(cache: FeatureCache, logs: Path) -> None:
    """Verify a cache unless that was done since it last changed, by this process or according to `logs`.

    Caches from elsewhere have no checksums, so there is nothing to check beyond what reading them does: shapes, labels
    and, whenever features are read, NaN and Inf. Raises UserError for a damaged cache.
    """
    if cache.attributes.get("format") != FORMAT:
        return
    path = cache.path.resolve()
    if not path.exists():
        raise UserError(f"There is no feature cache {path} any more: make it again with python -m alfm.extract.")
    stamp = _stamp(path)
    if _whole.get(path) == stamp or _noted(_note(path, logs)) == stamp:
        _whole[path] = stamp
        return
    problems = verify(path).problems
    if problems:
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        look = command("cache", "verify", str(path))
        raise UserError(f"{path} is damaged: {problems[0]}{others}; make it again, or see with {look}.")
    _whole[path] = stamp
    if logs.is_dir():
        remember(cache, logs)


def remember(cache: FeatureCache, logs: Path) -> None:
    """Note in `logs`, for later processes, that this one has found the cache whole; nothing if it has not."""
    path = cache.path.resolve()
    note, stamp = _note(path, logs), _whole.get(path)
    if stamp is None or _noted(note) == stamp:
        return
    with suppress(OSError):  # it costs the next process a second look, no more
        note.parent.mkdir(parents=True, exist_ok=True)
        with replacing(note) as handle:
            handle.write(json.dumps({"cache": str(path), "stamp": stamp}).encode())


def _stamp(path: Path) -> Stamp:
    """Changes whenever the file does, also when it is replaced by one of the same size and modification time."""
    found = path.stat()
    return (_CHECKS, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _note(path: Path, logs: Path) -> Path:
    digest = hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()
    return logs / ".checked" / f"{path.stem[:60]}-{digest}.json"


def _noted(note: Path) -> Stamp | None:
    try:
        stamp = json.loads(note.read_text())["stamp"]
        return tuple(stamp)
    except (OSError, ValueError, KeyError, TypeError):
        return None
