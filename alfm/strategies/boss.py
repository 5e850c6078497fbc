"""BoSS: Huseljic et al. 2026 (2603.13109), an oracle that shows what a batch could have gained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import MinLen
from torch import Tensor

from alfm.errors import UserError
from alfm.features.features import Features
from alfm.features.spaces import RAW, UNIT, Space
from alfm.heads.linear import LinearHead
from alfm.options import Count, Fits, checked
from alfm.strategies.ask import ask
from alfm.strategies.badge import Badge
from alfm.strategies.base import Strategy
from alfm.strategies.coreset import Coreset
from alfm.strategies.margins import Margins
from alfm.strategies.maxherding import MaxHerding
from alfm.strategies.query import Oracle, Query
from alfm.strategies.random import Random
from alfm.strategies.typiclust import TypiClust
from alfm.threads import side_by_side


def _members() -> list[Strategy]:
    return [Random(), Margins(), Badge(), TypiClust(), MaxHerding(), Coreset()]


@dataclass(eq=False)
@checked
class Boss(Strategy):
    """The best of `batches` candidate batches: each is asked of one of the `strategies` on a random sub-pool of
    `sub_pool` items, the head is refitted with its TRUE labels, and the lowest zero-one loss on the TEST split wins
    (ties to the earlier batch).

    It sees hidden labels and the test split, so it is a ceiling for benchmarks and is reported as "oracle", never as a
    method. Strategies take turns.
    Cost: O(b) fits, test passes and small queries for b candidate batches; memory that of a sub-pool.
    """

    stochastic = True
    oracle = True
    refits = True
    batches: Fits = 100
    sub_pool: Count = 2500
    strategies: Annotated[Sequence[Strategy], MinLen(1)] = field(default_factory=_members)

    def __post_init__(self) -> None:
        super().__post_init__()
        for member in self.strategies:
            if member.lists_rows:
                raise UserError(
                    f"boss asks {member.name} about parts of the pool, where row numbers mean nothing: give it none."
                )

    @property
    def measures(self) -> Sequence[Literal["raw", "unit", "head"]]:  # type: ignore[override]
        return sorted({space for one in self.strategies for space in one.measures})

    @property
    def repairs_near(self) -> bool:  # type: ignore[override]
        return any(one.repairs_near for one in self.strategies)

    def select(self, query: Query, budget: int) -> Tensor:
        assert query.head is not None
        spaces: tuple[Space, ...] = (RAW, UNIT, *query.head.spaces)
        for space in {id(space): space for space in spaces if space.shared}.values():
            query.pool.vectors(space)  # made once, before the candidates ask for it side by side
            query.pool.points(space)
        # All candidates of all replicates side by side: a core does not wait for the last replicate.
        asked = []
        for r in range(query.R):
            rng = query.rng(r, "boss")
            for i in range(self.batches):
                asked.append(partial(self._candidate, query, r, budget, i, *self._draw(query, r, budget, rng)))
        found = side_by_side(asked, query.pool.device)
        candidates = [torch.stack(found[r * self.batches : (r + 1) * self.batches]) for r in range(query.R)]
        return torch.stack([self._best(query, r, own) for r, own in enumerate(candidates)])

    def _best(self, query: Query, r: int, candidates: Tensor) -> Tensor:
        """The winner among candidates (batches, B) of replicate r."""
        assert query.oracle is not None and query.head is not None and query.classifier is not None
        oracle = query.oracle
        grown = torch.cat([query.labelled(r).expand(self.batches, -1), candidates], 1)
        seeds = [query.seeds[r]] * self.batches
        heads = query.classifier.fit(
            query.pool, grown, oracle.labels[grown], query.num_classes, seeds, query.round,
            previous=LinearHead(  # the same start for all
                [query.head.spaces[r]] * self.batches,
                query.head.weight[r].expand(self.batches, -1, -1),
                query.head.bias[r].expand(self.batches, -1),
            ),
        )  # fmt: skip
        return candidates[int(np.argmin(errors(oracle, heads)))]

    def _draw(self, query: Query, r: int, budget: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """A candidate's sub-pool, places int64 (m,) ascending among the available items, and its seed."""
        free = int(query.available[r].sum())
        places = rng.choice(free, min(max(self.sub_pool, budget), free), replace=False)
        return np.sort(places), int(rng.integers(2**31))

    def _candidate(self, query: Query, r: int, budget: int, i: int, places: np.ndarray, seed: int) -> Tensor:
        """The batch of strategy i (in turn) on a sub-pool of its own, as rows of the whole pool."""
        assert query.head is not None
        rows, size, one = query.labelled(r), len(places), slice(r, r + 1)
        chosen = query.available[r].nonzero()[:, 0][torch.from_numpy(places).to(rows.device)]
        every = torch.cat([chosen, rows])
        available = torch.zeros(1, len(every), dtype=torch.bool, device=rows.device)
        available[0, :size] = True
        sub = Query(
            pool=_SubPool(query.pool, every),
            rows=torch.arange(size, len(every), device=rows.device)[None],
            targets=query.labels_of(r)[None],
            available=available,
            num_classes=query.num_classes,
            seeds=[seed],
            round=query.round,
            head=query.head.part(one),
            classifier=query.classifier,
        )
        picks, _ = ask(self.strategies[i % len(self.strategies)], sub, budget)
        return every[picks[0]]


class _SubPool(Features):
    """Some rows of a pool: its coordinates are gathered where it keeps them, and nothing is checked again."""

    def __init__(self, whole: Features, rows: Tensor) -> None:
        self._whole, self._rows = whole, rows
        super().__init__(whole.gather(rows), whole.device, views=whole.views_of(rows), part_of=whole)

    def materialise(self, space: Space) -> Tensor:
        matrix = self._whole.vectors(space).matrix
        return super().materialise(space) if matrix is None or space is RAW else matrix[self._rows]

    def _check_finite(self) -> None:
        pass


def errors(oracle: Oracle, heads: LinearHead) -> list[int]:
    """How many test items each head gets wrong: one product for as many heads as 16 million logits hold."""
    if not heads.shared:
        own = [(logits.argmax(1) != oracle.test_labels).sum() for logits in oracle.test_logits(heads)]
        return torch.stack(own).tolist()
    source = oracle.test.vectors(heads.spaces[0])
    parts = []
    size = max(1, (1 << 24) // (min(oracle.test.N, oracle.test.block_rows) * heads.C))
    for start in range(0, heads.R, size):
        part = slice(start, start + size)
        weight, bias = heads.weight[part].flatten(0, 1), heads.bias[part].flatten()
        wrong = torch.zeros(len(bias) // heads.C, dtype=torch.int64, device=bias.device)
        for rows, x in source.blocks():
            logits = torch.addmm(bias, x, weight.T).view(len(x), -1, heads.C)
            wrong += (logits.argmax(2) != oracle.test_labels[rows, None]).sum(0)
        parts.append(wrong)
    return torch.cat(parts).tolist()
