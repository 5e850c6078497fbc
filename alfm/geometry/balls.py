"""Balls of different sizes around pool items (DCoM): their purity, what they cover, what is uncovered near each item.

Item x lies in the ball of c iff |u_x - u_c| < the ball's radius; an item always lies in its own ball. Strictness leaves
the margin of `alfm.geometry.pairs.limit`.

The radius that counts neighbours moves a little from round to round, and lies where few pairs are nearer. So the pairs
nearer than a slightly larger radius are listed once per pool, with their distances: what
a round then asks of N x N pairs is a walk over the lists.

Source: Mishal & Weinshall 2024 (DCoM, 2407.01804).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from alfm.features.features import Vectors
from alfm.geometry.nearer_pairs import Pairs, listed, room_for
from alfm.geometry.pairs import block_pairs, in_parts, limit, pair_block, products, squared_distances
from alfm.host_ops import any_column, below, count_rows
from alfm.threads import each_of

_CHUNK = 128  # centres in a product
_BLOCK = 4096  # items in it
_JOBS = 8  # block pairs at a time: enough for every core, few enough to hold
_MORE = 1.02  # lists reach this much farther than what is asked for
_SAMPLE = 64  # items whose distances say how many pairs a radius holds


# -- a few balls, each of its own radius -----------------------------------------------------------------------------


class Centres:
    """Squared distances of some items (`rows`, int64 (L,), or (R, L) of replicates) to all items, a chunk at a time.

    Iterating gives (chunk, (.., m, N)), m of the L, as often as it is done; distances of an item to itself are -1. They
    are held while all of them fit into `hold` bytes, by default 16 of a block, and otherwise found again each time: the
    same numbers. Cost: O(R L N D).
    """

    def __init__(self, unit: Vectors, rows: Tensor, hold: int | None = None) -> None:
        self.unit, self.rows = unit, rows.to(unit.device)
        self._size = _CHUNK
        if unit.pool.joins_replicates:
            self._size = max(1, unit.pool.block_numbers // unit.N // math.prod(rows.shape[:-1]))
        hold = max(256 << 20, 16 * unit.pool.block_numbers) if hold is None else hold
        held = rows.numel() * unit.N * torch.finfo(unit.pool.dtype).bits // 8 <= hold
        self._held = list(self._walk()) if held else None

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        return iter(self._held) if self._held is not None else self._walk()

    def _walk(self) -> Iterator[tuple[slice, Tensor]]:
        L = self.rows.shape[-1]
        for start in range(0, L, self._size):
            chunk = slice(start, min(start + self._size, L))
            yield chunk, _to_all(self.unit, self.rows[..., chunk])


def _to_all(unit: Vectors, rows: Tensor) -> Tensor:
    """Squared distances (.., N) of items int64 (..) to all; -1 to themselves."""
    own, norms = rows.flatten(), unit.sq_norms
    q = unit.rows(own, plain=True)
    d2 = norms.new_empty(len(own), unit.N)
    # on the CPU of one size, whatever the pool's: the same numbers
    for columns, x in unit.blocks(None if unit.pool.joins_replicates else _BLOCK):
        d2[:, columns] = squared_distances(q, x, norms[own], norms[columns])
    return d2.scatter_(1, own[:, None], -1.0).view(*rows.shape, unit.N)


def ball_purity(unit: Vectors, d2: Tensor, radii: Tensor, agree: Tensor) -> Tensor:
    """Share of the items in each ball that agree with its centre, float64 (.., m).

    d2: (.., m, N) from `Centres`; radii: (.., m); agree: bool (.., m, N).
    """
    hit = below(d2, limit(radii, unit))
    return count_rows(hit & agree).double() / count_rows(hit)


def covered_by(centres: Centres, radii: Tensor) -> Tensor:
    """bool (.., N): inside the ball of at least one centre; radii: (.., L), one per centre."""
    limits = limit(radii, centres.unit)
    covered = torch.zeros(*radii.shape[:-1], centres.unit.N, dtype=torch.bool, device=centres.unit.device)
    for chunk, d2 in centres:
        covered |= any_column(below(d2, limits[..., chunk]))
    return covered


# -- balls of one radius around every item ---------------------------------------------------------------------------


class NearPairs:
    """All pairs of a pool's items nearer than `reach`, with squared distances, as compressed rows on the host.

    offsets (N + 1,), indices int32, d2: ascending rows and columns, both directions, no item beside itself. `most`:
    the largest radius whose lists (8 bytes an entry) fit into `memory_cap` bytes, estimated from a sample of rows; it
    depends on the pool only, so that a replicate is served by the lists or not whatever other replicates need.
    """

    def __init__(self, unit: Vectors, memory_cap: int = 512 << 20, block: int | None = None) -> None:
        self.unit, self.N, self._block = unit, unit.N, block
        self.most = self._largest(memory_cap // (4 + torch.finfo(unit.pool.dtype).bits // 8))
        self.reach = -1.0
        self.offsets = np.zeros(self.N + 1, dtype=np.int64)
        self.indices = np.zeros(0, dtype=np.int32)
        self.d2 = np.zeros(0, dtype=np.float32)

    def _largest(self, pairs: int) -> float:
        if pairs >= self.N**2:
            return math.inf
        rows = torch.linspace(0, self.N - 1, min(_SAMPLE, self.N), device=self.unit.device).long()
        d2 = _to_all(self.unit, rows).flatten().cpu().numpy()
        place = int(len(d2) * pairs / self.N**2)
        return math.sqrt(max(0.0, np.partition(d2, place)[place]))

    def hold(self, radius: float) -> None:
        """Lists for balls of up to this radius: one symmetric pass, N^2 D / 2 products, unless they are there."""
        wanted = min(_MORE * radius, self.most)  # radii move little from round to round
        if radius > self.reach:
            self._fill(limit(wanted, self.unit))
        elif self.reach > _MORE * wanted:  # radii fall as labels come in: shorter lists are walked faster
            self._cut(limit(wanted, self.unit))
        else:
            return
        self.reach = wanted

    def _fill(self, most: Tensor) -> None:
        from scipy.sparse import csr_array

        self.indices, self.d2 = self.indices[:0], self.d2[:0]  # the old lists make room
        pairs = block_pairs(self.unit, self._block)
        pieces = [own for _, own in each_of(pairs, lambda pair: _near(self.unit, most, *pair), self.unit.device, _JOBS)]
        total = sum(len(piece.d2) * (1 if piece.rows == piece.columns else 2) for piece in pieces)
        self.indices, self.d2 = np.empty(total, dtype=np.int32), np.empty(total, dtype=pieces[0].d2.dtype)
        # In the order of the blocks every row gets its neighbours in ascending order: first, transposed, from the
        # blocks above it, then from its own and the later ones.
        pieces.sort(key=lambda piece: (piece.rows.start, piece.columns.start))
        for block in dict.fromkeys((piece.rows.start, piece.rows.stop) for piece in pieces):
            above = [piece for piece in pieces if piece.columns.start == block[0] > piece.rows.start]
            after = [piece for piece in pieces if piece.rows.start == block[0]]
            row = [piece.column for piece in above] + [piece.row for piece in after]
            column = [piece.row + np.int32(piece.rows.start) for piece in above]
            column += [piece.column + np.int32(piece.columns.start) for piece in after]
            d2 = np.concatenate([piece.d2 for piece in above + after])
            lists = csr_array((d2, (np.concatenate(row), np.concatenate(column))), shape=(block[1] - block[0], self.N))
            first = self.offsets[block[0]]
            self.offsets[block[0] + 1 : block[1] + 1] = first + lists.indptr[1:]
            own = slice(first, first + len(d2))
            self.indices[own], self.d2[own] = lists.indices, lists.data
            pieces = [piece for piece in pieces if piece.columns.start > block[0]]  # the others are written

    def _cut(self, most: Tensor) -> None:
        kept = self.d2 < most.numpy()
        degrees = [np.count_nonzero(kept[first:last]) for first, last in pairwise(self.offsets.tolist())]
        self.offsets[1:] = np.cumsum(degrees)
        self.indices, self.d2 = self.indices[kept], self.d2[kept]


class PairsAround:
    """All pairs of a pool's items nearer than `reach`, kept on an accelerator: what a pass would count again."""

    def __init__(self, unit: Vectors) -> None:
        self.unit, self.reach = unit, -1.0
        self.pairs: Pairs | None = None

    def holds(self, radius: float) -> bool:
        """Whether balls of up to this radius can be counted: one pass, unless the lists are there; False without room
        for them."""
        wanted = _MORE * radius  # radii move little from round to round
        least = -limit(wanted, self.unit).expand(1, self.unit.N)
        if self.pairs is None or radius > self.reach:
            self.pairs = None  # makes room
            self.pairs = listed(self.unit, least) if room_for(self.unit, least) else None
        elif self.reach > _MORE * wanted:  # radii fall as labels come in
            self.pairs = self.pairs.at((self.pairs.closeness > least[0, 0]).nonzero()[:, 0])
        else:
            return True
        self.reach = wanted
        return self.pairs is not None

    def degrees(self, limits: Tensor, uncovered: Tensor) -> Tensor:
        """`out_degrees`; no radius is larger than what is held."""
        assert self.pairs is not None
        item, target, close = self.pairs
        inside = uncovered.T.index_select(0, target) & (close[:, None] > -limits) & (item != target)[:, None]
        counts = self.pairs.sums(inside.to(close), self.unit.N)  # below 2^24: exact, in any order
        return counts.T.long() + uncovered


