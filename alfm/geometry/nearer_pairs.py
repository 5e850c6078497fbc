"""Pairs (item, target) that can still gain, kept on an accelerator: what a pass over all pairs would find again.

A pair adds to a gain of herding only while the item is closer to the target than everything added so far, whatever the
kernel's width and the target's weight (see `herding_lists`, which does the same on the host). One pass over all pairs,
for all replicates, lists them with their closeness; in later rounds lists are shortened, and gains for another width
and other weights are sums over them. They only bound: every gain that decides a pick is found by products.

A product of another shape rounds differently, so pairs stay while they are within the rounding of what is reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from alfm import devices
from alfm.geometry.kernels import RBF, Joined, best_similarities, looks
from alfm.geometry.pairs import block_pairs, in_parts, pair_block

if TYPE_CHECKING:
    from alfm.features.features import Vectors

SAMPLE = 256  # items that tell beforehand how many pairs there will be
BYTES = 64  # of a pair while lists are made


@dataclass(frozen=True)
class _Closeness(RBF):
    """-|x - y|^2 as a kernel: what every RBF rises with."""

    nothing: float = -torch.inf  # type: ignore[misc]

    def __call__(self, dots: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
        return self.closeness(dots, sq_x, sq_y)


_CLOSENESS = _Closeness()


class Pairs(NamedTuple):
    """item, target, int32 (P,), by item, and how close they are (P,); rows of replicate r are r N more."""

    item: Tensor
    target: Tensor
    closeness: Tensor

    def at(self, places: Tensor) -> Pairs:
        """Some of them, int64 (m,)."""
        return Pairs(*(own.index_select(0, places) for own in self))

    def split(self, N: int, replicates: int) -> list[Pairs]:
        """Each replicate's. The host waits for how many there are."""
        first = torch.arange(0, (replicates + 1) * N, N, dtype=torch.int32, device=self.item.device)
        ends = torch.searchsorted(self.item, first).tolist()
        return [Pairs(*(own[a:b] for own in self)) for a, b in pairwise(ends)]

    def sums(self, x: Tensor, items: int) -> Tensor:
        """Of numbers of the pairs, (P, ..), over those of each item: (items, ..), in their order."""
        first = torch.arange(items + 1, dtype=torch.int32, device=self.item.device)
        return torch.segment_reduce(x, "sum", offsets=torch.searchsorted(self.item, first), unsafe=True)


class NearerPairs:
    """One replicate's pairs; see `made` and `Together`. reached (N,): every target's closeness to what was added."""

    def __init__(self, vectors: Vectors, pairs: Pairs, place: int, reached: Tensor, added: Tensor) -> None:
        """place: the replicate's, when rows of `pairs` were numbered."""
        self.vectors, self.pairs, self.place, self.reached = vectors, pairs, place, reached
        self._added, self.due = [added], list[Tensor]()

    @property
    def added(self) -> Tensor:
        """Pool rows added so far, int64 (n,), in that order."""
        return torch.cat(self._added)

    def add(self, rows: Tensor) -> None:
        """Adds rows, int64 (m,): pairs are shortened when they are asked for."""
        self._added.append(rows)
        self.due.append(rows)


def made(vectors: Vectors, added: Sequence[Tensor]) -> list[NearerPairs | None]:
    """Every replicate's pairs with the pool rows added[r], int64 (n_r,), from one pass; None where there is no room for
    them, or nothing is added."""
    if not all(map(len, added)):
        return [None] * len(added)
    reached = best_similarities(vectors, [_CLOSENESS] * len(added), added)
    least = reached - _slack(vectors)
    if not room_for(vectors, least):
        return [None] * len(added)
    own = listed(vectors, least).split(vectors.N, len(added))
    return [NearerPairs(vectors, pairs, r, reached[r], added[r]) for r, pairs in enumerate(own)]


