"""Centroid cold start: k-means with as many clusters as labels to spend, the item nearest each centroid."""

from __future__ import annotations

from torch import Tensor

from alfm.geometry.kmeans_on_part import GATHERED
from alfm.strategies.base import Strategy
from alfm.strategies.parts.candidates import all_available, clustered
from alfm.strategies.query import Query, stack_picks


class Centroid(Strategy):
    """k-means(B) on the available items' unit features, nearest item to each centroid.

    The cold start of DropQuery (Gupte et al. 2024, arXiv 2401.14555, section 3). Clusters are drawn by the
    replicate's own stream.
    Of more items than `cluster_up_to` k-means sees a part.
    Cost: O(N D B).
    """

    needs = ("features",)
    needs_head = False
    stochastic = True
    measures = ("unit",)
    cluster_up_to = GATHERED

    def select(self, query: Query, budget: int) -> Tensor:
        return stack_picks(clustered(query, all_available(query), budget), budget, query.pool.device)