class _Piece(NamedTuple):
    """The pairs of a block that are near: places within the block, uint16, and d2, in row order."""

    rows: slice
    columns: slice
    row: np.ndarray
    column: np.ndarray
    d2: np.ndarray


def _near(unit: Vectors, most: Tensor, rows: slice, x: Tensor, columns: slice, y: Tensor) -> _Piece:
    """The pairs of a block below `most`."""
    norms = unit.sq_norms
    d2 = squared_distances(x, y, norms[rows], norms[columns])
    if rows == columns:
        d2.fill_diagonal_(torch.inf)
    host = d2.cpu().numpy()
    flat = np.flatnonzero(host < most.numpy())
    row = flat // host.shape[1]
    column = flat - row * host.shape[1]
    return _Piece(rows, columns, row.astype(np.uint16), column.astype(np.uint16), host.ravel()[flat])


class Around(Protocol):
    """Balls of one radius around every item."""

    def counts(self, items: Tensor, flags: Tensor) -> Tensor:
        """How many flagged items, bool (N,), lie in the ball of each of `items`, int64 (m,): int64 (m,)."""
        ...

    def clear(self, item: Tensor, flags: Tensor) -> None:
        """Takes the flags (N,) from the items in the ball of `item`, int64 (1,), in place."""
        ...


