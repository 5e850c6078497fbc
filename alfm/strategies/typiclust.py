"""TypiClust: Hacohen, Dekel & Weinshall 2022, "Active learning on a budget" (2202.02794), section 3 and appendix F."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alfm import devices
from alfm.geometry.kmeans import kmeans_each
from alfm.geometry.knn import CLOSE, SPARE, knn
from alfm.host_ops import holds_any
from alfm.options import Count, Whole, checked
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query

_SEARCH = 256  # members up to which, on CPU, a search for neighbours costs more than all distances
_NOISE = 256  # units of rounding: squared distances from products are better than that
_BLOCK = 1 << 24  # distances held at once on a GPU: 64 MB


@dataclass(eq=False)
@checked
class TypiClust(Strategy):
    """From each cluster the most typical item: the largest inverse mean distance to its nearest neighbours.

    K = min(labelled + B, max_clusters) clusters of the unit features, drawn by the replicate's stream. Clusters with
    more than `min_size` members come in the order (fewest labelled, largest), cyclically; typicality counts the
    min(neighbours, size // 2) nearest among the cluster's members that are neither labelled nor picked. A cluster used
    up is passed over, then the small clusters follow, so that always exactly B items are picked.

    Departures from the authors' code: there a batch may come out short, and k-means runs until it has converged (mini
    batches above 50 clusters); here it makes 4 passes from k-means++ seeds, since the clusters only spread the picks.
    Cost: O(N D K) for K clusters; memory O(N + K D).
    """

    needs_head = False
    stochastic = True
    measures = ("unit",)
    repairs_near = True
    max_clusters: Count = 500
    neighbours: Count = 20
    min_size: Whole = 5

    def select(self, query: Query, budget: int) -> Tensor:
        counts = [min(len(query.labelled(r)) + budget, self.max_clusters, query.pool.N) for r in range(query.R)]
        clusters = cluster_pool(query, counts)
        return query.each(lambda r: self._select_one(query, r, budget, clusters[r], counts[r]), budget)

    def _select_one(self, query: Query, r: int, budget: int, clusters: Tensor, count: int) -> Tensor:
        labelled = query.labelled(r)
        size = torch.bincount(clusters, minlength=count).tolist()
        known = torch.bincount(clusters[labelled], minlength=count).tolist()
        order = sorted(range(count), key=lambda c: (size[c] <= self.min_size, known[c], -size[c], c))
        free = clusters.masked_fill(~query.available[r], -1)
        ranked, bounds = torch.sort(free, stable=True)
        edges = torch.searchsorted(ranked, torch.arange(count + 1, device=ranked.device)).tolist()
        members = {c: bounds[edges[c] : edges[c + 1]] for c in range(count)}
        large = [c for c in order if size[c] > self.min_size]
        picks: list[Tensor] = []
        for ring in (large, [c for c in order if size[c] <= self.min_size]):
            ring = [c for c in ring if len(members[c])]
            while ring and len(picks) < budget:
                for c in ring[: budget - len(picks)]:
                    rows = members[c]
                    best = most_typical(query.pool.points().rows(rows, plain=True), self.neighbours)
                    picks.append(rows.index_select(0, best))
                    others = torch.arange(len(rows) - 1, device=rows.device)
                    members[c] = rows.index_select(0, others + (others >= best))
                ring = [c for c in ring if len(members[c])]
        return torch.cat(picks)


def cluster_pool(query: Query, counts: Sequence[int]) -> list[Tensor]:
    """Cluster of every pool item, R times (N,) int64: k-means on all unit features by each replicate's own stream."""
    unit = query.pool.points()
    x = unit.matrix if unit.matrix is not None else torch.cat([block for _, block in unit.blocks()])
    rngs = [query.rng(r, "k-means") for r in range(query.R)]
    # the most typical items do not depend on the last passes
    return [found.assignment for found in kmeans_each([x] * query.R, counts, rngs, iterations=4)]


def most_typical(x: Tensor, neighbours: int) -> Tensor:
    """Index of the item with the smallest mean distance to its min(neighbours, m // 2) nearest others; x (m, D).

    int64 (1,) on x's device, which is not waited for unless it is the CPU. Ties, equal items among them: the lower
    index. Near distances come from differences, as in `knn`: all of them up to _SEARCH members, beyond on a GPU those
    of the nearest.
    """
    m = len(x)
    k = min(neighbours, m // 2)
    if k < 1:
        return torch.zeros(1, dtype=torch.int64, device=x.device)
    sq = torch.linalg.vecdot(x, x)
    ask = devices.of(x).looks_are_free
    if ask and m > _SEARCH:
        best = _found(x, sq, k).argmin(0, keepdim=True)
    else:
        size = _rows_at_once(m)
        parts = [slice(start, min(start + size, m)) for start in range(0, m, size)]
        best = torch.cat([_mean_distances(x, sq, rows, k, ask) for rows in parts]).argmin(0, keepdim=True)
    # products of equal items may round differently
    return (x == x.index_select(0, best)).all(1).to(torch.uint8).argmax(0, keepdim=True)


def _found(x: Tensor, sq: Tensor, k: int) -> Tensor:
    """Mean distance (m,) of each item of x (m, D) to the k nearest others, by search; sq (m,): squared lengths."""
    distance = knn(x, k)[0]
    mean = distance.mean(1)
    # so near that the search could not tell them from others as near
    lost = (distance[:, -1].square() < _NOISE * torch.finfo(x.dtype).eps * sq).nonzero()[:, 0]
    for rows in lost.split(_SEARCH):
        every = torch.cdist(x[rows], x, compute_mode="donot_use_mm_for_euclid_dist")
        every[torch.arange(len(rows)), rows] = torch.inf
        mean[rows] = every.topk(k, largest=False).values.mean(1)
    return mean


def _mean_distances(x: Tensor, sq: Tensor, rows: slice, k: int, ask: bool) -> Tensor:
    """Mean distance (b,) of some rows of x (m, D) to the k nearest others; sq (m,): squared lengths."""
    every = (sq[rows, None] + sq - 2 * (x[rows] @ x.T)).clamp_min_(0)
    every.diagonal(rows.start).fill_(torch.inf)
    near = every < CLOSE * sq[rows, None]
    if ask and not holds_any(near):
        return every.topk(k, largest=False, sorted=False).values.sqrt_().mean(1)
    if len(x) <= _SEARCH:
        exact = torch.cdist(x[rows], x, compute_mode="donot_use_mm_for_euclid_dist").square_()
        found = torch.where(near, exact, every)
    else:
        found, place = every.topk(min(k + SPARE, len(x) - 1), largest=False)
        exact = torch.stack([(x[rows] - x.index_select(0, own)).square().sum(1) for own in place.T], 1)
        found = torch.where(found < CLOSE * sq[rows, None], exact, found)
    # in order, so that equal distances have equal means
    return found.topk(k, largest=False).values.sqrt_().mean(1)


def _rows_at_once(m: int) -> int:
    return max(_SEARCH, _BLOCK // m)
