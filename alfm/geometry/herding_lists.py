"""Herding on lists: for every item the targets that it is closer to than anything labelled.

A pair (item x, target n) adds to a gain only while x is closer to n than every item added so far, whatever the
kernel's width and the target's weight. With n items added at random about N^2 / (n + 1) pairs are left, 1 % of all at
100 labels. One symmetric pass over the pool, its products shared by all replicates, lists them; from then on gains
are short sums over lists, which only shrink. Lists live on the host; a GPU has its own (`nearer_pairs`), which bound
what products find.

Everything here is to the last bit a function of the pool and of the SET of items added, however it came about, so that
a resumed run picks alike: pairs' values come from blocks that are the same in every pass, best values are maxima of
those, and contributions are rounded to integers before they are summed, so that neither order nor absent zeros matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import ceil, log2
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.geometry.kernels import Kernel
from alfm.geometry.pairs import block_pairs, pair_block
from alfm.threads import batched, side_by_side

if TYPE_CHECKING:
    from alfm.features.features import Vectors

PAIRS = 12 << 20  # most pairs of a replicate, 8 bytes each; the same whoever runs beside it, since it decides the path
PATIENCE = 64  # candidates looked at again before all gains are made anew; grows with the lists
CHUNK = 1 << 16  # pairs at a time, so that the steps of a pass over them stay in the cache
SAMPLE = 256  # targets that tell beforehand how long the lists will be


class Lists:
    """One replicate's pairs, grouped by item.

    Item x's targets are targets[offsets[x] : offsets[x + 1]] (int32) and how close it is to each is in `values`, at
    the same places: any measure that rises with similarity. kappa (N,): each target's largest value with what was
    added; every pair above it is listed. most: no similarity is larger.
    """

    def __init__(
        self,
        offsets: np.ndarray,
        targets: np.ndarray,
        values: np.ndarray,
        kappa: np.ndarray,
        added: list[int],
        most: float,
    ) -> None:
        self.offsets, self.targets, self.values, self.kappa = offsets, targets, values, kappa
        self._added, self.most = added, most
        self._pruned = len(added)

    @property
    def added(self) -> Tensor:
        """Pool rows added and picked so far, int64 (n,), in that order."""
        return torch.tensor(self._added, dtype=torch.int64)

    def add(self, rows: Tensor) -> None:
        """Raises kappa to the values of more pool rows, int64 (m,)."""
        self._add(rows.tolist())

    def _add(self, rows: Sequence[int]) -> None:
        for row in rows:
            place = slice(self.offsets[row], self.offsets[row + 1])
            near, value = self.targets[place], self.values[place]
            up = np.flatnonzero(value > self.kappa[near])
            self.kappa[near[up]] = value[up]
        self._added = [*self._added, *rows]

    def prune(self, growth: float) -> None:
        """Drops pairs that add nothing any more, once there is `growth` times as much added as at the last time."""
        if len(self._added) <= growth * self._pruned:
            return
        self._pruned = len(self._added)
        ends, targets, values = [np.zeros(1, dtype=np.int64)], [], []
        for items, pairs in _chunks(self.offsets):
            near, value = self.targets[pairs], self.values[pairs]
            left = np.flatnonzero(value > self.kappa.take(near, mode="clip"))
            stops = self.offsets[items.start + 1 : items.stop + 1] - pairs.start
            ends.append(np.searchsorted(left, stops) + ends[-1][-1])
            targets.append(near[left])
            values.append(value[left])
        self.offsets = np.concatenate(ends)
        self.targets, self.values = _joined(targets, self.targets), _joined(values, self.values)

    def at(self, kernel: Kernel, weight: Tensor | None = None, last: bool = False) -> ListHerding:
        """Gains for a kernel and the targets' weights >= 0, (N,): values are the kernel's `closeness` here.

        last: these lists are not needed afterwards, so their memory may be used.
        """
        return ListHerding(self, kernel, None if weight is None else weight.numpy(), last)


class ListHerding(Lists):
    """Herding on lists: `select` what comes next. Its picks are those of `herding.Herding`, up to rounding.

    Values are weighted similarities, scaled so that contributions can be rounded to integers: a step is less than 2^-58
    of the largest possible gain. bounds: int64 (N,), gains or what they were before something was added, kept between
    rounds. Cost: O(N^2 / n) once, then what is left of a list per candidate that is looked at again.
    """

    def __init__(self, lists: Lists, kernel: Kernel, weight: np.ndarray | None = None, last: bool = False) -> None:
        self.kernel = kernel
        N = len(lists.kappa)
        most = -kernel.nothing if kernel.nothing < 0 else lists.most  # that one item can add for one target
        top = most * (1.0 if weight is None else float(weight.max()))
        # A power of two: multiplying by it is exact.
        scale = 2.0 ** min(100, 61 - ceil(log2(N)) - ceil(log2(top))) if top > 0 else 1.0

        def value(closeness: np.ndarray, near: np.ndarray | slice) -> np.ndarray:
            similar = kernel.similarity(closeness)
            if weight is not None:
                similar = similar * weight[near]
            return np.multiply(similar, closeness.dtype.type(scale))

        values = lists.values if last else np.empty_like(lists.values)
        for start in range(0, len(values), CHUNK):
            part = slice(start, start + CHUNK)
            values[part] = value(lists.values[part], lists.targets[part])
        super().__init__(
            lists.offsets, lists.targets, values, value(lists.kappa, slice(None)), lists._added, lists.most
        )
        self.bounds = self.gains()

    def gains(self) -> np.ndarray:
        """Every item's gain now, int64 (N,)."""
        out = np.zeros(len(self.kappa), dtype=np.int64)
        for items, pairs in _chunks(self.offsets):
            start, stop = self.offsets[items], self.offsets[items.start + 1 : items.stop + 1]
            some = np.flatnonzero(stop > start)
            if len(some):
                out[items.start + some] = np.add.reduceat(self._steps(pairs), start[some] - pairs.start)
        return out

    def _steps(self, pairs: slice) -> np.ndarray:
        rest = self.values[pairs] - self.kappa.take(self.targets[pairs], mode="clip")
        return np.maximum(rest, 0, out=rest).astype(np.int64)

    def select(self, allowed: Tensor, budget: int) -> Tensor:
        """The next picks, int64 (min(budget, allowed items),), added as they are made, ties lower index.

        allowed: bool (N,). Lazy greedy (see `greedy.lazy`), one candidate at a time.
        """
        self.prune(2.0)
        free = allowed.numpy()
        open_bounds = np.where(free, self.bounds, -1)
        picks: list[int] = []
        for _ in range(min(budget, int(np.count_nonzero(free)))):
            best = self._best(open_bounds)
            self._add([best])
            open_bounds[best] = -1
            picks.append(best)
        return torch.tensor(picks, dtype=torch.int64)

    def _best(self, open_bounds: np.ndarray) -> int:
        """The item of largest gain; open_bounds: bounds, -1 where an item is not to be had."""
        fresh: set[int] = set()
        patience = PATIENCE + len(self.values) // 4096  # as many candidates cost as much as a pass over all pairs
        while True:
            best = int(open_bounds.argmax())  # the first of equals
            if best in fresh or open_bounds[best] == 0:  # no gain is below 0
                return best
            if len(fresh) == patience:
                self.bounds = self.gains()
                np.copyto(open_bounds, self.bounds, where=open_bounds >= 0)
                return int(open_bounds.argmax())
            gain = np.add.reduce(self._steps(slice(self.offsets[best], self.offsets[best + 1])))
            self.bounds[best] = open_bounds[best] = gain
            fresh.add(best)


