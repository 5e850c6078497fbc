"""CLUE: Prabhu, Chandrasekaran, Saenko & Hoffman 2021, "Active domain adaptation via clustering uncertainty-weighted
embeddings" (2010.08666)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor

from alfm.acquisition import entropy
from alfm.geometry.kmeans_on_part import GATHERED
from alfm.options import Count, checked
from alfm.strategies.base import Strategy
from alfm.strategies.parts.candidates import all_available, clustered
from alfm.strategies.query import Embedded, Query, stack_picks


@dataclass(eq=False)
@checked
class Clue(Strategy):
    """k-means with `budget` clusters on phi, weighted by the predictive entropy; nearest item per centroid (eq. 3).

    temperature: divides the logits before the entropy (the paper tunes it; 1 by default). Each centroid gets an item
    of its own; the authors' code may take one item for two centroids, and runs k-means to convergence where this one
    makes at most 5 passes. When every entropy is 0, k-means is unweighted.
    More than `cluster_up_to` candidates: k-means learns from some random ones (`geometry.kmeans_on_part`).
    Cost: O(N D (C + B)); memory O(N + min(N, cluster_up_to) D).
    """

    needs = ("embedding", "probabilities")
    stochastic = True
    measures = ("head",)
    temperature: Annotated[float, Ge(1e-4), Le(1e4)] = 1.0
    cluster_up_to: Count = GATHERED

    def select(self, query: Query, budget: int) -> Tensor:
        head, pool = query.head, query.pool
        assert head is not None
        uncertainty = query.walk(lambda seen: entropy(seen.logits / self.temperature))
        candidates = all_available(query)
        picks = clustered(
            query,
            candidates,
            budget,
            lambda r: Embedded(pool.points(head.spaces[r])),
            [uncertainty[r, rows] for r, rows in enumerate(candidates)],
            self.cluster_up_to,
        )
        return stack_picks(picks, budget, pool.device)
