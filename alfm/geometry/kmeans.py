"""Weighted k-means (Lloyd 1982) seeded by D^2 sampling (Arthur & Vassilvitskii 2007).

Clusters decide picks, so the seed is always the caller's generator, never a library's default.

In torch for both devices: faiss is not ahead throughout, and this takes float64 and weights of zero, has defined ties
and needs no copy. Centroids aim beyond their means, which saves a pass; bounds on distances (Elkan 2003, Hamerly 2010)
save none, since pairs alone cost far more than pairs in a product. Figures: benchmarks/notes/kmeans.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alfm import devices
from alfm.fused.group_sums import group_sums
from alfm.geometry.d2_sampling import Factors, d2_sample_each
from alfm.host_ops import add_rows, add_to_groups, argmax_rows, take
from alfm.threads import side_by_side

# How far beyond the mean a centroid aims after passes 1, 2, 3 and on, as a share of its way to the mean.
_AHEAD = (0.4, 0.6, 0.8)
_LONG = 1 << 29  # multiply-adds from which on a pass on a GPU takes about as long as a question of the host
_BLOCK = 1 << 21  # numbers in a block of products: 8 MB in float32, near the caches


@dataclass(frozen=True)
class Clusters:
    """centroids (k, D): weighted means of their members; assignment (n,) int64: the centroid of each item.

    held, as a number `inertia`: the sum of weight x squared distance of the items to their centroids.
    """

    centroids: Tensor
    assignment: Tensor
    held: float | Tensor

    @property
    def inertia(self) -> float:
        """A GPU is waited for."""
        return float(self.held)


def kmeans(
    x: Tensor,
    k: int,
    rng: np.random.Generator,
    weight: Tensor | None = None,
    iterations: int = 20,
    tolerance: float = 1e-4,
    seeding: Literal["d2", "random"] = "d2",
) -> Clusters:
    """k clusters of x (n, D) float32 or float64, weights (n,) >= 0 or None for 1 (all zero counts as None).

    seeding: "d2", exact k-means++ by rejection (`alfm.geometry.d2_sampling`); "random", k distinct items.
    Stops after `iterations` passes, when no assignment changes, or when a pass lowers the inertia by less than
    `tolerance` of it. Between passes centroids aim beyond their means (`_AHEAD`) while that lowers the inertia; then
    plain passes follow, so that the end is a fixed point of Lloyd's. Returned are the means of the last assignment. A
    cluster that runs empty takes over the item farthest from its centroid. With fewer than k distinct items (n < k
    included) there are still k centroids, some of them equal or without members. Cost: O(n D k) a pass; memory O(k D).
    Raises ValueError for k < 1, no items, or negative weights.
    """
    return kmeans_each([x], [k], [rng], None if weight is None else [weight], iterations, tolerance, seeding)[0]


def kmeans_each(
    x: Sequence[Tensor],
    k: Sequence[int],
    rng: Sequence[np.random.Generator],
    weight: Sequence[Tensor] | None = None,
    iterations: int = 20,
    tolerance: float = 1e-4,
    seeding: Literal["d2", "random"] = "d2",
) -> list[Clusters]:
    """`kmeans` of several problems, pass by pass and block by block side by side on CPU, so that no core waits for the
    last problem; each as it would be alone. x may be one tensor several times. On a GPU all are one batch, as far as
    memory allows."""
    for one, count in zip(x, k, strict=True):
        if count < 1 or len(one) < 1:
            raise ValueError(f"k-means needs at least one cluster and one item, got k={count}, n={len(one)}")
    device, runs = x[0].device, len(x)
    if not devices.of(device).looks_are_free:
        size = devices.of(device).at_once(runs, max(map(len, x)) * max(x[0].shape[1], *k), 1)
        found = []
        for start in range(0, runs, size):
            which = slice(start, start + size)
            own = None if weight is None else weight[which]
            found += _Unseen(x[which], k[which], rng[which], own, tolerance, seeding).clusters(iterations)
        return found
    starts = [partial(_Run, x[r], k[r], None if weight is None else weight[r], tolerance) for r in range(runs)]
    problems = side_by_side(starts, device)
    given = None if weight is None else [run.weight for run in problems]
    for run, seeds in zip(problems, _seeds(x, [run.sq for run in problems], k, rng, given, seeding), strict=True):
        run.begin(seeds)
    for _ in range(max(1, iterations)):
        running = [run for run in problems if not run.done]
        side_by_side([partial(run.assign, rows) for run in running for rows in run.blocks()], device)
        side_by_side([run.move for run in running], device)
    return [Clusters(run.centroids, run.assignment, run.inertia) for run in problems]


class _Run:
    """One problem between passes. `begin`; then `assign` of all blocks, in any order, and `move` is a pass."""

    def __init__(self, x: Tensor, k: int, weight: Tensor | None, tolerance: float) -> None:
        self.x, self.k, self.tolerance = x, k, tolerance
        self.sq = torch.linalg.vecdot(x, x)
        self.weight = torch.ones_like(self.sq) if weight is None else weight.to(self.sq)
        if bool((self.weight < 0).any()):
            raise ValueError("weights must not be negative")
        if not bool((self.weight > 0).any()):
            self.weight = torch.ones_like(self.sq)
        self.sums = _Sums(x, self.weight, k)
        self.total = float((self.weight.double() * self.sq.double()).sum())
        self.assignment = torch.full((len(x),), -1, dtype=torch.int64, device=x.device)
        self.nearest, self.score = torch.empty_like(self.assignment), torch.empty_like(self.sq)
        self.inertia, self.moves, self.ahead, self.done = math.inf, 0, True, False

    def begin(self, seeds: Tensor) -> None:
        """The first centroids."""
        self.centroids = self.x[seeds]
        self._aim(self.centroids)

    def blocks(self) -> Iterator[slice]:
        size = devices.of(self.x).block_rows(max(2048, self.k))
        for start in range(0, len(self.x), size):
            yield slice(start, start + size)

    def assign(self, rows: slice) -> None:
        """The nearest target of some items, ties to the lower one, and x.c - |c|^2 / 2."""
        product = torch.addmm(self.half, self.x[rows], self.target.T)
        found = argmax_rows(product)
        self.nearest[rows] = found
        self.score[rows] = product.gather(1, found[:, None])[:, 0]

    def move(self) -> None:
        """Centroids to the means of what is nearest to their targets, and the next targets."""
        nearest = self.nearest.clone()
        loss = (self.sq - 2 * self.score).clamp_min_(0).mul_(self.weight)
        _refill(nearest.numpy(), loss.numpy(), (self.weight > 0).numpy(), self.k)
        if bool((nearest == self.assignment).all()):
            self._settle()
            return
        sums = self.sums
        sums.update(self.assignment, nearest)
        filled, means = sums.means()
        # sum w |x - c|^2 = sum w |x|^2 - sum_k mass_k |c_k|^2 at the means: no second pass.
        inertia = max(0.0, self.total - float((sums.mass * means.square().sum(1))[filled].sum()))
        self._moved(nearest, filled, means, inertia)

    def _moved(self, nearest: Tensor, filled: Tensor, means: Tensor, inertia: float) -> None:
        """After a pass that changed the assignment."""
        before, self.inertia, self.assignment = self.inertia, inertia, nearest
        self.moves += 1
        self.centroids = torch.where(filled[:, None], means.to(self.x.dtype), self.centroids)
        if before - self.inertia < self.tolerance * self.inertia:
            self._settle()
        elif self.ahead:
            share = _AHEAD[min(self.moves, len(_AHEAD)) - 1]
            self._aim(self.centroids + share * (self.centroids - self.target))
        else:
            self._aim(self.centroids)

    def _aim(self, target: Tensor) -> None:
        """Where the next pass takes the centroids to be."""
        self.target = target
        self.half = -0.5 * torch.linalg.vecdot(target, target)

    def _settle(self) -> None:
        """Nothing is gained any more: from here on plain passes, and with those the end."""
        self.done = not self.ahead
        self.ahead = False
        self._aim(self.centroids)


class _Unseen:
    """R problems where a look is a wait: a pass is one batch of fixed shapes, a graph where there are any. Of long
    ones the host asks whether all are done after each from the third on. Sums are taken anew instead of adjusted.

    Of n items at most and K centroids at most: items that a problem lacks weigh nothing, centroids that it lacks are
    nowhere near.
    """

    def __init__(
        self,
        x: Sequence[Tensor],
        k: Sequence[int],
        rng: Sequence[np.random.Generator],
        weight: Sequence[Tensor] | None,
        tolerance: float,
        seeding: Literal["d2", "random"],
    ) -> None:
        self.k, self.n, self.tolerance, self.R = k, [len(one) for one in x], tolerance, len(x)
        same = all(one is x[0] for one in x)
        self.x = x[0][None] if same else pad_sequence(list(x), batch_first=True)  # (1 or R, n, D)
        self.sq = torch.linalg.vecdot(self.x, self.x).expand(self.R, -1)
        device, there = self.x.device, devices.of(self.x)
        n, K = there.sent(torch.tensor([self.n, list(k)]))[..., None]
        self.places = torch.arange(self.x.shape[1], device=device)
        self.there = self.places < n  # bool (R, n)
        self.real = torch.arange(max(k), device=device) < K  # bool (R, K)
        self.weight = self.there.to(self.sq.dtype)
        self.weighted = weight is not None
        if weight is not None:
            given = pad_sequence(list(weight), batch_first=True).to(self.sq)
            if bool((given < 0).any()):
                raise ValueError("weights must not be negative")
            self.weight = torch.where((given > 0).any(1, keepdim=True), given, self.weight)
        self.total = (self.weight.double() * self.sq.double()).sum(1)
        own = [row[:n] for row, n in zip(self.sq, self.n, strict=True)]
        weights = None if weight is None else [row[:n] for row, n in zip(self.weight, self.n, strict=True)]
        seeds = pad_sequence(_seeds(x, own, k, rng, weights, seeding, self.x), batch_first=True)
        self.centroids = self.x.expand(self.R, -1, -1).take_along_dim(seeds[..., None], 1)
        # what a pass changes stays where it is
        self.target = self.centroids.clone()
        self.assignment = torch.full_like(self.there, -1, dtype=torch.int64)
        self.nearest, self.score = torch.empty_like(self.assignment), torch.empty_like(self.weight)
        self.loss = torch.full_like(self.total, torch.inf)
        self.moves = torch.zeros_like(self.assignment[:, 0])
        self.long = self.R * self.x[0].numel() * max(k) >= _LONG
        self.ahead, self.running = torch.ones(2, self.R, dtype=torch.bool, device=device)
        self.shares = there.sent(torch.tensor([_AHEAD[0], *_AHEAD], dtype=self.x.dtype))

    def clusters(self, iterations: int) -> list[Clusters]:
        """After so many passes, or as soon as all are done."""
        again = devices.of(self.x).repeated(self._pass, (self.x.dtype, self.x.shape[2], self.weighted))
        for done in range(1, iterations):
            # nobody settles in the first pass, or twice in one
            if done > 2 and self.long and not bool(self.running.any()):
                break
            again()
        return [
            Clusters(self.centroids[r, : self.k[r]], self.assignment[r, : self.n[r]], self.loss[r])
            for r in range(self.R)
        ]

    def _pass(self) -> None:
        self._assign()
        self._move(self._refilled())

    def _assign(self) -> None:
        """See `_Run.assign`."""
        half = torch.where(self.real, -0.5 * torch.linalg.vecdot(self.target, self.target), -torch.inf)[:, None]
        size = devices.of(self.x).block_rows(self.R * max(2048, *self.k))
        for start in range(0, self.x.shape[1], size):
            rows = slice(start, start + size)
            product = torch.baddbmm(half, self.x[:, rows].expand(self.R, -1, -1), self.target.mT)
            found = product.argmax(2)
            self.nearest[:, rows] = found
            self.score[:, rows] = product.gather(2, found[..., None])[..., 0]

    def _refilled(self) -> Tensor:
        """The nearest targets of all items, int64 (R, n), but of those that `_refill` would give to empty clusters."""
        held = torch.zeros_like(self.real, dtype=torch.int64)
        held.scatter_add_(1, self.nearest, (self.weight > 0).long())  # whole numbers: the same in any order
        empty = (held == 0) & self.real
        loss, order = (
            (self.sq - 2 * self.score).clamp_min_(0).mul_(self.weight).sort(dim=1, descending=True, stable=True)
        )
        donor = self.nearest.gather(1, order)
        # how many of the donor's items fit worse
        grouped, place = donor.sort(dim=1, stable=True)
        worse = torch.empty_like(place).scatter_(1, place, self.places - torch.searchsorted(grouped, grouped))
        spare = (worse < held.gather(1, donor) - 1) & (loss > 0)
        number = spare.cumsum(1)  # of spare items, so far
        given = spare & (number <= empty.sum(1, keepdim=True))
        free = empty.sort(dim=1, descending=True, stable=True).indices
        new = free.gather(1, (number - 1).clamp(0, free.shape[1] - 1))
        return torch.empty_like(donor).scatter_(1, order, torch.where(given, new, donor))

    def _move(self, nearest: Tensor) -> None:
        """See `_Run.move` and `_Run._settle`."""
        mass, total = self._sums(nearest)
        filled, means = mass > 0, total / mass.clamp_min(torch.finfo(mass.dtype).tiny)[..., None]
        # sum w |x - c|^2 = sum w |x|^2 - sum_k mass_k |c_k|^2 at the means: no second pass
        loss = (self.total - torch.where(filled, mass * means.square().sum(2), 0).sum(1)).clamp_min(0)
        moved = self.running & ~((nearest == self.assignment) | ~self.there).all(1)
        settled = self.running & (~moved | (self.loss - loss < self.tolerance * loss))
        self.loss.copy_(torch.where(moved, loss, self.loss))
        self.moves.add_(moved)
        self.running.logical_and_(~settled | self.ahead)
        self.ahead.logical_and_(~settled)
        share = self.shares[self.moves.clamp_max(len(_AHEAD))] * self.ahead
        self.assignment.copy_(torch.where(moved[:, None], nearest, self.assignment))
        changed = (filled & moved[:, None])[..., None]
        self.centroids.copy_(torch.where(changed, means.to(self.x.dtype), self.centroids))
        self.target.copy_(self.centroids + share[:, None, None] * (self.centroids - self.target))

    def _sums(self, nearest: Tensor) -> tuple[Tensor, Tensor]:
        """Masses (R, K) and weighted sums (R, K, D) of the clusters, in float64, in the order of the items."""
        K = self.real.shape[1]
        ranked, rows = nearest.masked_fill(~self.there, K).sort(dim=1, stable=True)
        clusters = torch.arange(K + 1, device=nearest.device).expand(self.R, -1).contiguous()
        edges = torch.searchsorted(ranked, clusters)
        own = self.x.shape[1] * torch.arange(self.R, device=nearest.device)[:, None]  # where each problem's begin
        weight = self.weight.gather(1, rows) if self.weighted else None
        total = group_sums(self.x.flatten(0, 1), rows + own if len(self.x) > 1 else rows, edges, weight)
        if weight is None:
            return edges.diff(dim=1).double(), total
        return group_sums(self.weight.flatten()[:, None], rows + own, edges)[..., 0], total


def nearest_items(x: Tensor, centroids: Tensor) -> Tensor:
    """The item of x (n, D) nearest to each centroid (k, D), all distinct: int64 (min(k, n),), in the centroids' order.

    An item nearest to several centroids goes to the closest of them (ties: the lower centroid). The others then take,
    in order of the distance they lost at, the nearest item still free. Ties among items: the lower index. With k > n
    the centroids that come too late get nothing.
    """
    return nearest_items_each([x], [centroids])[0]


def nearest_items_each(x: Sequence[Tensor], centroids: Sequence[Tensor]) -> list[Tensor]:
    """`nearest_items` of several problems, as one batch: their items and centroids are made equally many."""
    several, n = len(x) > 1, [len(one) for one in x]
    every = pad_sequence(list(x), batch_first=True) if several else x[0]
    targets = pad_sequence(list(centroids), batch_first=True) if several else centroids[0]
    half = 0.5 * torch.linalg.vecdot(every, every)
    if several:
        places = torch.arange(half.shape[1], device=half.device)
        half = torch.where(places < devices.of(half).sent(torch.tensor(n))[:, None], half, torch.inf)
    best = [_Items(*own, m) for own, m in zip(_best_items(every, half, targets, centroids), n, strict=True)]
    while any(one.losers for one in best):
        some = [one.losers[:32] for one in best]
        wide = max(map(len, some))
        rows = np.array([[*own, *[0] * (wide - len(own))] for own in some])
        index = devices.of(half).sent(torch.from_numpy(rows if several else rows[0]))
        scores = _scores(-half, targets.take_along_dim(index[..., None], -2), every).cpu().numpy()
        for one, own in zip(best, scores if several else scores[None], strict=True):
            one.give(own)
    chosen = [one.chosen[one.chosen >= 0] for one in best]
    return list(devices.of(half).sent(torch.from_numpy(np.concatenate(chosen))).split([len(own) for own in chosen]))


class _Items:
    """Which of n items each centroid gets: item (k,) is nearest to it, at a distance (k,)."""

    def __init__(self, item: np.ndarray, distance: np.ndarray, n: int) -> None:
        self.n, self.chosen = n, np.full(len(item), -1, dtype=np.int64)
        self.free = np.ones(n, dtype=bool)
        self.losers: list[int] = []
        for c in np.argsort(distance, kind="stable"):
            if self.free[item[c]]:
                self.chosen[c] = item[c]
                self.free[item[c]] = False
            else:
                self.losers.append(int(c))

    def give(self, scores: np.ndarray) -> None:
        """The first of the losers, by their scores (m, n or more) of all items, what is still free."""
        for c, row in zip(self.losers[:32], scores, strict=False):
            if not self.free.any():
                break
            self.chosen[c] = np.where(self.free, row[: self.n], -np.inf).argmax()
            self.free[self.chosen[c]] = False
        self.losers = self.losers[32:] if self.free.any() else []


def _seeds(
    x: Sequence[Tensor],
    sq: Sequence[Tensor],
    k: Sequence[int],
    rng: Sequence[np.random.Generator],
    weight: Sequence[Tensor] | None,
    seeding: Literal["d2", "random"],
    every: Tensor | None = None,
) -> list[Tensor]:
    """k rows of each x, repeated in order when it has fewer distinct ones. every: all x as one tensor (R, n, D)."""
    device = x[0].device
    if seeding == "random":
        usable = [
            np.arange(len(one)) if weight is None else weight[r].double().cpu().numpy().nonzero()[0]
            for r, one in enumerate(x)
        ]
        drawn = [g.permutation(own)[:most] for g, own, most in zip(rng, usable, k, strict=True)]
        seeds = list(torch.from_numpy(np.concatenate(drawn)).to(device).split([len(own) for own in drawn]))
    else:

        def factors(which: slice) -> Factors:
            some = x[which]
            if len(some) == 1:
                return lambda rows: (take(some[0], rows),)
            if all(one is some[0] for one in some):
                return lambda rows: (some[0].index_select(0, rows.flatten()).view(*rows.shape, -1),)
            assert every is not None  # where they go together
            joined = every[which]
            return lambda rows: (joined.take_along_dim(rows[..., None], 1),)

        seeds = d2_sample_each(sq, factors, None, k, rng, None, weight, "exact")
    return [own.repeat(-(-most // len(own)))[:most] for own, most in zip(seeds, k, strict=True)]


def _refill(nearest: np.ndarray, loss: np.ndarray, there: np.ndarray, k: int) -> None:
    """Give every cluster without a weighted member the worst-fitting item that its own cluster can spare, in place.

    nearest (n,): whole numbers; loss (n,): weight x squared distance; there (n,) bool: of some weight.
    """
    left = np.bincount(nearest[there].astype(np.int64), minlength=k)
    empty = (left == 0).nonzero()[0].tolist()
    if not empty:
        return
    for row in np.argsort(-loss, kind="stable"):
        if not empty or loss[row] <= 0:
            break  # the remaining items sit on their centroids: nothing to split
        donor = int(nearest[row])
        if left[donor] > 1:
            left[donor] -= 1
            nearest[row] = empty.pop(0)


def _best_items(
    x: Tensor, half: Tensor, targets: Tensor, centroids: Sequence[Tensor]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each problem, per centroid, the item (k,) with the largest x.c - |x|^2 / 2, and |c|^2 / 2 minus that."""
    k, size = targets.shape[-2], max(256, _BLOCK // targets.shape[-2])
    value = half.new_full((*half.shape[:-1], k), -torch.inf)
    item = torch.zeros_like(value, dtype=torch.int64)
    for start in range(0, half.shape[-1], size):
        rows = slice(start, start + size)
        product = _scores(-half[..., rows], targets, x[..., rows, :])
        found = argmax_rows(product.flatten(0, -2)).view(value.shape)
        largest = product.gather(-1, found[..., None])[..., 0]
        better = largest > value  # strict: an earlier block keeps a tie
        item, value = torch.where(better, found + start, item), torch.where(better, largest, value)
    lost = 0.5 * torch.linalg.vecdot(targets, targets).double() - value.double()
    host = torch.stack([item.double(), lost]).cpu().numpy().reshape(2, len(centroids), k)
    return [
        (items[: len(own)].astype(np.int64), distances[: len(own)])
        for items, distances, own in zip(*host, centroids, strict=True)
    ]


def _scores(bias: Tensor, centroids: Tensor, x: Tensor) -> Tensor:
    """bias (.., n) + c.x, (.., k, n)."""
    product = torch.addmm if x.ndim == 2 else torch.baddbmm
    return product(bias[..., None, :], centroids, x.mT)


class _Sums:
    """Weighted sums (k, D) and masses (k,) of the clusters in float64, adjusted by what changed cluster."""

    def __init__(self, x: Tensor, weight: Tensor, k: int) -> None:
        self.x, self.weight, self.k = x, weight, k
        self.total = torch.zeros(k, x.shape[1], dtype=torch.float64, device=x.device)
        self.mass = torch.zeros(k, dtype=torch.float64, device=x.device)

    def means(self) -> tuple[Tensor, Tensor]:
        """Which clusters have mass, bool (k,), and the means (k, D) float64 of those."""
        return self.mass > 0, self.total / self.mass.clamp_min(torch.finfo(self.mass.dtype).tiny)[:, None]

    def update(self, before: Tensor, after: Tensor) -> None:
        """Move items from cluster `before` (n,) (-1: none) to `after` (n,)."""
        moved = (before != after).nonzero()[:, 0]
        left = moved[before[moved] >= 0]
        rows = torch.cat([moved, left])
        cluster = torch.cat([after[moved], before[left]])
        value = torch.cat([self.weight[moved], -self.weight[left]])
        add_rows(self.mass, cluster, value.double())
        add_to_groups(self.total, cluster, value, self.x, rows)
