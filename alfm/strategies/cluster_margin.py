"""Cluster-Margin: Citovsky et al. 2021, "Batch active learning at scale" (2107.14263)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm import devices
from alfm.acquisition import margin_uncertainty
from alfm.errors import UserError
from alfm.geometry.linkage import average_linkage
from alfm.host_ops import add_rows
from alfm.options import Count, checked
from alfm.strategies.base import Strategy
from alfm.strategies.parts.candidates import highest
from alfm.strategies.query import Query, stack_picks
from alfm.streams import stream

MOST = 100_000
"""Items whose linkage is made at most: their distances take 80 GB."""


@dataclass(eq=False)
@checked
class ClusterMargin(Strategy):
    """The `oversample` (10) x budget smallest margins, taken round-robin over clusters, smallest first (algorithm 2).

    Clusters of the pool's unit features are made once per run: average-linkage agglomeration cut into
    min(N / `cluster_size`, sample / 4) clusters. On pools above `exact_up_to` items (2000) the linkage is made on that
    many random items of the replicate's own stream, and every item joins the cluster with the nearest mean; below,
    clusters are exact and equal for all replicates. A round sorts the clusters of the candidates by how many
    candidates they hold (ties: the one with the smaller margin) and takes one random candidate from each in turn.

    Departures: the paper cuts its tree at a distance chosen by hand for each data set, here the number of clusters is
    given (its default: benchmarks/notes/strategies.md). The method is meant for very large batches: with fewer picks
    than clusters a batch comes from the clusters with a single candidate.
    Cost: once O(N D K + m^2 (D + log m)) for K clusters, m sampled items, then O(N D C); memory O(N + m^2).
    """

    needs = ("probabilities", "features")
    name = "cluster_margin"
    stochastic = True
    measures = ("unit",)
    oversample: Count = 10
    cluster_size: Count = 50
    exact_up_to: Annotated[int, Ge(2), Le(10**9)] = 2000

    def select(self, query: Query, budget: int) -> Tensor:
        uncertainty = query.walk(lambda seen: margin_uncertainty(seen.logits))
        candidates = highest(query, uncertainty, self.oversample * budget)
        picks = []
        for r, rows in enumerate(candidates):
            cluster = self.clusters(query, r)[rows.cpu().numpy()]
            order = round_robin(cluster, query.rng(r, "cluster margin"))
            picks.append(rows.index_select(0, devices.of(rows).sent(torch.from_numpy(order[:budget]))))
        return stack_picks(picks, budget, query.pool.device)

    def clusters(self, query: Query, r: int) -> np.ndarray:
        """Cluster of every pool item, int64 (N,); a function of the features and, when sampled, of the seed."""
        if query.pool.N <= self.exact_up_to:
            return query.pool.once(("average linkage", self.cluster_size), lambda: self._make(query, r))
        key = f"cluster margin {query.seeds[r]}"
        if key not in query.carry:
            query.carry[key] = self._make(query, r)
        return query.carry[key]

    def _make(self, query: Query, r: int) -> np.ndarray:
        unit = query.pool.points()
        exact = unit.N <= self.exact_up_to
        # not this round's stream: the clusters of a run must be the same in every round and after a resume
        rng = stream(query.seeds[r], 0, "cluster margin sample")
        if min(unit.N, self.exact_up_to) > MOST:
            raise UserError(
                f"{self.name}: a linkage of {min(unit.N, self.exact_up_to):,} items needs their distances to one "
                f"another, 8 bytes each: set query_strategy.exact_up_to to at most {MOST}."
            )
        sample = np.arange(unit.N) if exact else np.sort(rng.choice(unit.N, self.exact_up_to, replace=False))
        x = unit.rows(torch.from_numpy(sample).to(unit.device))
        wanted = max(1, min(unit.N // self.cluster_size, len(sample) // 4))
        label = average_linkage(x.cpu().numpy(), wanted)
        if exact:
            return label
        member = torch.from_numpy(label).to(unit.device)
        size = torch.bincount(member)
        total = torch.zeros(len(size), x.shape[1], dtype=torch.float64, device=x.device)
        add_rows(total, member, x.double())
        mean = (total / size[:, None]).to(x.dtype)
        half = -0.5 * torch.linalg.vecdot(mean, mean)
        return torch.cat([torch.addmm(half, x, mean.T).argmax(1) for _, x in unit.blocks()]).cpu().numpy()


def round_robin(cluster: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Order int64 (m,) in which candidates with clusters int64 (m,) are taken: one random member per cluster and turn.

    Within a turn clusters come by how many candidates they hold, ascending, ties to the one with the earlier first
    candidate.
    """
    _, first, group, size = np.unique(cluster, return_index=True, return_inverse=True, return_counts=True)
    shuffled = rng.permutation(len(cluster))
    by_group = shuffled[np.argsort(group[shuffled], kind="stable")]
    turn = np.empty(len(cluster), dtype=np.int64)
    turn[by_group] = np.arange(len(cluster)) - np.repeat(np.cumsum(size) - size, size)
    return np.lexsort((first[group], size[group], turn))
