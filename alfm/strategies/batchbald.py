"""BatchBALD: Kirsch, van Amersfoort & Gal 2019 (1906.08158), algorithm 1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm.acquisition import bald, batchbald
from alfm.errors import UserError
from alfm.heads.passes import walk_draws
from alfm.options import Count, checked
from alfm.posteriors import Laplace, Posterior
from alfm.strategies.base import Strategy
from alfm.strategies.parts.candidates import highest
from alfm.strategies.query import Query


@dataclass(eq=False)
@checked
class BatchBald(Strategy):
    """Greedy batch of largest joint mutual information between its labels and the weights.

    Needs joint draws (one weight setting shared by all items): `laplace`, `ensemble`, or dropout with one mask per
    pass, which serves a head badly that was not trained with it. The batch is chosen among the `oversample` x budget
    items of highest BALD score (the paper considers the whole pool; an item's joint gain never exceeds its BALD score).
    Gains are exact while C^picks is at most `max_samples`, then estimated from as many sampled configurations. A
    candidate whose earlier gain is below the best present one is not looked at: exact, up to the noise of the
    estimates. M draws hold no more than log M nats: once a batch tells them apart, the rest follow by BALD score; a
    larger `posterior.passes` moves that point.
    Cost: O(M N D C + B m C M S) for S label configurations; memory O(N + M (m C + S)).
    """

    stochastic = True
    posterior: Posterior = field(default_factory=Laplace)
    oversample: Count = 10
    max_samples: Annotated[int, Ge(1), Le(10**6)] = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.posterior.joint:
            raise UserError(
                f"{self.name} needs joint draws: choose query_strategy/posterior=dropout_joint, laplace or ensemble."
            )

    def select(self, query: Query, budget: int) -> Tensor:
        draws = query.draws(self.posterior)
        score = walk_draws(query.pool, draws, lambda seen: bald(seen.logits))
        candidates = highest(query, score, self.oversample * budget)

        def greedy(r: int) -> Tensor:
            rows = candidates[r]
            log_p = torch.log_softmax(draws.logits(rows, query.pool.gather(rows), r), 2)
            return rows[batchbald(log_p, budget, query.rng(r, "batchbald"), self.max_samples)]

        return query.each(greedy, budget)
