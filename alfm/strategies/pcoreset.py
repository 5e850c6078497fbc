"""PCoreSet: Kang et al. 2025, "PCoreSet: Effective active learning through knowledge distillation from vision-language
models" (2506.00910), section 4."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alfm.features.features import Features
from alfm.features.spaces import RAW
from alfm.geometry.kcenter import FarthestFirst
from alfm.heads.passes import logits_of
from alfm.host_ops import widened
from alfm.options import checked
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query, embedding


@dataclass(eq=False)
@checked
class PCoreSet(Strategy):
    """k-center greedy in probability space: the item whose prediction is farthest, in l2, from those of all labelled
    and picked ones; ties to the lower row.

    Centres are the head's predictions on the labelled items, not their labels. Probabilities are taken less their mean
    over the pool, in double, so that those of a flat head keep their digits.
    Cost: O(N D C + N C (n + B)) at most; memory O(N C).
    """

    needs = ("probabilities", "labels")

    def select(self, query: Query, budget: int) -> Tensor:
        head, pool = query.head, query.pool
        assert head is not None
        every: Tensor | None = None
        if pool.joins_replicates:
            every = _centred(query.walk(lambda seen: seen.logits), pool)

        def state(r: int) -> FarthestFirst:
            p = _centred(logits_of(embedding(query, r), head, r), pool) if every is None else every[r]
            farthest = FarthestFirst(Features(p, pool.device, finite=True).vectors(RAW))
            farthest.add(query.labelled(r))
            return farthest

        return query.greedily(state, budget)


def _centred(logits: Tensor, pool: Features) -> Tensor:
    """Probabilities less their mean over the pool, (.., N, C), as the pool's own numbers."""
    p = torch.softmax(widened(logits), -1)
    return (p - p.mean(-2, keepdim=True)).to(pool.device, pool.dtype)
