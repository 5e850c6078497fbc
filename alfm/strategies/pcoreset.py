"""PCoreSet: Kang et al. 2025, "PCoreSet: Effective active learning through knowledge distillation from vision-language
models" (2506.00910), section 4."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

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
        return query.greedily(partial(self._state, query), budget)

    def _state(self, query: Query, r: int) -> FarthestFirst:
        assert query.head is not None
        p = torch.softmax(widened(logits_of(embedding(query, r), query.head, r)), 1)
        centred = Features((p - p.mean(0)).to(query.pool.device, query.pool.dtype), query.pool.device)
        farthest = FarthestFirst(centred.vectors(RAW))
        farthest.add(query.labelled(r))
        return farthest
