"""EPIG: Bickford Smith et al. 2023, "Prediction-oriented Bayesian active learning" (2304.08151), equation 5."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor

from alfm.acquisition import bald, epig
from alfm.errors import UserError
from alfm.geometry.topk import top
from alfm.heads.passes import walk_draws
from alfm.options import Count, Rows, checked
from alfm.posteriors import Draws, Laplace, Posterior
from alfm.results.row_numbers import Counted
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query


@dataclass(eq=False)
@checked
class Epig(Strategy):
    """Largest expected information gain about the predictions on a target set.

    targets: rows that stand for what will be asked of the model, or None for `num_targets` unlabelled items drawn
    at random. Needs joint draws, by default of the Laplace posterior, which serves it best
    (benchmarks/notes/strategies.md). Information about targets never exceeds information about
    the weights (data processing), so EPIG <= BALD: items are evaluated in the order of BALD and the search ends,
    exactly, when no remaining item can enter the batch. oversample: evaluate at most the `oversample` x budget items of
    highest BALD (the paper evaluates all; None does so too).
    Cost: O(M N D C + m T C^2 M) for T targets; memory O(N + M (m + T) C).
    """

    needs = ("draws",)
    stochastic = True
    posterior: Posterior = field(default_factory=Laplace)
    row_options = ("targets",)
    num_targets: Count = 100
    targets: Annotated[Rows, MinLen(1)] | None = None
    oversample: Count | None = 10
    chunk: Count = 256
    rows: Counted | None = None

    def __post_init__(self) -> None:
        if not self.posterior.joint:
            raise UserError(
                f"{self.name} needs joint draws: choose query_strategy/posterior=dropout_joint, laplace or ensemble."
            )

    def select(self, query: Query, budget: int) -> Tensor:
        draws = query.draws(self.posterior)
        bound = walk_draws(query.pool, draws, lambda seen: bald(seen.logits), joined=True)
        return query.each(lambda r: self._select_one(query, draws, bound[r], r, budget), budget)

    def _select_one(self, query: Query, draws: Draws, bound: Tensor, r: int, budget: int) -> Tensor:
        target = draws.logits(self._targets(query, r), query.pool.gather(self._targets(query, r)), r)
        most = query.pool.N if self.oversample is None else self.oversample * budget
        order = top(bound, query.available[r], most)
        score = torch.full_like(bound, -torch.inf)
        slack = 1e-5  # rounding in either quantity
        for start in range(0, len(order), self.chunk):
            rows = order[start : start + self.chunk]
            if start >= budget:
                least = score[top(score, query.available[r], budget)[-1]]
                if bound[rows[0]] + slack < least:
                    break
            score[rows] = epig(draws.logits(rows, query.pool.gather(rows), r), target)
        return top(score, query.available[r], budget)

    def _targets(self, query: Query, r: int) -> Tensor:
        if self.targets is not None:
            rows = torch.as_tensor(list(self.targets), dtype=torch.int64, device=query.pool.device)
            if not len(rows) or int(rows.min()) < 0 or int(rows.max()) >= query.pool.N:
                raise UserError(f"{self.name} targets must be pool rows in [0, {query.pool.N}).")
            return rows
        free = query.available[r].nonzero()[:, 0]
        drawn = query.rng(r, "epig targets").choice(len(free), min(self.num_targets, len(free)), replace=False)
        return free[torch.from_numpy(drawn).to(free.device)]