def _chunks(offsets: np.ndarray) -> Iterator[tuple[slice, slice]]:
    """(items, their pairs): whole items, about CHUNK pairs at a time."""
    marks = np.searchsorted(offsets[:-1], np.arange(CHUNK, int(offsets[-1]), CHUNK))
    bounds = [0, *np.unique(marks).tolist(), len(offsets) - 1]
    for start, stop in zip(bounds, bounds[1:], strict=False):
        if start < stop:
            yield slice(start, stop), slice(int(offsets[start]), int(offsets[stop]))


def _joined(parts: list[np.ndarray], like: np.ndarray) -> np.ndarray:
    return np.concatenate([like[:0], *parts])


# -- making lists ----------------------------------------------------------------------------------------------------


def make_lists(vectors: Vectors, kernel: Kernel, added: Sequence[Tensor]) -> list[Lists | None]:
    """Each replicate's lists with the pool rows added[r], int64 (n_r,); None where they would be longer than PAIRS.

    Values are `kernel.closeness`. One pass of N^2 D / 2 products for all. Where a device does not keep lists, and while
    nothing is added (every pair would be listed), there are no lists.
    """
    out: list[Lists | None] = [None] * len(added)
    if not devices.of(vectors.device).keeps_pair_lists:
        return out
    least = _reached(vectors, kernel, added)
    expected = _expected(vectors, kernel, least)
    most_expected = 0.75 * PAIRS if vectors.N**2 > PAIRS else torch.inf
    few = [r for r, own in enumerate(added) if len(own) and expected[r] <= most_expected]
    if not few:
        return out
    most = float(kernel.diagonal(vectors.sq_norms).max())
    made = _pass(vectors, kernel, least[few].numpy(), [expected[r] for r in few])
    for r, pairs in zip(few, made, strict=True):
        if pairs is not None:
            one = Lists(*pairs.whole(), np.full(vectors.N, kernel.floor, dtype=pairs.values.dtype), [], most)
            one.add(added[r])  # the blocks' own values, so that a best value does not depend on when it came
            one._pruned = len(one._added)
            out[r] = one
    return out


