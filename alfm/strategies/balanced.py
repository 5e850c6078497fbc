"""Balanced random cold start: the same number of items of every class. Uses hidden labels: for benchmarks only."""

from __future__ import annotations

import torch
from torch import Tensor

from alfm.strategies.base import Strategy
from alfm.strategies.query import Query, stack_picks


class Balanced(Strategy):
    """Random items, class by class in turn, so that class counts differ by at most one where the pool allows.

    An oracle: it sees the labels it asks for. Classes come in a random order of the replicate's stream.
    """

    needs_head = False
    stochastic = True
    oracle = True

    def select(self, query: Query, budget: int) -> Tensor:
        assert query.oracle is not None
        picks = []
        for r in range(query.R):
            rng = query.rng(r, "balanced")
            free = query.available[r].nonzero()[:, 0].cpu()
            shuffled = free[torch.from_numpy(rng.permutation(len(free)))]
            labels = query.oracle.labels.cpu()[shuffled]
            # an item's turn within its class, then the classes in random order
            turn = torch.zeros(len(labels), dtype=torch.int64)
            for c in labels.unique():
                mine = labels == c
                turn[mine] = torch.arange(int(mine.sum()))
            place = torch.from_numpy(rng.permutation(query.num_classes))[labels]
            order = torch.argsort(turn * query.num_classes + place)
            picks.append(shuffled[order[:budget]].to(query.pool.device))
        return stack_picks(picks, budget, query.pool.device)
