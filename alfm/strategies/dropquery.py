"""DropQuery: Gupte et al. 2024, "Revisiting active learning in the era of vision foundation models" (2401.14555)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from alfm import devices
from alfm.geometry.kmeans_on_part import GATHERED
from alfm.heads.passes import Seen, walk_draws
from alfm.host_ops import argmax_last
from alfm.options import Count, Drop, Fits, Whole, checked
from alfm.posteriors.dropout import DropoutPosterior
from alfm.strategies.base import Strategy
from alfm.strategies.parts.candidates import Fill, clustered, filled_by_margins, where
from alfm.strategies.query import Query, stack_picks, unit_embedded


@dataclass(eq=False)
@checked
class DropQuery(Strategy):
    """Items whose predicted label changes under input dropout, made diverse by k-means (section 3, algorithm 1).

    passes: M dropout passes with probability `p` on the raw features, scaled 1 / (1 - p), a mask per item and pass.
    Candidates: more than M // 2 passes predict another label than the pass without dropout; the threshold falls by one
    while there are fewer than `enough` x budget candidates and it is above 0. Then k-means with `budget` clusters on
    unit features, the item nearest each centroid. With fewer candidates than budget the caller fills up at random, or
    `fill`: margins with the items of smallest margin, which then count as picked.
    cluster_head: cluster the head's normalised embedding, as the authors' code does, instead of the features. Their
    k-means runs to convergence, this one for at most 5 passes.
    More than `cluster_up_to` candidates: k-means learns from some random ones (`geometry.kmeans_on_part`).
    Cost: O(M N D C), then k-means on the m candidates, O(m D B); memory O(N + min(m, cluster_up_to) D).
    """

    needs = ("head",)
    stochastic = True
    passes: Fits = 3
    p: Drop = 0.75
    enough: Whole = 25
    cluster_head: bool = False
    fill: Fill = "random"
    cluster_up_to: Count = GATHERED

    @property
    def measures(self) -> Sequence[Literal["unit", "head"]]:  # type: ignore[override]
        return ("head",) if self.cluster_head else ("unit",)

    def select(self, query: Query, budget: int) -> Tensor:
        changes = self.changes(query)
        above = [((changes > t) & query.available).sum(1) for t in range(self.passes // 2 + 1)]
        thresholds = []
        for counts in torch.stack(above, 1).tolist():
            threshold = self.passes // 2
            while threshold > 0 and counts[threshold] < self.enough * budget:
                threshold -= 1
            thresholds.append(threshold)
        limits = devices.of(changes).sent(torch.tensor(thresholds))[:, None]
        candidates = where((changes > limits) & query.available)
        embedding = partial(unit_embedded, query) if self.cluster_head else None
        picks = clustered(query, candidates, budget, embedding, up_to=self.cluster_up_to)
        if self.fill == "margins":
            picks = filled_by_margins(query, picks, budget)
        return stack_picks(picks, budget, query.pool.device)

    def changes(self, query: Query) -> Tensor:
        """In how many passes an item's predicted label differs from the one without dropout; int64 (R, N)."""
        label = query.walk(lambda seen: argmax_last(seen.logits))
        draws = query.draws(DropoutPosterior(self.p, self.passes))

        def differs(seen: Seen) -> Tensor:
            return (argmax_last(seen.logits) != label[seen.replicates, None, seen.rows]).sum(1)

        return walk_draws(query.pool, draws, differs, joined=True)
