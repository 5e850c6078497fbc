"""What a run is: its parts, and everything that workers must agree on, fixed before the first part is made."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from alfm.cache.merge import expected_parts
from alfm.cores import available_cores

_PART_ROWS = 4096

UNSAID = {"decode": "pil", "compile": False, "channels_last": "auto"}
"""Settings that are None in a plan where they are so, since plans of earlier versions have none."""


class PartRange(NamedTuple):
    """Rows [start, stop) of one split."""

    split: str
    start: int
    stop: int


@dataclass
class Plan:
    """`settings` must be equal for all who work on one cache; `attributes` go into the finished file as they are."""

    settings: dict[str, Any]
    attributes: dict[str, Any]
    run: str
    """A random name of the run, to tell its result from an earlier one."""

    @cached_property
    def parts(self) -> list[PartRange]:
        """All parts, in the order of their indices."""
        return [PartRange(*part) for part in expected_parts(self.manifest())]

    @property
    def batch_size(self) -> int:
        """Items in one forward pass."""
        return self.settings["batch_size"]

    def views(self, split: str) -> int:
        """V of one split."""
        return self.settings["views"] if split in self.settings["view_splits"] else 1

    def manifest(self) -> dict[str, Any]:
        """As JSON on disk."""
        return {"settings": self.settings, "attributes": self.attributes, "run": self.run}


def choose_part_size(wanted: int | str, batch_size: int, rows: int) -> int:
    """Rows of a part: whole batches; `auto` is a few thousand, fewer for small sets so that little work is lost."""
    asked = min(_PART_ROWS, rows // 16) if wanted == "auto" else int(wanted)
    return max(1, math.ceil(asked / batch_size)) * batch_size


def choose_threads(wanted: int | str) -> int:
    """CPU threads of the forward pass. `auto`: every core, or as many as OMP_NUM_THREADS says; whatever the number of
    workers, so that sums keep their order."""
    if wanted != "auto":
        return int(wanted)
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # one number per level of nesting
    return min(available_cores(), int(first)) if first.isdecimal() and int(first) else available_cores()


def choose_num_workers(wanted: int | str, device_type: str, rows: int, processes: int) -> int:
    """Processes that decode: none for a small set on the CPU, where starting them takes longer than they save."""
    if wanted != "auto":
        return int(wanted)
    cores = max(1, available_cores() // max(1, processes))
    if device_type == "cpu":
        return 0 if rows < 2000 else max(1, min(4, cores // 2))
    return min(16, cores)


def differences(here: Mapping[str, Any], there: Mapping[str, Any], keys: Sequence[str]) -> str:
    """`"batch_size: 64 there, 32 now"` for every key that differs, joined; empty when nothing does."""
    found = [
        f"{key}: {_short(_said(key, there))} there, {_short(_said(key, here))} now"
        for key in keys
        if here.get(key) != there.get(key)
    ]
    return "; ".join(found)


def _said(key: str, settings: Mapping[str, Any]) -> Any:
    value = settings.get(key)
    return UNSAID.get(key) if value is None else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
