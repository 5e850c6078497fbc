"""Random: uniform without replacement, the baseline every other strategy has to beat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.strategies.base import Strategy
from alfm.strategies.parts.candidates import all_available
from alfm.strategies.query import Query


class Random(Strategy):
    """Uniform without replacement. Cost: O(N); memory O(N). Also a cold start."""

    needs = ()
    needs_head = False
    stochastic = True

    def select(self, query: Query, budget: int) -> Tensor:
        free = all_available(query)
        chosen = [query.rng(r, "random").choice(len(rows), budget, replace=False) for r, rows in enumerate(free)]
        places = devices.of(query.available).sent(torch.from_numpy(np.stack(chosen)))
        return torch.stack([rows.index_select(0, own) for rows, own in zip(free, places, strict=True)])