class ListedBalls:
    """Balls of one radius, at most the lists' reach, read off `NearPairs`."""

    def __init__(self, near: NearPairs, radius: Tensor) -> None:
        self.near, self.limit = near, limit(radius, near.unit).numpy()

    def degrees(self, flags: Tensor) -> Tensor:
        """Flagged items in every item's ball, int64 (N,): one walk over the lists, of the flagged items if few."""
        from scipy.sparse import csr_array

        near, own = self.near, flags.numpy()
        if np.count_nonzero(own) * 4 < near.N:
            total = own.astype(np.int64)
            for i in np.flatnonzero(own):
                total[self._ball(int(i))] += 1
            return torch.from_numpy(total)
        weight = own.astype(np.float32)  # counts below 2^24: exact
        inside = (near.d2 < self.limit).astype(np.float32)
        hit = csr_array((inside, near.indices, near.offsets), shape=(near.N, near.N))
        return torch.from_numpy(hit @ weight + weight).long()

    def counts(self, items: Tensor, flags: Tensor) -> Tensor:
        """See `Around`."""
        own = flags.numpy()
        found = [np.count_nonzero(own[self._ball(i)]) + int(own[i]) for i in items.tolist()]
        return torch.tensor(found, dtype=torch.int64)

    def clear(self, item: Tensor, flags: Tensor) -> None:
        """See `Around`."""
        flags[item] = False
        flags.numpy()[self._ball(int(item))] = False

    def _ball(self, item: int) -> np.ndarray:
        own = slice(self.near.offsets[item], self.near.offsets[item + 1])
        return self.near.indices[own][self.near.d2[own] < self.limit]


