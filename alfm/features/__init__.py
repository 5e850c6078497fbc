"""Items' features on a device, and the coordinates in which they are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alfm.lazy import lazy

if TYPE_CHECKING:
    from alfm.features.features import Features, Vectors
    from alfm.features.spaces import RAW, UNIT, Space

_HOMES = {
    "alfm.features.features": ("Features", "Vectors"),
    "alfm.features.spaces": ("RAW", "UNIT", "Space"),
}

__all__ = [
    "Features", "RAW", "Space", "UNIT", "Vectors",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
