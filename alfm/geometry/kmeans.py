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

from alfm import devices
from alfm.geometry.d2_sampling import d2_sample
from alfm.host_ops import add_rows, add_to_groups, argmax_rows, take
from alfm.threads import side_by_side

# How far beyond the mean a centroid aims after passes 1, 2, 3 and on, as a share of its way to the mean.
_AHEAD = (0.4, 0.6, 0.8)
_BLOCK = 1 << 21  # numbers in a block of products: 8 MB in float32, near the caches


@dataclass(frozen=True)
class Clusters:
    """centroids (k, D): weighted means of their members; assignment (n,) int64: the centroid of each item.

    inertia: sum of weight x squared distance of the items to their centroids.
    """

    centroids: Tensor
    assignment: Tensor
    inertia: float


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
    last problem; each as it would be alone. x may be one tensor several times."""
    runs = len(x)
    starts = [
        partial(_Run, x[r], k[r], rng[r], None if weight is None else weight[r], tolerance, seeding)
        for r in range(runs)
    ]
    problems = side_by_side(starts, x[0].device)
    for _ in range(max(1, iterations)):
        running = [run for run in problems if not run.done]
        side_by_side([partial(run.assign, rows) for run in running for rows in run.blocks()], x[0].device)
        side_by_side([run.move for run in running], x[0].device)
    return [Clusters(run.centroids, run.assignment, run.inertia) for run in problems]


class _Run:
    """One problem between passes. `assign` of all blocks, in any order, then `move`, is a pass."""

    def __init__(
        self,
        x: Tensor,
        k: int,
        rng: np.random.Generator,
        weight: Tensor | None,
        tolerance: float,
        seeding: Literal["d2", "random"],
    ) -> None:
        n = len(x)
        if k < 1 or n < 1:
            raise ValueError(f"k-means needs at least one cluster and one item, got k={k}, n={n}")
        self.x, self.k, self.tolerance = x, k, tolerance
        self.sq = torch.linalg.vecdot(x, x)
        self.weight = torch.ones_like(self.sq) if weight is None else weight.to(self.sq)
        if bool((self.weight < 0).any()):
            raise ValueError("weights must not be negative")
        if not bool((self.weight > 0).any()):
            self.weight = torch.ones_like(self.sq)
        self.centroids = x[_seeds(x, self.sq, k, rng, None if weight is None else self.weight, seeding)]
        self._aim(self.centroids)
        self.sums = _Sums(x, self.weight, k)
        self.total = float((self.weight.double() * self.sq.double()).sum())
        self.assignment = torch.full((n,), -1, dtype=torch.int64, device=x.device)
        self.nearest, self.score = torch.empty_like(self.assignment), torch.empty_like(self.sq)
        self.inertia, self.moves, self.ahead, self.done = math.inf, 0, True, False

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
        if not devices.of(self.x).looks_are_free:
            self._move_unseen(nearest)
            return
        _refill(nearest, (self.sq - 2 * self.score).clamp_min_(0), self.weight, self.k)
        if bool((nearest == self.assignment).all()):
            self._settle()
            return
        sums = self.sums
        sums.update(self.assignment, nearest)
        filled, means = sums.means()
        # sum w |x - c|^2 = sum w |x|^2 - sum_k mass_k |c_k|^2 at the means: no second pass.
        inertia = max(0.0, self.total - float((sums.mass * means.square().sum(1))[filled].sum()))
        self._moved(nearest, filled, means, inertia)

    def _move_unseen(self, nearest: Tensor) -> None:
        """`move` where a look is a wait: one look, and another when a cluster has run empty.

        Sums are taken anew instead of adjusted, since which items moved is not known here.
        """
        unchanged, empty, inertia, filled, means = self._look(nearest)
        if empty:
            _refill(nearest, (self.sq - 2 * self.score).clamp_min_(0), self.weight, self.k)
            unchanged, _, inertia, filled, means = self._look(nearest)
        if unchanged:
            self._settle()
        else:
            self._moved(nearest, filled, means, max(0.0, inertia))

    def _look(self, nearest: Tensor) -> tuple[bool, bool, float, Tensor, Tensor]:
        """Whether an assignment is the last one, leaves a cluster empty, its inertia, filled clusters and means."""
        members = torch.zeros(self.k, dtype=torch.int64, device=nearest.device)
        members.index_add_(0, nearest, (self.weight > 0).long())  # whole numbers: the same in any order
        self.sums.take(nearest)
        filled, means = self.sums.means()
        held = torch.where(filled, self.sums.mass * means.square().sum(1), 0).sum()
        same, empty = (nearest == self.assignment).all(), (members == 0).any()
        found = torch.stack([same.to(held.dtype), empty.to(held.dtype), held]).tolist()
        return bool(found[0]), bool(found[1]), self.total - found[2], filled, means

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


def nearest_items(x: Tensor, centroids: Tensor) -> Tensor:
    """The item of x (n, D) nearest to each centroid (k, D), all distinct: int64 (min(k, n),), in the centroids' order.

    An item nearest to several centroids goes to the closest of them (ties: the lower centroid). The others then take,
    in order of the distance they lost at, the nearest item still free. Ties among items: the lower index. With k > n
    the centroids that come too late get nothing.
    """
    n, k = len(x), len(centroids)
    half = 0.5 * torch.linalg.vecdot(x, x)
    item, score = _best_items(x, half, centroids)
    distance = 0.5 * torch.linalg.vecdot(centroids, centroids).cpu().numpy() - score
    order = np.argsort(distance, kind="stable")
    chosen = np.full(k, -1, dtype=np.int64)
    free = np.ones(n, dtype=bool)
    losers = []
    for c in order:
        if free[item[c]]:
            chosen[c] = item[c]
            free[item[c]] = False
        else:
            losers.append(c)
    for start in range(0, len(losers), 32):
        some = losers[start : start + 32]
        scores = torch.addmm(-half, centroids[torch.as_tensor(some, device=x.device)], x.T).cpu().numpy()
        for c, row in zip(some, scores, strict=True):
            if not free.any():
                break
            chosen[c] = np.where(free, row, -np.inf).argmax()
            free[chosen[c]] = False
    return torch.from_numpy(chosen[chosen >= 0]).to(x.device)


def _seeds(
    x: Tensor,
    sq: Tensor,
    k: int,
    rng: np.random.Generator,
    weight: Tensor | None,
    seeding: Literal["d2", "random"],
) -> Tensor:
    """k rows of x, repeated in order when x has fewer distinct ones."""
    if seeding == "random":
        mass = None if weight is None else weight.double().cpu().numpy()
        usable = np.arange(len(x)) if mass is None else mass.nonzero()[0]
        seeds = torch.from_numpy(rng.permutation(usable)[:k]).to(x.device)
    else:
        everyone = torch.ones(len(x), dtype=torch.bool, device=x.device)
        seeds = d2_sample(sq, lambda rows: (take(x, rows),), everyone, k, rng, None, weight, "exact")
    return seeds.repeat(-(-k // len(seeds)))[:k]


def _refill(nearest: Tensor, distance: Tensor, weight: Tensor, k: int) -> None:
    """Give every cluster without a weighted member the worst-fitting item that its own cluster can spare, in place."""
    members = torch.bincount(nearest[weight > 0], minlength=k)
    empty = (members == 0).nonzero()[:, 0].tolist()
    if not empty:
        return
    left = members.cpu().numpy()
    loss = weight * distance
    for row in torch.sort(loss, descending=True, stable=True).indices.tolist():
        if not empty or float(loss[row]) <= 0:
            break  # the remaining items sit on their centroids: nothing to split
        donor = int(nearest[row])
        if left[donor] > 1:
            left[donor] -= 1
            nearest[row] = empty.pop(0)


def _best_items(x: Tensor, half: Tensor, centroids: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Per centroid the item (k,) with the largest x.c - |x|^2/2, and that value (k,)."""
    n, k = len(x), len(centroids)
    item = np.zeros(k, dtype=np.int64)
    best = np.full(k, -np.inf)
    size = max(256, _BLOCK // k)
    for start in range(0, n, size):
        rows = slice(start, start + size)
        product = torch.addmm(-half[None, rows], centroids, x[rows].T).cpu().numpy()
        found = product.argmax(1)
        value = product[np.arange(k), found]
        better = value > best  # strict: an earlier block keeps a tie
        item[better], best[better] = found[better] + start, value[better]
    return item, best


class _Sums:
    """Weighted sums (k, D) and masses (k,) of the clusters in float64, adjusted by what changed cluster."""

    def __init__(self, x: Tensor, weight: Tensor, k: int) -> None:
        self.x, self.weight, self.k = x, weight, k
        self.total = torch.zeros(k, x.shape[1], dtype=torch.float64, device=x.device)
        self.mass = torch.zeros(k, dtype=torch.float64, device=x.device)

    def means(self) -> tuple[Tensor, Tensor]:
        """Which clusters have mass, bool (k,), and the means (k, D) float64 of those."""
        return self.mass > 0, self.total / self.mass.clamp_min(torch.finfo(self.mass.dtype).tiny)[:, None]

    def take(self, cluster: Tensor) -> None:
        """The sums of an assignment (n,), whatever they were; nothing is waited for."""
        rows = torch.arange(len(cluster), device=cluster.device)
        self.total.zero_()
        self.mass.zero_()
        add_to_groups(self.total, cluster, self.weight, self.x, rows)
        add_to_groups(self.mass[:, None], cluster, self.weight, torch.ones_like(self.weight)[:, None], rows)

    def update(self, before: Tensor, after: Tensor) -> None:
        """Move items from cluster `before` (n,) (-1: none) to `after` (n,)."""
        moved = (before != after).nonzero()[:, 0]
        left = moved[before[moved] >= 0]
        rows = torch.cat([moved, left])
        cluster = torch.cat([after[moved], before[left]])
        value = torch.cat([self.weight[moved], -self.weight[left]])
        add_rows(self.mass, cluster, value.double())
        add_to_groups(self.total, cluster, value, self.x, rows)
