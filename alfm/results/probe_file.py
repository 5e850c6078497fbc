"""`probe.json` beside a cache's runs: what all labels of its pool reach, the ceiling of every curve on it.

<LOG_DIR>/<dataset>/<model>/probe.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from alfm.errors import UserError
from alfm.files import replacing

FILE = "probe.json"
FORMAT = 1


@dataclass(frozen=True)
class Probe:
    """What `python -m alfm.probe` found out about one cache.

    cache_fingerprint: the cache's; splits: as in a run's config; classifier: the head's config; labels: how many of the
    pool's `items` it was fitted on; how: the same in words; head, knn: test metrics by name, knn with `k` among them;
    dim, classes, test: dimension, number of classes, test items; seconds: of the fit; version: of this package.
    """

    cache_fingerprint: str
    splits: Mapping[str, Any]
    classifier: Mapping[str, Any]
    labels: int
    items: int
    how: str
    head: Mapping[str, float]
    knn: Mapping[str, float]
    dim: int
    classes: int
    test: int
    seconds: float
    version: str


def read_probe(folder: Path | str) -> Probe | None:
    """Of the folder <LOG_DIR>/<dataset>/<model>; None where there is none. UserError for what cannot be read."""
    file = Path(folder) / FILE
    try:
        with file.open(encoding="utf-8") as text:
            stored = json.load(text)
        if stored.pop("format") != FORMAT:
            raise ValueError("its format is another version's")
        known = {one.name for one in fields(Probe)}
        return Probe(**{name: value for name, value in stored.items() if name in known})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file} cannot be read ({error}); delete it, and run python -m alfm.probe again.") from None


def keep_probe(folder: Path, probe: Probe) -> Path:
    """Write it in place of what is there; the file. UserError when that cannot be written."""
    file = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as handle:
            handle.write(json.dumps({"format": FORMAT, **asdict(probe)}, indent=1).encode())
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}; make room and run again") from None
    return file
