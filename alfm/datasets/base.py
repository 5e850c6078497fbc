"""What a data set is to the extraction: splits of (input, label, id), and a fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
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
        """The item: a PIL image, a str, or an `Audio`. Raises `ItemError` when it cannot be read.

        Images are RGB, or all of mode L where the whole data set is grey (digits); backbones convert.
        """
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
    """Named splits of one modality: what a config's `_target_` returns (or a subclass of it)."""

    name: str
    modality: Modality
    splits: Mapping[str, Split]
    classes: list[str] | None
    """Class names by label, or None when there are none."""
    fingerprint: str
    """Changes when the items, their order or their labels change (hash over ids, labels, sizes...)."""
    licence: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    """Stored in the cache as `dataset_<key>`."""
    remarks: list[str] = field(default_factory=list)
    """Sentences for the person who reads it: what was left out, counted, or taken for granted. Printed once."""
    intensity_range: list[float] | None = None
    """[black, white] of the images deeper than 8 bits, where there are some: see `alfm.datasets.intensity`."""
    left_out: list[str] = field(default_factory=list)
    """What lies there and is no item, counted and named in sentences. Printed when the extraction ends."""