class MultipliedBalls:
    """Balls of one radius by products with the pool, where lists do not pay or do not fit: N D per ball.

    limit: () `pairs.limit` of the radius.
    """

    def __init__(self, unit: Vectors, limit: Tensor) -> None:
        self.unit, self.limit = unit, limit

    def counts(self, items: Tensor, flags: Tensor) -> Tensor:
        """See `Around`."""
        return count_rows(self._inside(items) & flags)

    def clear(self, item: Tensor, flags: Tensor) -> None:
        """See `Around`."""
        flags &= ~self._inside(item)[0]

    def _inside(self, items: Tensor) -> Tensor:
        return below(_to_all(self.unit, items), self.limit.expand(len(items)))


def inside(unit: Vectors, items: Tensor, limits: Tensor) -> Tensor:
    """The balls of int64 (R, m) items, bool (R, m, N), by kernels alone; limits (R,): `pairs.limit` of each radius."""
    return _to_all(unit, items) < limits[:, None, None]


def out_degrees(unit: Vectors, limits: Tensor, uncovered: Tensor, block: int | None = None) -> Tensor:
    """How many uncovered items lie within a radius of each item, int64 (R, N), the item itself included.

    limits (R,): `pairs.limit` of each radius; uncovered: bool (R, N). Replicates share one symmetric pass; one with few
    uncovered items (under a tenth) is served by products with those items only. Which of the two is decided by the
    replicate's own flags, and counts are exact integers, so its result does not depend on the others.
    """
    out = torch.zeros(uncovered.shape, dtype=torch.int64, device=unit.device)
    target = uncovered.to(unit.pool.dtype)  # counts below 2^24: exact in float32
    few = uncovered.sum(1) * 10 < unit.N
    own = few.tolist()
    if any(own):
        of, items = (uncovered & few[:, None]).nonzero().T
        size = max(1, unit.pool.block_numbers // unit.N) if unit.pool.joins_replicates else _CHUNK
        for r, some in zip(of.split(size), items.split(size), strict=True):
            hit = below(_to_all(unit, some), limits[r])
            whose = r == torch.arange(len(out), device=r.device)[:, None]
            out += (whose.to(target) @ hit.to(target)).long()
    shared = [r for r in range(len(own)) if not own[r]]
    if not shared:
        return out
    some_of = slice(None) if len(shared) == len(own) else torch.tensor(shared, device=out.device)
    found, target, limits = out[some_of], target[some_of], limits[some_of]
    parts, norms = in_parts(unit, len(shared), block or pair_block(unit)), unit.sq_norms
    for rows, x, columns, y in block_pairs(unit, block):
        d2 = squared_distances(x, y, norms[rows], norms[columns])
        if rows == columns:
            d2.fill_diagonal_(-1.0)
        for part in parts:
            most = limits[part][..., None, None]
            hit = torch.lt(d2, most, out=d2.new_empty(*most.shape[:-2], *d2.shape))
            found[part, rows] += products(hit, target[part, columns]).long()
            if rows != columns:
                found[part, columns] += products(hit.mT, target[part, rows]).long()
    out[some_of] = found
    return out