def room_for(vectors: Vectors, least: Tensor) -> bool:
    """Whether what `listed` makes takes a quarter of the free memory at most, by a sample of the items."""
    some = torch.linspace(0, vectors.N - 1, min(vectors.N, SAMPLE), device=least.device).long()[None]
    seen = looks(vectors, Joined([_CLOSENESS], vectors.sq_norms), some)[0]
    share = torch.stack([(seen > own).double().mean() for own in least])
    return float(share.sum()) * vectors.N**2 * BYTES <= devices.of(least).free_bytes() // 4


def listed(vectors: Vectors, least: Tensor) -> Pairs:
    """All pairs that are closer than what every target asks for, (R, N), of all replicates, from one pass."""
    R, N, sq = len(least), vectors.N, vectors.sq_norms
    parts = in_parts(vectors, R, pair_block(vectors))
    pieces: list[Pairs] = []

    def find(close: Tensor, items: slice, over: slice) -> None:
        for part in parts:
            which = part if isinstance(part, slice) else slice(part, part + 1)
            r, i, j = (close > least[which, None, over]).nonzero().T
            first = (r + which.start) * N
            item, target = first + items.start + i, first + over.start + j
            pieces.append(Pairs(item.int(), target.int(), close[i, j]))

    for rows, x, columns, y in block_pairs(vectors):
        close = _CLOSENESS(x @ y.T, sq[rows], sq[columns])
        find(close, rows, columns)
        if rows != columns:
            find(close.mT, columns, rows)
    every = Pairs(*(torch.cat(own) for own in zip(*pieces, strict=True)))
    return every.at(every.item.sort(stable=True).indices)


class Together:
    """Several replicates' pairs as one list, shortened by what was added to them."""

    def __init__(self, states: Sequence[NearerPairs]) -> None:
        self.R, self.vectors = len(states), states[0].vectors
        N = self.vectors.N
        own = [_numbered(one, r * N) for r, one in enumerate(states)]
        self.pairs = own[0] if self.R == 1 else Pairs(*(torch.cat(parts) for parts in zip(*own, strict=True)))
        if not any(one.due for one in states):
            return
        due = [torch.cat(one.due) if one.due else one.added[:0] for one in states]
        reached = torch.stack([one.reached for one in states])
        reached = torch.maximum(reached, best_similarities(self.vectors, [_CLOSENESS] * self.R, due))
        least = (reached - _slack(self.vectors)).flatten().index_select(0, self.pairs.target)
        self.pairs = self.pairs.at((self.pairs.closeness > least).nonzero()[:, 0])
        for r, (one, pairs) in enumerate(zip(states, self.pairs.split(N, self.R), strict=True)):
            one.pairs, one.place, one.reached, one.due = pairs, r, reached[r], []

    def gains(self, kernels: Sequence[RBF], kappa: Tensor, weight: Tensor | None) -> Tensor:
        """`herding.first_gains` of the kernels, all of one type, for kappa and weight (R, N), up to rounding."""
        _, target, closeness = self.pairs
        widths = torch.tensor([one.width**2 for one in kernels], dtype=kappa.dtype)
        squares = devices.of(kappa).sent(widths)[:, None].expand_as(kappa)
        square, level = (own.flatten().index_select(0, target) for own in (squares, kappa))
        rest = kernels[0].rising(closeness, square).sub_(level).relu_()
        if weight is not None:
            rest.mul_(weight.flatten().index_select(0, target))
        return self.pairs.sums(rest, kappa.numel()).view_as(kappa) / kappa.shape[1]


def _numbered(one: NearerPairs, first: int) -> Pairs:
    """Its pairs with rows from `first` on."""
    shift = first - one.place * one.vectors.N
    item, target, closeness = one.pairs
    return Pairs(item + shift, target + shift, closeness) if shift else one.pairs


def _slack(vectors: Vectors) -> float:
    """More than the rounding of a squared distance."""
    return 64 * torch.finfo(vectors.pool.dtype).eps * vectors.level
