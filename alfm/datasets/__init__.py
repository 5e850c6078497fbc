"""Data sets: what to embed. Yours is a function that returns a `Dataset`, see `alfm.testing.check_dataset`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alfm.lazy import lazy

if TYPE_CHECKING:
    from alfm.datasets.assemble import fingerprint, labels_from_values, stratified_share
    from alfm.datasets.base import Audio, Dataset, ItemError, Modality, Split

_HOMES = {
    "alfm.datasets.base": ("Audio", "Dataset", "ItemError", "Modality", "Split"),
    "alfm.datasets.assemble": ("fingerprint", "labels_from_values", "stratified_share"),
}

__all__ = [
    "Audio", "Dataset", "ItemError", "Modality", "Split", "fingerprint", "labels_from_values", "stratified_share",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
