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
WIDE = 1024  # of all replicates on an accelerator, where launches are what costs and last bits follow from the batch


# -- similarities ----------------------------------------------------------------------------------------------------


class Kernel(Protocol):
    """Similarity from inner products; overwrites and returns `dots`. Kernels that are equal are computed once.

    floor: the closeness of a target to nothing at all; nothing: the similarity.
    """

    floor: ClassVar[float]

    @property
    def nothing(self) -> float: ...

    def __call__(self, dots: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
        """dots: <x_i, y_j> (.., a, b); sq_x: |x_i|^2 (.., a); sq_y: |y_j|^2 (.., b). Returns (.., a, b)."""
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
        dots.mul_(2.0 * scale).sub_((sq_x * scale)[..., None]).sub_((sq_y * scale)[..., None, :])
        return dots.clamp_max_(0.0).exp_()

    def closeness(self, dots: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
        return dots.mul_(2.0).sub_(sq_x[..., None]).sub_(sq_y[..., None, :]).clamp_max_(0.0)

    @staticmethod
    def rising(closeness: Tensor, square: Tensor) -> Tensor:
        """The similarity at some closeness for squared widths that broadcast with it."""
        return (closeness / square).exp_()

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

    @staticmethod
    def rising(closeness: Tensor, square: Tensor) -> Tensor:
        return (closeness / square).expm1_()

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


class Joined:
    """R replicates' kernels as one, for products of them all: what differs between kernels is on the device, made once.

    sq: squared lengths, of the device and dtype of the products.
    """

    def __init__(self, kernels: Sequence[Kernel], sq: Tensor) -> None:
        self.kernels, self.alike = kernels, all(one == kernels[0] for one in kernels)
        self._squares: Tensor | None = None
        if not self.alike and isinstance(kernels[0], RBF) and len({type(one) for one in kernels}) == 1:
            widths = [one.width**2 for one in kernels if isinstance(one, RBF)]
            self._squares = devices.of(sq).sent(torch.tensor(widths, dtype=sq.dtype))[:, None, None]

    def __call__(self, dots: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
        """Each replicate's similarities, (R, a, b) or, where all are the same, (a, b); overwrites `dots`.

        dots: (a, b) of all, or (R, a, b); sq_x: (a,) or (R, a); sq_y: (b,).
        """
        first = self.kernels[0]
        if self.alike:
            return first(dots, sq_x, sq_y)
        if self._squares is not None and isinstance(first, RBF):
            return first.rising(first.closeness(dots, sq_x, sq_y), self._squares)
        dots, sq_x = (t.expand(len(self.kernels), *t.shape[-n:]) for t, n in ((dots, 2), (sq_x, 1)))
        own = zip(self.kernels, dots, sq_x, strict=True)
        return torch.stack([kernel(product.clone(), sq, sq_y) for kernel, product, sq in own])


def similarities(
    vectors: Vectors, kernel: Kernel, items: Tensor, targets: Tensor | None = None, out: Tensor | None = None
) -> Tensor:
    """k(items, targets), (m, T) for int64 (m,) items and int64 (T,) targets (None: the whole pool)."""
    if out is None:
        out = vectors.sq_norms.new_empty(len(items), vectors.N if targets is None else len(targets))
    for place, start, part in _item_products(vectors, kernel, items, targets):
        out[start : start + part.shape[1], place] = part.T
    return out


def looks(vectors: Vectors, kernel: Joined, items: Tensor, targets: Tensor | None = None) -> Tensor:
    """k_r(items, targets), (R, m, T), each replicate's int64 (R, m) items by its own kernel; one product for all.

    The shape of the product is that of all replicates, so its last bits are too.
    """
    out = vectors.sq_norms.new_empty(*items.shape, vectors.N if targets is None else len(targets))
    for place, part in _looks(vectors, kernel, items, targets):
        out[:, :, place] = part
    return out


def _looks(vectors: Vectors, kernel: Joined, items: Tensor, targets: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    q, sq_q = vectors.rows(items.flatten(), plain=True), vectors.sq_norms[items]
    for place, x, sq_x in target_blocks(vectors, targets):
        yield place, kernel((q @ x.T).view(*items.shape, -1), sq_q, sq_x)


def best_similarity(vectors: Vectors, kernel: Kernel, rows: Tensor, targets: Tensor | None = None) -> Tensor:
    """kappa (T,): each target's largest similarity to the items of int64 (m,) rows, at least `kernel.nothing`."""
    return best_similarities(vectors, [kernel], [rows], targets)[0]


def best_similarities(
    vectors: Vectors, kernels: Sequence[Kernel], rows: Sequence[Tensor], targets: Tensor | None = None
) -> Tensor:
    """kappa (R, T) of every replicate's kernel and rows, int64 (m_r,); by products of all where the device joins them.

    Elsewhere by each one's own, of one width.
    """
    nothing = torch.tensor([kernel.nothing for kernel in kernels], dtype=vectors.sq_norms.dtype)
    nothing = devices.of(vectors.device).sent(nothing)
    kappa = nothing[:, None].repeat(1, vectors.N if targets is None else len(targets))
    if vectors.pool.joins_replicates and all(map(len, rows)):
        joined, items = Joined(kernels, vectors.sq_norms), filled(rows)
        for some in items.split(max(1, WIDE // len(rows)), 1):
            for place, part in _looks(vectors, joined, some, targets):
                kappa[:, place] = torch.maximum(kappa[:, place], part.amax(1))
        return kappa
    for own, kernel, items in zip(kappa, kernels, rows, strict=True):
        for place, _, part in _item_products(vectors, kernel, items, targets):
            own[place] = torch.maximum(own[place], part.amax(1))
    return kappa


def filled(rows: Sequence[Tensor]) -> Tensor:
    """R times int64 (m_r,), at least one each, as (R, m): the first again where others have more."""
    most = max(map(len, rows))
    return torch.stack([own if len(own) == most else torch.cat([own, own[:1].expand(most - len(own))]) for own in rows])


def _item_products(
    vectors: Vectors, kernel: Kernel, items: Tensor, targets: Tensor | None
) -> Iterator[tuple[slice, int, Tensor]]:
    """(places among the targets, first item, k(targets, items) (b, m)) for all blocks and items, m up to the width."""
    if not len(items):
        return
    short = -len(items) % WIDTH
    padded = torch.cat([items, items[:1].expand(short)])
    q, sq_q = vectors.rows(padded, plain=True), vectors.sq_norms[padded]
    for place, x, sq_x in target_blocks(vectors, targets):
        for start in range(0, len(items), WIDTH):
            part = slice(start, start + WIDTH)
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
