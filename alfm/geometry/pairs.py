"""All pairs of items, in blocks that use symmetry, and what is asked of pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alfm.host_ops import widened

if TYPE_CHECKING:
    from alfm.features.features import Vectors


# -- blocked distances -----------------------------------------------------------------------------------------------


def block_pairs(vectors: Vectors, size: int | None = None) -> Iterator[tuple[slice, Tensor, slice, Tensor]]:
    """The upper triangle of blocks: (rows, x (a, D'), columns, y (b, D')) with rows at or before columns.

    Every unordered pair of items occurs in exactly one block, those within a diagonal block (rows == columns) in both
    orders. Coordinates that are not resident are computed for a strip of 16 blocks at a time, so the pool is read
    N / (16 size) times rather than N / size times.
    """
    size = size or pair_block(vectors)
    strip = size if vectors.matrix is not None else 16 * size
    for first in range(0, vectors.N, strip):
        last = min(first + strip, vectors.N)
        held = consecutive(vectors, first, last)
        for start in range(first, vectors.N, size):
            columns = slice(start, min(start + size, vectors.N))
            inside = start < last
            y = held[start - first : columns.stop - first] if inside else consecutive(vectors, start, columns.stop)
            for top in range(first, columns.stop if inside else last, size):
                rows = slice(top, min(top + size, last))
                yield rows, held[rows.start - first : rows.stop - first], columns, y


def pair_block(vectors: Vectors) -> int:
    """Rows of a block in a pass over pairs, a power of two: two of its squares are at most a block of features."""
    return 1 << int(math.log2(math.isqrt(vectors.pool.block_numbers // 2)))


def in_parts(vectors: Vectors, replicates: int, side: int) -> list[int] | list[slice]:
    """The replicates that a block of so many rows and columns serves at a time: each, as r; or, where the device joins
    them, as many as have twice a block of features to hold, as slices."""
    if not vectors.pool.joins_replicates:
        return list(range(replicates))
    size = max(1, 2 * vectors.pool.block_numbers // side**2)
    return [slice(start, min(start + size, replicates)) for start in range(0, replicates, size)]


def products(x: Tensor, y: Tensor) -> Tensor:
    """Matrices (.., a, b) times vectors (.., b) -> (.., a)."""
    return x @ y if y.ndim == 1 else (x @ y[..., None])[..., 0]


def consecutive(vectors: Vectors, start: int, stop: int) -> Tensor:
    """Rows [start, stop), (stop - start, D')."""
    if vectors.matrix is not None:
        return vectors.matrix[start:stop]
    return vectors.rows(torch.arange(start, stop, device=vectors.device))


def squared_distances(x: Tensor, y: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
    """|x_i - y_j|^2 >= 0 by the Gram identity, (a, D') and (b, D') with their squared lengths -> (a, b)."""
    return (x @ y.T).mul_(-2.0).add_(sq_x[:, None]).add_(sq_y).clamp_min_(0.0)


def limit(radius: Tensor | float, unit: Vectors) -> Tensor:
    """The squared distance below which a pair lies inside a ball: radius^2 less the margin, in the pool's dtype."""
    squared = widened(torch.as_tensor(radius)).square()
    margin = (squared / 2).clamp_max(4 * torch.finfo(unit.pool.dtype).eps * unit.level)
    return torch.where(squared.isinf(), squared, squared - margin).to(unit.pool.dtype).to(unit.device)


def smallest_distance(x: Tensor, level: float = 1.0) -> float:
    """The smallest positive distance between rows (n, D) of squared lengths up to about `level`; 1 if there is none."""
    return float(smallest_distances(x, level))


def smallest_distances(x: Tensor, level: float = 1.0) -> Tensor:
    """`smallest_distance` of several sets of rows at once, (.., n, D) -> (..), with at most one leading dimension.

    Products tell which few pairs to measure by their difference, which alone can tell near from equal.
    """
    # more than a product's error, and than (1e-6)^2
    slack, least = max(64 * torch.finfo(x.dtype).eps, 4e-12) * level, 1e-6 * math.sqrt(level)
    sq = torch.linalg.vecdot(x, x)
    smallest = x.new_full(x.shape[:-2], torch.inf)
    for start in range(0, x.shape[-2], 1024):
        part, rest = x[..., start : start + 1024, :], x[..., start:, :]
        square = (part @ rest.mT).mul_(-2.0).add_(sq[..., start : start + 1024, None]).add_(sq[..., None, start:])
        square.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)
        limit = square.where(square > slack, torch.inf).amin((-2, -1), keepdim=True) + 2 * slack
        *of, i, j = ((square <= limit) & (square < torch.inf)).nonzero().T
        if len(i) > 4 * (rest.numel() // x.shape[-1]):  # many equal rows
            d = torch.cdist(part, rest, compute_mode="donot_use_mm_for_euclid_dist")
            d = d.where(d > least, torch.inf).amin((-2, -1))
        else:
            measured = torch.linalg.vector_norm(part[(*of, i)] - rest[(*of, j)], dim=1)
            d, place = torch.full_like(smallest, torch.inf), of[0] if of else torch.zeros_like(i)
            d.view(-1).scatter_reduce_(0, place, measured.where(measured > least, torch.inf), "amin")
        smallest = torch.minimum(smallest, d)
    return smallest.where(smallest < torch.inf, 1.0)
