"""What a data set is to the extraction: splits of (input, label, id), and a fingerprint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

Modality = Literal["image", "text", "audio"]


@runtime_checkable
class Split(Protocol):
    """One split: N items in a fixed order, readable by index from any worker process (picklable)."""

    labels: np.ndarray
    """int64 (N,), -1 = unlabelled."""
    ids: list[str]
    """N strings by which a person finds the item again: a relative path or a row key."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Any:
        """The item: a PIL image in RGB, a str, or an `Audio`. Raises `ItemError` when it cannot be read."""
        ...


@dataclass
class Audio:
    """A decoded recording: `samples` float32 (T,) mono in [-1, 1] at `rate` Hz."""

    samples: np.ndarray
    rate: int


class ItemError(Exception):
    """An item that cannot be read or decoded. The message names its id and the reason."""


@dataclass
class Dataset:
    """Named splits of one modality. Data set classes (what a config's `_target_` names) return or extend this."""

    name: str
    modality: Modality
    splits: dict[str, Split]
    classes: list[str] | None
    """Class names by label, or None when there are none."""
    fingerprint: str
    """Changes when the items, their order or their labels change (hash over ids, labels, sizes...)."""
    licence: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)
