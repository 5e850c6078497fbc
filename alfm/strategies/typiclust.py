"""TypiClust: Hacohen, Dekel & Weinshall 2022, "Active learning on a budget" (2202.02794), section 3 and appendix F."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alfm.geometry.kmeans import kmeans_each
from alfm.geometry.typicality import most_typical
from alfm.options import Count, Whole, checked
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query


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

    needs = ("features",)
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
