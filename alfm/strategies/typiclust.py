"""TypiClust: Hacohen, Dekel & Weinshall 2022, "Active learning on a budget" (2202.02794), section 3 and appendix F."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from alfm.features.features import Vectors
from alfm.geometry.kmeans import kmeans_each
from alfm.geometry.kmeans_on_part import GATHERED, centroids_of_part, nearest_clusters
from alfm.geometry.typicality import most_typical_each, most_typical_of_part
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

    Pools above `cluster_up_to` items: clusters are learned from so many random ones and every item goes to the nearest
    centroid; in a cluster of many members typicality is estimated (`geometry.typicality.most_typical_of_part`).

    Departures from the authors' code: there a batch may come out short, and k-means runs until it has converged (mini
    batches above 50 clusters); here it makes 4 passes from k-means++ seeds, since the clusters only spread the picks.
    Cost: O(N D K) for K clusters; memory O(N + K D), and the features of `cluster_up_to` items.
    """

    needs = ("features",)
    needs_head = False
    stochastic = True
    measures = ("unit",)
    repairs_near = True
    max_clusters: Count = 500
    neighbours: Count = 20
    min_size: Whole = 5
    cluster_up_to: Count = GATHERED

    def select(self, query: Query, budget: int) -> Tensor:
        counts = [min(len(query.labelled(r)) + budget, self.max_clusters, query.pool.N) for r in range(query.R)]
        clusters = cluster_pool(query, counts, self.cluster_up_to)
        return query.each(lambda r: self._select_one(query, r, budget, clusters[r], counts[r]), budget)

    def _select_one(self, query: Query, r: int, budget: int, clusters: Tensor, count: int) -> Tensor:
        labelled, points = query.labelled(r), query.pool.points()
        large, rng = query.pool.N > self.cluster_up_to, query.rng(r, "typical")
        size = torch.bincount(clusters, minlength=count).tolist()
        known = torch.bincount(clusters[labelled], minlength=count).tolist()
        order = sorted(range(count), key=lambda c: (size[c] <= self.min_size, known[c], -size[c], c))
        free = clusters.masked_fill(~query.available[r], -1)
        ranked, bounds = torch.sort(free, stable=True)
        edges = torch.searchsorted(ranked, torch.arange(count + 1, device=ranked.device)).tolist()
        members = {c: bounds[edges[c] : edges[c + 1]] for c in range(count)}
        picks: list[Tensor] = []
        for small in (False, True):
            ring = [c for c in order if (size[c] <= self.min_size) == small and len(members[c])]
            while ring and len(picks) < budget:
                asked = ring[: budget - len(picks)]
                groups = [members[c] for c in asked]
                if large:
                    takes = [(partial(_members, points, rows), len(rows)) for rows in groups]
                    found = [most_typical_of_part(*one, self.neighbours, rng, points.device) for one in takes]
                else:
                    found = most_typical_each(points, groups, self.neighbours)
                last = len(picks) + len(asked) == budget
                for c, best in zip(asked, found, strict=True):
                    rows = members[c]
                    picks.append(rows.index_select(0, best))
                    if not last:
                        others = torch.arange(len(rows) - 1, device=rows.device)
                        members[c] = rows.index_select(0, others + (others >= best))
                ring = [c for c in ring if len(members[c])]
        return torch.cat(picks)


def _members(points: Vectors, rows: Tensor, places: Tensor) -> Tensor:
    return points.rows(rows[places], plain=True)


def cluster_pool(query: Query, counts: Sequence[int], up_to: int = GATHERED) -> list[Tensor]:
    """Cluster of every pool item, R times (N,) int64 or int32: k-means on unit features by each replicate's own stream.

    Of more than `up_to` items on so many of them.
    """
    unit = query.pool.points()
    rngs = [query.rng(r, "k-means") for r in range(query.R)]
    # the most typical items do not depend on the last passes
    if unit.N > up_to:
        take = partial(unit.rows, plain=True)
        learned = [
            centroids_of_part(take, unit.N, k, rng, unit.device, most=up_to, iterations=4)
            for k, rng in zip(counts, rngs, strict=True)
        ]
        return nearest_clusters(unit, learned)
    x = unit.matrix if unit.matrix is not None else torch.cat([block for _, block in unit.blocks()])
    return [found.assignment for found in kmeans_each([x] * query.R, counts, rngs, iterations=4)]
