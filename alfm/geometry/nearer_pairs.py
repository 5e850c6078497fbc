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


class _Pairs(NamedTuple):
    """item, target, int32 (P,), by item, and how close they are (P,); rows of replicate r are r N more."""

    item: Tensor
    target: Tensor
    closeness: Tensor

    def at(self, places: Tensor) -> _Pairs:
        """Some of them, int64 (m,)."""
        return _Pairs(*(own.index_select(0, places) for own in self))

    def split(self, N: int, replicates: int) -> list[_Pairs]:
        """Each replicate's. The host waits for how many there are."""
        first = torch.arange(0, (replicates + 1) * N, N, dtype=torch.int32, device=self.item.device)
        ends = torch.searchsorted(self.item, first).tolist()
        return [_Pairs(*(own[a:b] for own in self)) for a, b in zip(ends, ends[1:], strict=False)]


class NearerPairs:
    """One replicate's pairs; see `made` and `Together`. reached (N,): every target's closeness to what was added."""

    def __init__(self, vectors: Vectors, pairs: _Pairs, place: int, reached: Tensor, added: Tensor) -> None:
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
    """Every replicate's pairs with the pool rows added[r], int64 (n_r,), from one pass; None where they do not fit into
    a quarter of the free memory, or nothing is added."""
    R, N = len(added), vectors.N
    if not all(map(len, added)):
        return [None] * R
    reached = best_similarities(vectors, [_CLOSENESS] * R, added)
    least, sq = reached - _slack(vectors), vectors.sq_norms
    some = torch.linspace(0, N - 1, min(N, SAMPLE), device=sq.device).long()[None]
    seen = looks(vectors, Joined([_CLOSENESS], sq), some)[0]
    share = torch.stack([(seen > own).double().mean() for own in least])
    if float(share.sum()) * N * N * BYTES > devices.of(sq).free_bytes() // 4:
        return [None] * R
    pieces: list[_Pairs] = []

    def find(close: Tensor, items: slice, over: slice) -> None:
        for part in in_parts(vectors, R, pair_block(vectors)):
            which = part if isinstance(part, slice) else slice(part, part + 1)
            r, i, j = (close > least[which, None, over]).nonzero().T
            first = (r + which.start) * N
            item, target = first + items.start + i, first + over.start + j
            pieces.append(_Pairs(item.int(), target.int(), close[i, j]))

    for rows, x, columns, y in block_pairs(vectors):
        close = _CLOSENESS(x @ y.T, sq[rows], sq[columns])
        find(close, rows, columns)
        if rows != columns:
            find(close.mT, columns, rows)
    every = _Pairs(*(torch.cat(own) for own in zip(*pieces, strict=True)))
    own = every.at(every.item.sort(stable=True).indices).split(N, R)
    return [NearerPairs(vectors, pairs, r, reached[r], added[r]) for r, pairs in enumerate(own)]


class Together:
    """Several replicates' pairs as one list, shortened by what was added to them."""

    def __init__(self, states: Sequence[NearerPairs]) -> None:
        self.R, self.vectors = len(states), states[0].vectors
        N = self.vectors.N
        own = [_numbered(one, r * N) for r, one in enumerate(states)]
        self.pairs = own[0] if self.R == 1 else _Pairs(*(torch.cat(parts) for parts in zip(*own, strict=True)))
        if not any(one.due for one in states):
            return
        due = [torch.cat(one.due) if one.due else one.added[:0] for one in states]
        reached = torch.stack([one.reached for one in states])
        reached = torch.maximum(reached, best_similarities(self.vectors, [_CLOSENESS] * self.R, due))
        least = (reached - _slack(self.vectors)).flatten().index_select(0, self.pairs.target)
        self.pairs = self.pairs.at((self.pairs.closeness > least).nonzero()[:, 0])
        for r, (one, pairs) in enumerate(zip(states, self.pairs.split(N, self.R), strict=True)):
            one.pairs, one.place, one.reached, one.due = pairs, r, reached[r], []

    def gains(self, kernels: Sequence[RBF], kappa: Tensor, weight: Tensor) -> Tensor:
        """`herding.first_gains` of the kernels, all of one type, for kappa and weight (R, N), up to rounding."""
        item, target, closeness = self.pairs
        squares = kappa.new_tensor([one.width**2 for one in kernels])[:, None].expand_as(kappa)
        square, level, share = (own.flatten().index_select(0, target) for own in (squares, kappa, weight))
        rest = kernels[0].rising(closeness, square).sub_(level).relu_().mul_(share)
        first = torch.arange(kappa.numel() + 1, dtype=torch.int32, device=item.device)
        total = torch.segment_reduce(rest, "sum", offsets=torch.searchsorted(item, first), unsafe=True)
        return total.view_as(kappa) / kappa.shape[1]


def _numbered(one: NearerPairs, first: int) -> _Pairs:
    """Its pairs with rows from `first` on."""
    shift = first - one.place * one.vectors.N
    item, target, closeness = one.pairs
    return _Pairs(item + shift, target + shift, closeness) if shift else one.pairs


def _slack(vectors: Vectors) -> float:
    """More than the rounding of a squared distance."""
    return 64 * torch.finfo(vectors.pool.dtype).eps * vectors.level
