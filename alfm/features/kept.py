"""The memo of what is derived from features: in memory, and what all pairs paid for beside the cache."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from alfm.files import replacing
from alfm.version import __version__

_FORMAT = 1
T = TypeVar("T")


class Kept:
    """What is derived from one set of features alone: norms, graphs, radii, axes; each is made once.

    cache: where there is one, arrays are kept for the next run too, in `<model>.geometry/` beside `<model>.h5`: one
    `.npz` of plain arrays for every question that was asked. features: what the answers are about (fingerprint of the
    cache, rows, device). Answers of other features, or of another version of this package, are not found. A file that
    is damaged is as good as none; one that cannot be written costs a warning, since the answer is at hand. Delete the
    folder whenever you like.
    """

    def __init__(self, cache: Path | None = None, features: str = "") -> None:
        self.folder = None if cache is None else cache.with_suffix(".geometry")
        self.features = features
        self._made: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, made when it is first asked for; key: all that decides it, beside the features."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def arrays(self, question: str, make: Callable[[], Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
        """Named arrays: read, or made and written by one rename; as made where there is no folder, and not held.

        question: all that decides them, beside the features.
        """
        if self.folder is None:
            return make()
        key = json.dumps([_FORMAT, __version__, self.features, question])
        name = re.sub(r"\W+", "-", question)[:60] + "-" + hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
        file = self.folder / f"{name}.npz"
        found = _read(file, key)
        if found is None:
            found = dict(make())
            _write(file, key, found)
        return found


GeometryFolder = Kept  # its name while it kept arrays only


def _read(file: Path, key: str) -> dict[str, np.ndarray] | None:
    try:
        with np.load(file, allow_pickle=False) as stored:
            if str(stored["question"]) != key:
                return None
            return {name: stored[name] for name in stored.files if name != "question"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _write(file: Path, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    try:
        file.parent.mkdir(exist_ok=True)
        with replacing(file) as handle:
            named: dict[str, Any] = {"question": np.array(key), **arrays}
            np.savez(handle, **named)
    except OSError as error:
        reason = error.strerror or error
        warnings.warn(f"keep_geometry: cannot write {file} ({reason}); going on without it.", stacklevel=2)
