"""Similarities of items, in blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.features.spaces import Centred

if TYPE_CHECKING:
    from alfm.features.features import Vectors

# Candidates per product, padded to it: with one shape for every product a similarity is the same number, to the last
# bit, in whatever batch it is computed, so that kappa is a function of the set added and a resumed run picks alike.
WIDTH = 32
WIDE = 1024  # on an accelerator, where launches are what costs and last bits follow from the batch anyway


# -- similarities ----------------------------------------------------------------------------------------------------


class Kernel(Protocol):
    """Similarity from inner products; overwrites and returns `dots`. Kernels that are equal are computed once.

    floor: the closeness of a target to nothing at all; nothing: the similarity.
    """

    floor: ClassVar[float]

    @property
    def nothing(self) -> float: ...

    def __call__(self, dots: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
        """dots: <x_i, y_j> (a, b); sq_x: |x_i|^2 (a,); sq_y: |y_j|^2 (b,). Returns (a, b)."""
        ...

    def closeness(self, dots: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
        """What the similarity rises with, whatever the kernel's parameters; arguments as above, overwrites `dots`."""
        ...

    def similarity(self, closeness: np.ndarray) -> np.ndarray:
        """The similarity at some closeness, never falling; same shape and type."""
        ...

    def diagonal(self, sq: Tensor) -> Tensor:
        """k(x_i, x_i), (a,), from |x_i|^2 (a,)."""
        ...


@dataclass(frozen=True)
class RBF:
    """exp(-(|x - y| / width)^2)."""

    floor: ClassVar[float] = -math.inf
    nothing: ClassVar[float] = 0.0
    width: float = 1.0

    def __call__(self, dots: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
        scale = 1.0 / self.width**2
        dots.mul_(2.0 * scale).sub_((sq_x * scale)[:, None]).sub_(sq_y * scale)
        return dots.clamp_max_(0.0).exp_()

    def closeness(self, dots: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
        return dots.mul_(2.0).sub_(sq_x[:, None]).sub_(sq_y).clamp_max_(0.0)

    def similarity(self, closeness: np.ndarray) -> np.ndarray:
        # In float64: rounded to float32 it never falls where the closeness rises, which exp in float32 may.
        return np.exp(closeness.astype(np.float64) / self.width**2).astype(closeness.dtype)

    def diagonal(self, sq: Tensor) -> Tensor:
        return torch.ones_like(sq)


@dataclass(frozen=True)
class RBFLessOne(RBF):
    """exp(-(|x - y| / width)^2) - 1, for items so near each other that the exponential is 1 but for rounding.

    Herding's gains are differences of similarities, so they are the same. nothing: at most any similarity.
    """

    nothing: float = -1.0  # type: ignore[misc]

    def __call__(self, dots: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
        return self.closeness(dots, sq_x, sq_y).div_(self.width**2).expm1_()

    def similarity(self, closeness: np.ndarray) -> np.ndarray:
        return np.expm1(closeness.astype(np.float64) / self.width**2).astype(closeness.dtype)

    def diagonal(self, sq: Tensor) -> Tensor:
        return torch.zeros_like(sq)


def rbf(vectors: Vectors, width: float) -> RBF:
    """The RBF kernel of this width in the form that keeps its digits on these coordinates."""
    if not isinstance(vectors.space, Centred) or vectors.level > width**2:
        return RBF(width)
    # no two items are farther apart than twice the largest length
    return RBFLessOne(width=width, nothing=math.expm1(-4 * float(vectors.sq_norms.max()) / width**2))


@dataclass(frozen=True)
class Dot:
    """<x, y>: the cosine on unit features."""

    floor: ClassVar[float] = 0.0
    nothing: ClassVar[float] = 0.0

    def __call__(self, dots: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
        return dots

    closeness = __call__

    def similarity(self, closeness: np.ndarray) -> np.ndarray:
        return closeness

    def diagonal(self, sq: Tensor) -> Tensor:
        return sq.clone()


def similarities(
    vectors: Vectors, kernel: Kernel, items: Tensor, targets: Tensor | None = None, out: Tensor | None = None
) -> Tensor:
    """k(items, targets), (m, T) for int64 (m,) items and int64 (T,) targets (None: the whole pool)."""
    if out is None:
        out = vectors.sq_norms.new_empty(len(items), vectors.N if targets is None else len(targets))
    for place, start, part in _item_products(vectors, kernel, items, targets):
        out[start : start + part.shape[1], place] = part.T
    return out


def looks(vectors: Vectors, kernels: Sequence[Kernel], items: Tensor, targets: Tensor | None = None) -> Tensor:
    """k_r(items, targets), (R, m, T), each replicate's int64 (R, m) items by its own kernel; one product for all.

    The shape of the product is that of all replicates, so its last bits are too.
    """
    R, m = items.shape
    q, sq_q = vectors.rows(items.flatten(), plain=True), vectors.sq_norms[items.flatten()]
    out = sq_q.new_empty(R, m, vectors.N if targets is None else len(targets))
    alike = all(one == kernels[0] for one in kernels)
    for place, x, sq_x in target_blocks(vectors, targets):
        dots = q @ x.T
        if alike:
            out[:, :, place] = kernels[0](dots, sq_q, sq_x).view(R, m, -1)
            continue
        for r, (kernel, own, sq) in enumerate(zip(kernels, dots.chunk(R), sq_q.chunk(R), strict=True)):
            out[r, :, place] = kernel(own, sq, sq_x)
    return out


def best_similarity(vectors: Vectors, kernel: Kernel, rows: Tensor, targets: Tensor | None = None) -> Tensor:
    """kappa (T,): each target's largest similarity to the items of int64 (m,) rows, at least `kernel.nothing`."""
    kappa = vectors.sq_norms.new_full((vectors.N if targets is None else len(targets),), kernel.nothing)
    for place, _, part in _item_products(vectors, kernel, rows, targets):
        kappa[place] = torch.maximum(kappa[place], part.amax(1))
    return kappa


def _item_products(
    vectors: Vectors, kernel: Kernel, items: Tensor, targets: Tensor | None
) -> Iterator[tuple[slice, int, Tensor]]:
    """(places among the targets, first item, k(targets, items) (b, m)) for all blocks and items, m up to the width."""
    if not len(items):
        return
    short, width = -len(items) % WIDTH, WIDTH if devices.of(vectors.device).looks_are_free else WIDE
    padded = torch.cat([items, items[:1].expand(short)])
    q, sq_q = vectors.rows(padded, plain=True), vectors.sq_norms[padded]
    for place, x, sq_x in target_blocks(vectors, targets):
        for start in range(0, len(items), width):
            part = slice(start, start + width)
            # X @ Q.T: faster than Q @ X.T when Q is small.
            yield place, start, kernel(x @ q[part].T, sq_x, sq_q[part])[:, : len(items) - start]


def target_blocks(vectors: Vectors, targets: Tensor | None) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(places among the targets, coordinates (b, D'), squared lengths (b,))."""
    if targets is None:
        for rows, x in vectors.blocks():
            yield rows, x, vectors.sq_norms[rows]
        return
    size = 2048
    for start in range(0, len(targets), size):
        part = targets[start : start + size]
        yield slice(start, start + len(part)), vectors.rows(part, plain=True), vectors.sq_norms[part]