def _reached(vectors: Vectors, kernel: Kernel, added: Sequence[Tensor]) -> Tensor:
    """(R, N): a little less than each target's largest closeness to what was added, whatever shape products have."""
    sq = vectors.sq_norms
    best = sq.new_full((len(added), vectors.N), kernel.floor)
    for rows, x in vectors.blocks():
        for r, own in enumerate(added):
            for part in own.split(1024) if len(own) else ():
                close = kernel.closeness(x @ vectors.rows(part).T, sq[rows], sq[part]).amax(1)
                best[r, rows] = torch.maximum(best[r, rows], close)
    slack = 128 * torch.finfo(sq.dtype).eps * float(sq.max())
    return best.sub_(slack).clamp_min_(kernel.floor)


def _expected(vectors: Vectors, kernel: Kernel, least: Tensor) -> list[int]:
    """About how many pairs are above least (R, N), from a sample of targets."""
    N, sq = vectors.N, vectors.sq_norms
    sample = torch.arange(0, N, max(1, N // SAMPLE))
    y, limits = vectors.rows(sample), least[:, sample]
    count = torch.zeros(len(least), dtype=torch.int64)
    for rows, x in vectors.blocks():
        close = kernel.closeness(x @ y.T, sq[rows], sq[sample])
        count += torch.stack([(close > own).sum() for own in limits])
    return [pairs * N // len(sample) for pairs in count.tolist()]


Piece = tuple[np.ndarray, np.ndarray, np.ndarray, int]  # items and targets in their blocks, values, first target
Part = tuple[np.ndarray, np.ndarray, np.ndarray]  # of a block of items: pairs per item, targets, values


class _Pairs:
    """Lists on the way, in arrays that are made for as many pairs as expected and grow if there are more."""

    def __init__(self, expected: int, dtype: np.dtype) -> None:
        self.counts: list[np.ndarray] = [np.zeros(1, dtype=np.int64)]
        size = min(PAIRS, expected + expected // 4)
        self.targets, self.values = np.empty(size, dtype=np.int32), np.empty(size, dtype=dtype)
        self.length = 0

    def append(self, part: Part) -> bool:
        """Adds the next block of items; False where that makes more than PAIRS."""
        counts, targets, values = part
        place = slice(self.length, self.length + len(targets))
        if place.stop > PAIRS:
            return False
        if place.stop > len(self.targets):
            size = min(PAIRS, place.stop + place.stop // 4)
            self.targets, self.values = np.resize(self.targets, size), np.resize(self.values, size)
        self.targets[place], self.values[place], self.length = targets, values, place.stop
        self.counts.append(counts)
        return True

    def whole(self) -> Part:
        """Offsets (N + 1,), targets, values."""
        return np.cumsum(np.concatenate(self.counts)), self.targets[: self.length], self.values[: self.length]


def _pass(vectors: Vectors, kernel: Kernel, levels: np.ndarray, expected: list[int]) -> list[_Pairs | None]:
    """Each replicate's pairs above its levels (R, N), block of items by block of items; None: more than PAIRS.

    Memory beside the result: pairs whose block of items is not complete yet, at most a quarter.
    """
    N, size, sq = vectors.N, pair_block(vectors), vectors.sq_norms
    strip = size if vectors.matrix is not None else 16 * size  # blocks of rows that `block_pairs` finishes together
    levels = levels.copy()
    lowest = torch.from_numpy(levels.min(0))
    out: list[_Pairs | None] = [_Pairs(pairs, levels.dtype) for pairs in expected]
    found: dict[int, list[Piece]] = {}  # by first item of the block

    def job(rows: slice, x: Tensor, columns: slice, y: Tensor) -> list[tuple[int, Piece]]:
        close = kernel.closeness(_product(x, y), sq[rows], sq[columns])
        row, column, value = _coordinates(close, close > lowest[columns])
        pieces = [(rows.start, (row, column, value, columns.start))]
        if rows != columns:
            row, column, value = _coordinates(close, close > lowest[rows, None])
            pieces.append((columns.start, (column, row, value, rows.start)))
        return pieces

    for blocks in batched(block_pairs(vectors, size), 16):
        for pieces in side_by_side([partial(job, *block) for block in blocks], vectors.device):
            for start, piece in pieces:
                found.setdefault(start, []).append(piece)
        last_rows, _, last_columns, _ = blocks[-1]
        end = N if last_rows.stop == last_columns.stop == N else last_rows.start // strip * strip
        ready = sorted(start for start in found if start < end)
        jobs = [partial(_group, found.pop(start), min(size, N - start), levels) for start in ready]
        for parts in side_by_side(jobs, vectors.device):
            for r, part in enumerate(parts):
                mine = out[r]
                if mine is not None and not mine.append(part):
                    out[r], levels[r] = None, np.inf
                    lowest = torch.from_numpy(levels.min(0))
    return out


def _product(x: Tensor, y: Tensor) -> Tensor:
    """x @ y.T; the last block of a pool may be a row or two, which BLAS would sum in another order than a block."""
    a, b = len(x), len(y)
    x, y = (torch.nn.functional.pad(t, (0, 0, 0, max(0, 32 - len(t)))) for t in (x, y))
    return (x @ y.T)[:a, :b].contiguous()


def _coordinates(close: Tensor, hit: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns (uint16) and values of the hits of a block, row by row."""
    height, width = hit.shape
    place = np.flatnonzero(hit.numpy())
    starts = np.arange(height + 1) * width
    per_row = np.diff(np.searchsorted(place, starts))
    row = np.repeat(np.arange(height, dtype=np.uint16), per_row)
    column = (place - np.repeat(starts[:-1], per_row)).astype(np.uint16)
    return row, column, close.numpy().ravel()[place]


def _group(pieces: list[Piece], size: int, levels: np.ndarray) -> list[Part]:
    """Each replicate's share of a block of `size` items, grouped by item; levels (R, N): each replicate's limits."""
    item = np.concatenate([piece[0] for piece in pieces])
    order = np.argsort(item, kind="stable")  # 16 bits: a radix sort
    targets = np.concatenate([piece[1] + np.int32(piece[3]) for piece in pieces])[order]
    values = np.concatenate([piece[2] for piece in pieces])[order]
    ends = np.searchsorted(item[order], np.arange(size + 1))
    out = []
    for level in levels:
        left = np.flatnonzero(values > level.take(targets, mode="clip"))
        out.append((np.diff(np.searchsorted(left, ends)), targets[left], values[left]))
    return out
