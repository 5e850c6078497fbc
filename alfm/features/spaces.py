"""Spaces: the coordinates in which a head or a geometry sees the pool's features.

A space maps raw features x (b, D) float32 to (b, D'). `shared` spaces depend on the pool's features alone, so a
pool may keep their coordinates resident for every strategy, replicate and round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from alfm.host_ops import widened


class Space(Protocol):
    """Coordinates of features. Two spaces are the same space only when they are the same object."""

    @property
    def shared(self) -> bool:
        """Do they depend on the pool's features alone?"""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """(b, D) float32 -> (b, D') float32, a row's result independent of the other rows."""
        ...


def unit_rows(x: Tensor) -> Tensor:
    """Rows (b, D) scaled to length 1; a zero row stays zero."""
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / norms.clamp_min(torch.finfo(x.dtype).tiny)


def wide_unit_rows(x: Tensor) -> Tensor:
    """`unit_rows` in float64, in memory of its own; on the host where the device has no float64 (MPS)."""
    return unit_rows(widened(x))


@dataclass(frozen=True, eq=False)
class Raw:
    """The features as they are."""

    shared: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True, eq=False)
class Unit:
    """u = h / |h|, unit features."""

    shared: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        return unit_rows(x)


@dataclass(frozen=True, eq=False)
class Centred:
    """u - mean, for u = h / |h| that are nearly one vector. mean: (D,) float64 on the host.

    Distances are those between unit features. In float32 those of u itself would be rounding only, so u and the
    difference are made in float64, and rounded last.
    """

    mean: Tensor
    shared: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        u = wide_unit_rows(x)
        return u.sub_(self.mean.to(u.device)).to(x.device, x.dtype)


@dataclass(frozen=True, eq=False)
class Scaled:
    """phi = (h - shift) / scale, rows then scaled to length 1 when `unit`. shift, scale: (D,) float32."""

    shift: Tensor
    scale: Tensor
    unit: bool = False
    shared: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        z = (x - self.shift).div_(self.scale)
        return unit_rows(z) if self.unit else z


RAW = Raw()
UNIT = Unit()
