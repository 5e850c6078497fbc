"""TypiClust: Hacohen, Dekel & Weinshall 2022, "Active learning on a budget" (2202.02794), section 3 and appendix F."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.features.features import Vectors
from alfm.geometry.kmeans import kmeans_each
from alfm.geometry.kmeans_on_part import GATHERED, by_twos, centroids_of_part, nearest_clusters
from alfm.geometry.typicality import drawn, most_typical_each, typical_of_drawn
from alfm.options import Count, Whole, checked
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query, stack_picks
from alfm.threads import asking_together, side_by_side

_Asked = tuple[list[Tensor], bool]
_Told = tuple[Tensor, list[Tensor]]


@dataclass(eq=False)
@checked
class TypiClust(Strategy):
    """From each cluster the most typical item: the largest inverse mean distance to its nearest neighbours.

    K = min(labelled + B, max_clusters) clusters of the unit features, drawn by the replicate's stream. Clusters with
    more than `min_size` members come in the order (fewest labelled, largest), cyclically; typicality counts the
    min(neighbours, size // 2) nearest among the cluster's members that are neither labelled nor picked. A cluster used
    up is passed over, then the small clusters follow, so that always exactly B items are picked.

    Pools above `cluster_up_to` items: clusters are learned from some random ones and every item goes to the nearest
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

    def joins_parts(self, items: int) -> bool:
        return items <= self.cluster_up_to

    def select(self, query: Query, budget: int) -> Tensor:
        items = [query.pool.N] * query.R if query.members is None else [len(own) for own in query.members]
        wanted = query.budgets(budget)
        counts = [
            min(known + own, self.max_clusters, n) for known, own, n in zip(query.counts, wanted, items, strict=True)
        ]
        clusters = cluster_pool(query, counts, self.cluster_up_to)
        size = devices.of(query.pool.device).at_once(query.R, query.pool.N, 1)
        jobs = [
            partial(self._picks, query, list(range(start, min(start + size, query.R))), wanted, clusters, counts)
            for start in range(0, query.R, size)
        ]
        picks = [own for group in side_by_side(jobs, query.pool.device) for own in group]
        return stack_picks(picks, budget, query.pool.device)

    def _picks(
        self,
        query: Query,
        which: Sequence[int],
        wanted: Sequence[int],
        clusters: Sequence[Tensor],
        counts: Sequence[int],
    ) -> list[Tensor]:
        """Picks of some replicates, whose groups are looked at together."""
        parts = _parted(query, which, clusters, counts)
        rngs = [query.rng(r, "typical") for r in which]
        going = [self._choices(*own, wanted[r]) for r, own in zip(which, parts, strict=True)]
        return asking_together(going, lambda asked: self._most_typical(query, asked, rngs))

    def _choices(
        self, size: Sequence[int], known: Sequence[int], members: list[Tensor], budget: int
    ) -> Generator[_Asked, _Told, Tensor]:
        """One replicate's picks, int64 (budget,); yields groups of items and is sent the most typical of each, and the
        others of each where there are more picks to come.

        size, known: of its clusters' items and labelled items; members: of each cluster, those that may be picked.
        """
        order = sorted(range(len(size)), key=lambda c: (size[c] <= self.min_size, known[c], -size[c], c))
        picks, left = list[Tensor](), budget
        for small in (False, True):
            ring = [c for c in order if (size[c] <= self.min_size) == small and len(members[c])]
            while ring and left:
                asked = ring[:left]
                left -= len(asked)
                items, others = yield ([members[c] for c in asked], left > 0)
                picks.append(items)
                for c, rows in zip(asked, others, strict=True):
                    members[c] = rows
                ring = [c for c in ring if len(members[c])]
        return torch.cat(picks)

    def _most_typical(
        self, query: Query, asked: Mapping[int, _Asked], rngs: Sequence[np.random.Generator]
    ) -> list[_Told]:
        """What is told to each who asks."""
        points, every = query.pool.points(), [rows for groups, _ in asked.values() for rows in groups]
        joined, sizes = torch.cat(every), [len(rows) for rows in every]
        if query.pool.N > self.cluster_up_to:
            parts = [drawn(len(rows), rngs[r]) for r, (groups, _) in asked.items() for rows in groups]
            jobs = [
                partial(typical_of_drawn, partial(_members, points, rows), part, self.neighbours, points.device)
                for rows, part in zip(every, parts, strict=True)
            ]
            places = side_by_side(jobs, points.device)  # where replicates are not: a lone one has all cores
            starts = torch.from_numpy(np.cumsum([0, *sizes[:-1]]))
            index = torch.cat(places) + devices.of(points.device).sent(starts)
        else:
            index = most_typical_each(points, joined, sizes, self.neighbours)
        groups = [len(own) for own, _ in asked.values()]
        others = [joined[:0]] * len(every)
        if any(more for _, more in asked.values()):
            rest = torch.arange(len(joined) - len(every), device=joined.device)  # places among what was not taken
            before = torch.searchsorted(index - torch.arange(len(every), device=joined.device), rest, right=True)
            others = list(joined.index_select(0, rest + before).split([size - 1 for size in sizes]))
        ends = np.cumsum([0, *groups]).tolist()
        own = [others[a:b] for a, b in pairwise(ends)]
        return list(zip(joined.index_select(0, index).split(groups), own, strict=True))


def _parted(
    query: Query, which: Sequence[int], clusters: Sequence[Tensor], counts: Sequence[int]
) -> list[tuple[list[int], list[int], list[Tensor]]]:
    """Of some replicates' clusters: how many items each has, how many of them are labelled, and those that may be
    picked."""
    own = torch.stack([clusters[r] for r in which]).long()
    rows, most = query.some(query.rows, which), max(counts[r] for r in which)
    zeros = torch.zeros(len(which), most + 1, dtype=torch.int64, device=own.device)
    size = zeros.scatter_add(1, own, torch.ones_like(own))
    known = zeros.scatter_add(1, own.gather(1, rows.clamp_min(0)), (rows >= 0).long())
    ranked, items = own.masked_fill(~query.some(query.available, which), -1).sort(dim=1, stable=True)
    every = torch.arange(most + 1, device=own.device).expand(len(which), -1).contiguous()
    edges = torch.searchsorted(ranked, every)
    host = torch.cat([size[:, :most], known[:, :most], edges], 1).tolist()
    return [
        (one[:k], one[most : most + k], [items[i, a:b] for a, b in pairwise(one[2 * most : 2 * most + k + 1])])
        for i, (one, k) in enumerate(zip(host, (counts[r] for r in which), strict=True))
    ]


def _members(points: Vectors, rows: Tensor, places: Tensor) -> Tensor:
    return points.rows(rows[places], plain=True)


def cluster_pool(query: Query, counts: Sequence[int], up_to: int = GATHERED) -> list[Tensor]:
    """Cluster of every pool item, R times (N,) int64 or int32: k-means on unit features by each replicate's own stream.

    Of more than `up_to` items on so many of them. Items that are none of a replicate's are in no cluster: max(counts).
    """
    unit = query.pool.points()
    rngs = [query.rng(r, "k-means") for r in range(query.R)]
    # the most typical items do not depend on the last passes
    if unit.N > up_to:
        take = partial(unit.rows, plain=True)
        learn = [
            partial(centroids_of_part, take, unit.N, k, rng, unit.device, most=up_to, iterations=4)
            for k, rng in zip(counts, rngs, strict=True)
        ]
        return nearest_clusters(unit, by_twos(learn, unit.device))
    x = unit.matrix if unit.matrix is not None else torch.cat([block for _, block in unit.blocks()])
    if query.members is None:
        return [found.assignment for found in kmeans_each([x] * query.R, counts, rngs, iterations=4)]
    none = torch.full((unit.N,), max(counts), dtype=torch.int64, device=unit.device)
    found = kmeans_each([x.index_select(0, rows) for rows in query.members], counts, rngs, iterations=4)
    return [none.index_copy(0, rows, one.assignment) for rows, one in zip(query.members, found, strict=True)]
