"""BoSS: Huseljic et al. 2026 (2603.13109), an oracle that shows what a batch could have gained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from alfm.heads.base import LinearHead
from alfm.pool import Pool
from alfm.strategies.badge import Badge
from alfm.strategies.base import Query, Strategy, ask
from alfm.strategies.coreset import Coreset
from alfm.strategies.margins import Margins
from alfm.strategies.maxherding import MaxHerding
from alfm.strategies.random import Random
from alfm.strategies.typiclust import TypiClust


def _members() -> list[Strategy]:
    return [Random(), Margins(), Badge(), TypiClust(), MaxHerding(), Coreset()]


@dataclass(eq=False)
class Boss(Strategy):
    """The best of `batches` candidate batches: each is asked of one of the `strategies` on a random sub-pool of
    `sub_pool` items, the head is refitted with its TRUE labels, and the lowest zero-one loss on the TEST split wins
    (ties to the earlier batch).

    It sees hidden labels and the test split, so it is a ceiling for benchmarks and is reported as "oracle", never as a
    method. Strategies take turns. Cost: `batches` fits, test passes and small queries per replicate and round.
    """

    stochastic = True
    oracle = True
    batches: int = 100
    sub_pool: int = 2500
    strategies: Sequence[Strategy] = field(default_factory=_members)

    def select(self, query: Query, budget: int) -> Tensor:
        return query.each(lambda r: self._best(query, r, budget), budget)

    def _best(self, query: Query, r: int, budget: int) -> Tensor:
        assert query.oracle is not None and query.head is not None and query.classifier is not None
        task, rows = query.oracle, query.labelled(r)
        rng = query.rng(r, "boss")
        candidates = torch.stack([self._candidate(query, r, budget, i, rng) for i in range(self.batches)])
        grown = torch.cat([rows.expand(self.batches, -1), candidates], 1)
        seeds = [query.seeds[r]] * self.batches
        heads = query.classifier.fit(
            query.pool, grown, task.labels[grown], query.num_classes, seeds, query.round,
            previous=LinearHead(  # the same start for all
                [query.head.spaces[r]] * self.batches,
                query.head.weight[r].expand(self.batches, -1, -1),
                query.head.bias[r].expand(self.batches, -1),
            ),
        )  # fmt: skip
        wrong = [(logits.argmax(1) != task.test_labels).sum() for logits in task.test_logits(heads)]
        return candidates[int(np.argmin(torch.stack(wrong).tolist()))]

    def _candidate(self, query: Query, r: int, budget: int, i: int, rng: np.random.Generator) -> Tensor:
        """The batch of strategy i (in turn) on a sub-pool of its own, as rows of the whole pool."""
        assert query.head is not None
        rows = query.labelled(r)
        free = query.available[r].nonzero()[:, 0]
        size = min(max(self.sub_pool, budget), len(free))
        chosen = free[torch.from_numpy(rng.choice(len(free), size, replace=False)).to(free.device).sort().values]
        places = torch.cat([chosen, rows])
        available = torch.zeros(1, len(places), dtype=torch.bool, device=rows.device)
        available[0, :size] = True
        one = slice(r, r + 1)
        sub = Query(
            pool=Pool(query.pool.gather(places), query.pool.device),
            rows=torch.arange(size, len(places), device=rows.device)[None],
            targets=query.labels_of(r)[None],
            available=available,
            num_classes=query.num_classes,
            seeds=[int(rng.integers(2**31))],
            round=query.round,
            head=LinearHead(query.head.spaces[one], query.head.weight[one], query.head.bias[one]),
            classifier=query.classifier,
        )
        picks, _ = ask(self.strategies[i % len(self.strategies)], sub, budget)
        return places[picks[0]]
