"""EPIG: Bickford Smith et al. 2023, "Prediction-oriented Bayesian active learning" (2304.08151), equation 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import numpy as np
import torch
from annotated_types import MinLen
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alfm import devices
from alfm.acquisition import bald, block_numbers, epig
from alfm.errors import UserError
from alfm.geometry.topk import top_each
from alfm.heads.passes import draws_at, together, walk_draws
from alfm.options import Count, Rows, checked
from alfm.posteriors import Draws, Laplace, Posterior
from alfm.results.row_numbers import Counted
from alfm.strategies.base import Strategy
from alfm.strategies.parts.candidates import highest, where
from alfm.strategies.query import Query
from alfm.threads import side_by_side


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
        free, most = where(query.available), query.pool.N if self.oversample is None else self.oversample * budget
        targets, order = self._targets(query, free), highest(query, bound, most)
        size = devices.of(query.pool.device).at_once(query.R, block_numbers(bound), 1)
        groups = together(query.R, size if len({len(own) for own in targets}) == 1 else 1)

        def chosen(which: slice) -> Tensor:
            rows = pad_sequence(order[which], batch_first=True, padding_value=-1)
            score = self._scores(query, draws, bound[which], rows, torch.stack(targets[which]), which, budget)
            return top_each(score, query.available[which], budget)

        return torch.cat(side_by_side([partial(chosen, which) for which in groups], query.pool.device))

    def _scores(
        self, query: Query, draws: Draws, bound: Tensor, order: Tensor, targets: Tensor, which: slice, budget: int
    ) -> Tensor:
        """EPIG of the items that may enter the batch, (R, N), elsewhere -Inf, of some replicates: bound (R, N); order
        int64 (R, m) by it, padded with -1; targets (R, T)."""
        target = draws_at(query.pool, draws, targets, which)
        score = bound.new_full((len(bound), bound.shape[1] + 1), -torch.inf)  # the last place is for what pads
        slack = 1e-5  # rounding in either quantity
        for start in range(0, order.shape[1], self.chunk):
            rows = order[:, start : start + self.chunk]
            if start >= budget:
                least, next_ = score.topk(budget).values[:, -1], bound.gather(1, rows[:, :1].clamp_min(0))[:, 0]
                if bool((next_ + slack < least).all()):
                    break
            value = epig(draws_at(query.pool, draws, rows.clamp_min(0), which), target)
            score.scatter_(1, rows.where(rows >= 0, bound.shape[1]), value)
        return score[:, :-1]

    def _targets(self, query: Query, free: Sequence[Tensor]) -> list[Tensor]:
        """Every replicate's, int64 (T,); free: what it has not labelled."""
        device = query.pool.device
        if self.targets is not None:
            rows = torch.as_tensor(list(self.targets), dtype=torch.int64, device=device)
            if not len(rows) or int(rows.min()) < 0 or int(rows.max()) >= query.pool.N:
                raise UserError(f"{self.name} targets must be pool rows in [0, {query.pool.N}).")
            return [rows] * query.R
        counts = [min(self.num_targets, len(own)) for own in free]
        drawn = [query.rng(r, "epig targets").choice(len(free[r]), n, replace=False) for r, n in enumerate(counts)]
        places = torch.from_numpy(np.concatenate(drawn)).to(device).split(counts)
        return [own[at] for own, at in zip(free, places, strict=True)]
