"""Random: uniform without replacement, the baseline every other strategy has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from alfm.strategies.base import Strategy
from alfm.strategies.query import Query, stack_picks


class Random(Strategy):
    """Uniform without replacement. Cost: O(N); memory O(N). Also a cold start."""

    needs = ()
    needs_head = False
    stochastic = True

    def select(self, query: Query, budget: int) -> Tensor:
        picks = []
        for r in range(query.R):
            rows = query.available[r].nonzero()[:, 0]
            chosen = query.rng(r, "random").choice(len(rows), budget, replace=False)
            picks.append(rows[torch.from_numpy(chosen).to(rows.device)])
        return stack_picks(picks, budget, query.pool.device)
