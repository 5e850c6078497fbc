"""Spaces: the coordinates in which a head or a geometry sees the pool's features.

A space maps raw features x (b, D) float32 to (b, D'). `shared` spaces depend on the pool's features alone, so a
pool may keep their coordinates resident for every strategy, replicate and round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Space(Protocol):
    """Coordinates of features. Two spaces are the same space only when they are the same object."""

    shared: bool

    def __call__(self, x: Tensor) -> Tensor:
        """(b, D) float32 -> (b, D') float32, a row's result independent of the other rows."""
        ...


def unit_rows(x: Tensor) -> Tensor:
    """Rows (b, D) scaled to length 1; a zero row stays zero."""
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / norms.clamp_min(torch.finfo(x.dtype).tiny)


@dataclass(frozen=True, eq=False)
class Raw:
    """The features as they are."""

    shared: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True, eq=False)
class Unit:
    """u = h / |h|, METHODS' unit features."""

    shared: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        return unit_rows(x)


@dataclass(frozen=True, eq=False)
class Scaled:
    """phi = (h - shift) / scale, rows then scaled to length 1 when `unit`. shift, scale: (D,) float32."""

    shift: Tensor
    scale: Tensor
    unit: bool = False
    shared: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        z = (x - self.shift) / self.scale
        return unit_rows(z) if self.unit else z


RAW = Raw()
UNIT = Unit()
