"""Balls of one radius on the pool: the radius whose balls are pure, and greedy maximum cover.

Item x covers y iff |u_x - u_y| < delta; every item covers itself. N x N work is done once, over the upper triangle of
blocks: a pair's product serves both directions and every replicate. What differs per replicate is integer work on
neighbour lists, kept on the host whatever the device, so that a greedy step never waits for a device. Where there are
no lists, a GPU finds balls again without being asked for each pick (`alfm.geometry.greedy`).

Strictness leaves a margin for rounding: a pair whose squared distance lies within 4 float epsilons (times the squared
length `Vectors.level`) of delta^2 counts as outside, so that the pair that defines a purity radius is outside in
products of any shape.

Source: Yehuda et al. 2022 (ProbCover, 2205.11320). DCoM's balls of different sizes: `alfm.geometry.balls`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from alfm.geometry import greedy
from alfm.geometry.kcenter import FarthestFirst
from alfm.geometry.pairs import block_pairs, limit, pair_block, squared_distances
from alfm.host_ops import places

if TYPE_CHECKING:
    from alfm.features.features import Vectors

LISTED = 1 << 22  # neighbours gathered at a time: bounds the memory of a step that covers very much


# -- the radius ------------------------------------------------------------------------------------------------------


def purity_distances(unit: Vectors, pseudo: Tensor, block: int | None = None) -> Tensor:
    """r (N,) float64: each item's distance to the nearest item of another pseudo-class, Inf with one class only.

    pseudo: int64 (N,). One symmetric pass, exact up to the rounding of the products. float64 holds a distance whose
    square is the float32 value it was found as.
    """
    pseudo = pseudo.to(unit.device)
    nearest = torch.full((unit.N,), math.inf, dtype=unit.pool.dtype, device=unit.device)
    norms = unit.sq_norms
    for rows, x, columns, y in block_pairs(unit, block):
        d2 = squared_distances(x, y, norms[rows], norms[columns])
        d2.masked_fill_(pseudo[rows, None] == pseudo[columns], math.inf)
        nearest[rows] = torch.minimum(nearest[rows], d2.amin(1))
        if rows != columns:
            nearest[columns] = torch.minimum(nearest[columns], d2.amin(0))
    return nearest.double().sqrt()


def purity_radius(r: Tensor, purity: float = 0.95) -> float:
    """The largest delta for which at least `purity` of the balls hold one pseudo-class only.

    It is the (floor((1 - purity) N) + 1)-th smallest r: all balls but floor((1 - purity) N) are then pure, strictly.
    """
    if not 0.0 < purity <= 1.0:
        raise ValueError(f"purity must be in (0, 1], got {purity}")
    # 0.05 * 20 must be 1, but (1 - 0.95) * 20 is 1 + 9e-16 and (1 - 0.9) * 10 is 1 - 2e-16.
    impure = math.floor(round((1.0 - purity) * len(r), 6))
    return float(r.kthvalue(min(impure, len(r) - 1) + 1).values)


# -- greedy maximum cover --------------------------------------------------------------------------------------------


class Cover:
    """Balls of one radius around every item, shared by all replicates.

    degrees: int32 (N,), items in each ball, the item itself included. Neighbour lists (`indices` int32, `offsets`
    int64 (N + 1,), ascending within a row) are kept when the lists and the work space to build them fit into
    `memory_cap` bytes; otherwise `indices` is None and balls are found again by products when they are needed, with
    the same picks. Either way the pool is passed over once, here.
    """

    def __init__(
        self,
        unit: Vectors,
        delta: float,
        memory_cap: int = 2 << 30,
        block: int | None = None,
        found: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """found: `arrays` of the same cover, in place of the pass."""
        if not delta >= 0:
            raise ValueError(f"delta must be at least 0, got {delta}")
        self.unit, self.delta, self.N = unit, delta, unit.N
        self.indices: np.ndarray | None = None
        self.offsets: np.ndarray | None = None
        self._block = block or pair_block(unit)
        self._limit = limit(delta, unit)
        if found is None:
            self._pass(memory_cap)
        else:
            self.degrees = torch.from_numpy(found["degrees"])
            self.indices, self.offsets = found.get("indices"), found.get("offsets")

    def arrays(self) -> dict[str, np.ndarray]:
        """What the pass found."""
        lists = {"indices": self.indices, "offsets": self.offsets}
        return {"degrees": self.degrees.numpy()} | {name: a for name, a in lists.items() if a is not None}

    def _pass(self, memory_cap: int) -> None:
        degrees = np.zeros(self.N, dtype=np.int32)
        # Upper triangle only: per block pair its columns in row order, and how many each row has.
        pieces: list[tuple[slice, slice, np.ndarray, np.ndarray]] | None = []
        pairs = 0
        norms = self.unit.sq_norms
        for rows, x, columns, y in block_pairs(self.unit, self._block):
            d2 = squared_distances(x, y, norms[rows], norms[columns])
            hit = d2 < self._limit
            if rows == columns:
                hit.fill_diagonal_(True)
            row, column = _coordinates(hit)
            per_row = np.bincount(row, minlength=hit.shape[0]).astype(np.int32)
            degrees[rows] += per_row
            if rows != columns:
                degrees[columns] += np.bincount(column, minlength=hit.shape[1]).astype(np.int32)
            pairs += len(column)
            # The pieces (2 bytes a pair) and the lists (8 bytes, both directions) exist together for a moment.
            if pieces is not None and 10 * pairs + 16 * self.N > memory_cap:
                pieces = None
            if pieces is not None and len(column):
                pieces.append((rows, columns, per_row, column.astype(np.uint16)))
        self.degrees = torch.from_numpy(degrees)
        if pieces is not None:
            self._compress(pieces)

    def _compress(self, pieces: list[tuple[slice, slice, np.ndarray, np.ndarray]]) -> None:
        self.offsets = np.zeros(self.N + 1, dtype=np.int64)
        np.cumsum(self.degrees.numpy(), out=self.offsets[1:])
        self.indices = indices = np.empty(int(self.offsets[-1]), dtype=np.int32)
        ends = self.offsets[:-1].copy()  # where each row's next neighbour goes

        def append(block: slice, per_row: np.ndarray, neighbours: np.ndarray) -> None:
            before = np.cumsum(per_row) - per_row
            place = np.repeat(ends[block] - before, per_row) + np.arange(len(neighbours))
            indices[place] = neighbours
            ends[block] += per_row

        # Pieces come in the order of their rows' blocks, so every row receives its neighbours in ascending order:
        # first, transposed, from the blocks above it, then from its own and the later ones. A piece is dropped as
        # soon as it is written.
        pieces.sort(key=lambda piece: (piece[0].start, piece[1].start))
        pieces.reverse()
        while pieces:
            rows, columns, per_row, column = pieces.pop()
            append(rows, per_row, column.astype(np.int32) + columns.start)
            if rows != columns:
                row = np.repeat(np.arange(rows.start, rows.stop, dtype=np.int32), per_row)
                per_column = np.bincount(column, minlength=columns.stop - columns.start)
                append(columns, per_column, row[np.argsort(column, kind="stable")])

    def union(self, items: np.ndarray) -> np.ndarray:
        """bool (N,): inside the ball of at least one of the items (int64 (m,))."""
        inside = np.zeros(self.N, dtype=bool)
        if self.indices is not None:
            for neighbours in self._lists(items):
                inside[neighbours] = True
            return inside
        for rows, hit in self.products(torch.from_numpy(items)):
            inside[rows] |= hit.any(1).cpu().numpy()
        return inside

    def counts(self, items: np.ndarray) -> np.ndarray:
        """int32 (N,): how many of the distinct items (int64 (m,)) lie in each item's ball."""
        total = np.zeros(self.N, dtype=np.int32)
        if self.indices is not None:
            for neighbours in self._lists(items):
                total += np.bincount(neighbours, minlength=self.N).astype(np.int32)
            return total
        for rows, hit in self.products(torch.from_numpy(items)):
            total[rows] += hit.sum(1, dtype=torch.int32).cpu().numpy()
        return total

    def _lists(self, items: np.ndarray) -> Iterator[np.ndarray]:
        """The items' neighbour lists one after the other, in chunks of about LISTED."""
        assert self.indices is not None and self.offsets is not None
        first, lengths = self.offsets[items], self.offsets[items + 1] - self.offsets[items]
        chunk = (np.cumsum(lengths) - lengths) // LISTED
        for part in np.split(np.arange(len(items)), np.flatnonzero(np.diff(chunk)) + 1) if len(items) else ():
            mine = lengths[part]
            before = np.cumsum(mine) - mine
            yield self.indices[np.repeat(first[part] - before, mine) + np.arange(int(mine.sum()))]

    def products(self, items: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """(rows, hit (b, m')) over the pool: which of int64 (m,) items lie in each row's ball, a block at a time."""
        for _, rows, d2 in _to_centres(self.unit, items.to(self.unit.device), self._block):
            yield rows, d2 < self._limit


class CoverState:
    """One replicate's greedy maximum cover: what is covered so far and what each ball would add.

    covered: bool (N,). degrees: int32 (N,), items in each ball that are not covered yet. Both on the host, functions of
    the balls covered so far whatever their order. A replicate's updates cost at most one more pass in a whole run:
    every item is covered once.
    """

    def __init__(self, cover: Cover) -> None:
        self.cover_of = cover
        self.covered = torch.zeros(cover.N, dtype=torch.bool)
        self.degrees = cover.degrees.clone()
        self._centres: list[int] = []
        self._far: FarthestFirst | None = None

    @property
    def covered_share(self) -> float:
        """Share of the pool inside a covered ball."""
        return int(np.count_nonzero(self.covered.numpy())) / self.cover_of.N

    @property
    def added(self) -> Tensor:
        """Rows whose balls were covered, int64 (n,), in that order, on the host."""
        return torch.tensor(self._centres, dtype=torch.int64)

    def add(self, rows: Tensor) -> None:
        """Marks the balls of pool rows, int64 (m,), as covered."""
        items = rows.cpu().numpy().astype(np.int64)
        if len(items):
            self._cover(items)

    def _cover(self, items: np.ndarray) -> None:
        self._centres.extend(items.tolist())
        covered = self.covered.numpy()
        new = np.flatnonzero(self.cover_of.union(items) & ~covered)
        if not len(new):
            return
        covered[new] = True
        left = np.flatnonzero(~covered)
        # The same numbers either way: take off what is new, or count what is left, whichever is less.
        if len(new) <= len(left):
            self.degrees.numpy()[:] -= self.cover_of.counts(new)
        else:
            self.degrees.numpy()[:] = self.cover_of.counts(left)

    def select(self, allowed: Tensor, budget: int) -> Tensor:
        """Picks, int64 (min(budget, allowed items),): repeatedly the allowed item that covers most, ties lower index.

        allowed: bool (N,). When no allowed item covers anything new, goes on with the item farthest from all centres
        so far (k-center). Picks are covered as they are made; none is repeated.
        """
        free = allowed.cpu().numpy().copy()
        picks: list[int] = []
        degrees = self.degrees.numpy()
        for _ in range(min(budget, int(np.count_nonzero(free)))):
            value = np.where(free, degrees, -1)
            best = int(np.argmax(value))  # the first of equals
            if value[best] < 1:
                break
            picks.append(best)
            free[best] = False
            self._cover(np.array([best]))
        return self._completed(picks, free, budget)

    @property
    def vectors(self) -> Vectors:
        """See `greedy.Replicate`."""
        return self.cover_of.unit

    def alike(self) -> Hashable | None:
        """See `greedy.Replicate`: with lists, which the host walks, each has its own steps."""
        return self.cover_of if self.cover_of.indices is None else None

    @classmethod
    def together(cls, states: Sequence[CoverState], allowed: Tensor, budget: int) -> list[Tensor]:
        """See `greedy.Replicate`."""
        device = states[0].vectors.device
        bounds = torch.stack([state.degrees for state in states]).to(device, torch.float64)
        found = greedy.stepwise(_Uncovered(states), bounds, allowed, budget, least=1.0)
        picks = []
        for state, free, own in zip(states, allowed.cpu().numpy().copy(), found, strict=True):
            rows = own.cpu()
            free[rows.numpy()] = False
            state.add(rows)
            picks.append(state._completed(rows.tolist(), free, budget))
        return picks

    def _completed(self, picks: list[int], free: np.ndarray, budget: int) -> Tensor:
        """The picks on the device, and the farthest items where they are fewer than `budget` and items are free."""
        device = self.vectors.device
        if len(picks) < budget and free.any():
            if self._far is None:
                self._far = FarthestFirst(self.vectors)
            self._far.add(torch.tensor(self._centres[len(self._far.added) :], dtype=torch.int64, device=device))
            far = self._far.select(torch.from_numpy(free).to(device), budget - len(picks))
            self._cover(far.cpu().numpy())
            picks.extend(far.tolist())
        return torch.tensor(picks, dtype=torch.int64, device=device)


class _Uncovered:
    """A batch on the device, for `greedy.stepwise`: how many items that nothing covers yet lie in a ball."""

    def __init__(self, states: Sequence[CoverState]) -> None:
        self.balls = states[0].cover_of
        self.uncovered = ~torch.stack([state.covered for state in states]).to(self.balls.unit.device)
        self.state = [self.uncovered]

    def look(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """See `greedy.Stepwise`: the balls are the rows, bool (R, m, N)."""
        ball = self.uncovered.new_empty(items.numel(), self.balls.N)
        for rows, hit in self.balls.products(items.flatten()):
            ball[:, rows] = hit.T
        ball = ball.view(*items.shape, -1)
        return (ball & self.uncovered[:, None]).sum(2).double(), ball

    def take(self, rows: Tensor, live: Tensor) -> None:
        """See `greedy.Stepwise`."""
        self.uncovered.logical_and_(~(rows & live))

    def renew(self, bounds: Tensor, steps: int) -> bool:
        """Never: all degrees would take a pass over all pairs."""
        return False


def _to_centres(unit: Vectors, centres: Tensor, size: int = 1024) -> Iterator[tuple[slice, slice, Tensor]]:
    """(chunk of centres, pool rows, squared distances (b, m)); an item's distance to itself is -1: always inside."""
    norms = unit.sq_norms
    for start in range(0, len(centres), size):
        chunk = slice(start, min(start + size, len(centres)))
        y = unit.rows(centres[chunk], plain=True)
        for rows, x in unit.blocks():
            d2 = squared_distances(x, y, norms[rows], norms[centres[chunk]])
            own = torch.arange(rows.start, rows.stop, device=d2.device)[:, None] == centres[chunk]
            yield chunk, rows, d2.masked_fill_(own, -1.0)


def _coordinates(hit: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) of the True entries of a block, in row order."""
    flat = places(hit).cpu().numpy()
    row = flat // hit.shape[1]
    return row, flat - row * hit.shape[1]
