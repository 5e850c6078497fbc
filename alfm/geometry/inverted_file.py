"""Balls on pools where N^2 products take too long: products only of items and the cells they lie near.

Centroids of a k-means on a sample cut the pool into cells, and every item visits the `probe` cells whose centroids are
nearest to it, its own among them. A pair of items is looked at when one of them visits the other's cell, so the
relation is symmetric, and every pair is found when all cells are visited. (Pairs of near CELLS take five times the
products for the same neighbours: an item at the edge of a cell has other near cells than its centroid.)

Source of the inverted lists: Sivic & Zisserman 2003, Jegou et al. 2011.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from alfm.geometry.kmeans import kmeans
from alfm.geometry.max_coverage import Cover, purity_radius
from alfm.geometry.pairs import limit, squared_distances
from alfm.host_ops import argmax_rows, count_rows, places
from alfm.streams import stream
from alfm.threads import each_of

if TYPE_CHECKING:
    from alfm.features.features import Vectors

T = TypeVar("T")
TRAINED_ON = 100_000  # items of a k-means that stands for the pool
MEMBERS = 2048  # items of a cell in one product, so that a cell of very many needs no more memory
ASKED = 512  # items whose balls say how large balls are and how many pairs there are
COUNTED = 1 << 19  # items, about, among which their neighbours are counted: thousands where lists would not fit
SORTED = 1 << 22  # neighbours put in order at a time


def pool_clusters(unit: Vectors, k: int, purpose: str) -> Tensor:
    """The k-means cluster of every item, int64 (N,), with a random stream for `purpose` that no seed changes.

    Trained on all items, or on TRAINED_ON random ones of a larger pool, whose items then go to the nearest centroid.
    """
    centroids, assignment = _trained(unit, min(k, unit.N), purpose)
    return nearest_centroids(unit, centroids, 1)[:, 0].long() if assignment is None else assignment


def nearest_centroids(unit: Vectors, centroids: Tensor, count: int) -> Tensor:
    """The `count` centroids (k, D') nearest to each item, nearest first: int32 (N, count). N k D' products."""
    half = -0.5 * torch.linalg.vecdot(centroids, centroids)
    nearest = torch.empty(unit.N, count, dtype=torch.int32, device=unit.device)

    def find(rows: slice) -> None:
        closeness = torch.addmm(half, unit.at(rows), centroids.T)
        nearest[rows] = (argmax_rows(closeness)[:, None] if count == 1 else closeness.topk(count).indices).int()

    # Threads leave nothing behind: what they made small and was kept would break up the memory of what they made large.
    for _ in each_of(unit.pool.slices(1024), find, unit.device):
        pass
    return nearest


def _trained(unit: Vectors, k: int, purpose: str, **options: Any) -> tuple[Tensor, Tensor | None]:
    """Centroids (k, D'), and the clusters of all items where all were trained on. options: of `kmeans`."""
    rng = stream(0, 0, purpose)
    if unit.N > TRAINED_ON:
        some = np.sort(rng.choice(unit.N, TRAINED_ON, replace=False))
        return kmeans(unit.rows(torch.from_numpy(some).to(unit.device), plain=True), k, rng, **options).centroids, None
    x = unit.matrix if unit.matrix is not None else torch.cat([x for _, x in unit.blocks()])
    clusters = kmeans(x, k, rng, **options)
    return clusters.centroids, clusters.assignment


def foreseen_pairs(unit: Vectors, delta: float | None, pseudo: Tensor | None, purity: float) -> tuple[float, float]:
    """A radius, and about how many pairs of items are nearer, as some random items' balls say.

    delta: the radius, or None for the one of `purity` with the classes `pseudo` (N,), one pass of ASKED N D' products.
    Their neighbours are counted among the items of some blocks.
    """
    rng, device = stream(0, 0, "pairs"), unit.device
    some = torch.from_numpy(np.sort(rng.choice(unit.N, min(ASKED, unit.N), replace=False))).to(device)
    x = unit.rows(some, plain=True)
    own = torch.linalg.vecdot(x, x)[:, None]

    def distances(rows: slice) -> Iterator[tuple[slice, Tensor]]:
        """Squared distances of the items asked about and some of a block, few enough for a core's caches."""
        y = unit.at(rows)
        norms = torch.linalg.vecdot(y, y)
        for start in range(0, len(y), ASKED):
            part = slice(start, min(start + ASKED, len(y)))
            d2 = torch.addmm(norms[part], x, y[part].T, alpha=-2).add_(own)
            yield slice(rows.start + part.start, rows.start + part.stop), d2

    if delta is None:
        assert pseudo is not None
        classes = pseudo.to(device, torch.int32)
        mine = classes[some, None]

        def nearest(rows: slice) -> Tensor:
            found = [d2.masked_fill_(mine == classes[at], math.inf).amin(1) for at, d2 in distances(rows)]
            return torch.stack(found).amin(0)

        least = torch.full_like(own[:, 0], math.inf)
        for _, near in each_of(unit.pool.slices(), nearest, device):
            torch.minimum(least, near, out=least)
        delta = purity_radius(least.clamp_min_(0).double().sqrt(), purity)
    within, blocks = limit(delta, unit), list(unit.pool.slices())[:: math.ceil(unit.N / COUNTED)]

    def inside(rows: slice) -> int:
        return sum(int(count_rows(d2 < within).sum()) for _, d2 in distances(rows))

    seen = sum(rows.stop - rows.start for rows in blocks)
    itself = sum(int(((some >= rows.start) & (some < rows.stop)).sum()) for rows in blocks)
    others = sum(count for _, count in each_of(iter(blocks), inside, device)) - itself
    return delta, others / (len(some) * seen) * unit.N**2 / 2


@dataclass(frozen=True)
class Block:
    """A product: `members` of one cell (m,) and some of the items that visit it, `visitors` (v,), both int32 rows."""

    members: Tensor
    visitors: Tensor


class Cells:
    """The pool's cells, who belongs to them and who visits them. Depends on the features alone.

    Cost: O(N k D') for k = 4 sqrt(N) cells, then O(probe N^2 D' / k) for each pass over the pairs; memory O(probe N).
    """

    def __init__(self, unit: Vectors, probe: int, count: int | None = None) -> None:
        self.unit, self.N = unit, unit.N
        self.count = min(count or math.ceil(4 * math.sqrt(unit.N)), unit.N)
        probe = min(probe, self.count)
        centroids, _ = _trained(unit, self.count, "cells", iterations=10, seeding="random")
        self.visits = nearest_centroids(unit, centroids, probe)  # (N, probe), the own cell first
        self.cell = self.visits[:, 0].contiguous()
        self._members, self._first_member = _inverted(self.visits[:, :1], self.count)
        self._visitors, self._first_visitor = _inverted(self.visits, self.count)

    def blocks(self) -> Iterator[Block]:
        """All pairs of a cell's members and its visitors, each once."""
        entries = self.unit.pool.block_numbers // 2
        most = min(entries >> 7, 1 << 16)  # places in a block fit into 16 bits
        for cell in range(self.count):
            members = self._members[self._first_member[cell] : self._first_member[cell + 1]]
            visitors = self._visitors[self._first_visitor[cell] : self._first_visitor[cell + 1]]
            for some in members.split(MEMBERS) if len(members) else ():
                for part in visitors.split(min(entries // len(some), most)):
                    yield Block(some, part)

    def each(self, job: Callable[[Block, Tensor], T]) -> Iterator[tuple[Block, T]]:
        """Every block with what job(block, squared distances (v, m)) gives, side by side."""
        norms = self.unit.sq_norms

        def done(block: Block) -> T:
            x, y = (self.unit.rows(rows.long(), plain=True) for rows in (block.visitors, block.members))
            return job(block, squared_distances(x, y, norms[block.visitors], norms[block.members]))

        yield from each_of(self.blocks(), done, self.unit.device)

    def purity_distances(self, pseudo: Tensor) -> Tensor:
        """r (N,) float64, as `max_coverage.purity_distances` over the pairs that are looked at: never below it."""
        pseudo = pseudo.to(self.unit.device)
        nearest = torch.full((self.N,), math.inf, dtype=self.unit.pool.dtype, device=self.unit.device)

        def smallest(block: Block, d2: Tensor) -> tuple[Tensor, Tensor]:
            d2.masked_fill_(pseudo[block.visitors, None] == pseudo[block.members], math.inf)
            return d2.amin(1), d2.amin(0)

        for block, (visitors, members) in self.each(smallest):
            nearest[block.visitors] = torch.minimum(nearest[block.visitors], visitors)
            nearest[block.members] = torch.minimum(nearest[block.members], members)
        return nearest.double().sqrt()


class NearCover(Cover):
    """The cover of one radius over the pairs that `Cells` look at; with all cells visited, `Cover` itself.

    Neighbour lists or nothing: `indices` is None where they do not fit into `memory_cap` bytes, 12 for each pair.
    """

    def __init__(self, cells: Cells, delta: float, memory_cap: int = 2 << 30) -> None:
        self._cells = cells
        super().__init__(cells.unit, delta, memory_cap)
        del self._cells  # not needed any more, and large

    def _pass(self, memory_cap: int) -> None:
        degrees = np.ones(self.N, dtype=np.int32)
        pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        pairs = 0
        for block, (visitor, member) in self._cells.each(self._found):
            visitors, members = block.visitors.cpu().numpy(), block.members.cpu().numpy()
            degrees[visitors] += np.bincount(visitor, minlength=len(visitors)).astype(np.int32)
            degrees[members] += np.bincount(member, minlength=len(members)).astype(np.int32)
            pairs += len(visitor)
            if 12 * pairs + 16 * self.N > memory_cap:
                self.degrees = torch.from_numpy(degrees)
                return
            if len(visitor):
                pieces.append((visitors, members, visitor.copy(), member.copy()))  # see `nearest_centroids`
        self.degrees = torch.from_numpy(degrees)
        self._fill(pieces)

    def _found(self, block: Block, d2: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Places (visitor, member) of the block's pairs, of those that two blocks look at in one of them only."""
        cells, hit = self._cells, d2 < self._limit
        flat = places(hit).cpu().numpy()
        visitor, member = flat // hit.shape[1], flat % hit.shape[1]
        x, y = block.visitors[visitor], block.members[member]
        mutual = (cells.visits[y] == cells.cell[x, None]).any(1)
        keep = (~mutual | (x < y)).cpu().numpy()
        return visitor[keep].astype(np.uint16), member[keep].astype(np.uint16)

    def _fill(self, pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]) -> None:
        self.offsets = np.zeros(self.N + 1, dtype=np.int64)
        np.cumsum(self.degrees.numpy(), out=self.offsets[1:])
        indices = self.indices = np.empty(int(self.offsets[-1]), dtype=np.int32)
        ends = self.offsets[:-1].copy()  # where each item's next neighbour goes
        indices[ends] = np.arange(self.N, dtype=np.int32)
        ends += 1

        def append(items: np.ndarray, place: np.ndarray, neighbours: np.ndarray) -> None:
            order = np.argsort(place, kind="stable")
            place, per_item = place[order], np.bincount(place, minlength=len(items))
            before = np.cumsum(per_item) - per_item
            indices[(ends[items] - before)[place] + np.arange(len(place))] = neighbours[order]
            ends[items] += per_item

        while pieces:
            visitors, members, visitor, member = pieces.pop()
            append(visitors, visitor, members[member])
            append(members, member, visitors[visitor])
        start = 0
        while start < self.N:
            stop = max(start + 1, int(np.searchsorted(self.offsets, self.offsets[start] + SORTED)) - 1)
            lengths = np.diff(self.offsets[start : stop + 1])
            part = indices[self.offsets[start] : self.offsets[stop]]
            keys = (np.repeat(np.arange(len(lengths)), lengths) << 32) | part
            keys.sort()
            part[:] = keys & 0xFFFFFFFF
            start = stop


def _inverted(cells: Tensor, count: int) -> tuple[Tensor, list[int]]:
    """Items, int32 (n p,), by the cells (n, p) in [0, count) they have, ascending, and where each cell's begin."""
    from scipy.sparse import csr_array

    n, p = cells.shape
    entries = (np.ones(n * p, np.int8), cells.cpu().numpy().ravel(), np.arange(0, n * p + 1, p))
    turned = csr_array(entries, shape=(n, count)).tocsc()
    return torch.from_numpy(turned.indices.astype(np.int32, copy=False)).to(cells.device), turned.indptr.tolist()
