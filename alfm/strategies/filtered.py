"""The progressive filter of REFINE: Huseljic et al. 2025, "Cleaning the pool: progressive filtering of unlabeled pools
in deep active learning" (2511.22344), around any strategy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt, Le, MinLen
from torch import Tensor

from alfm.options import Count, Whole, checked
from alfm.strategies.ask import ask
from alfm.strategies.badge import Badge
from alfm.strategies.base import Need, Strategy
from alfm.strategies.margins import Margins
from alfm.strategies.parts.composed import Composed
from alfm.strategies.parts.sub_pool import about, part_of
from alfm.strategies.query import Query
from alfm.strategies.typiclust import TypiClust
from alfm.strategies.uherding import UHerding


def _members() -> dict[str, Strategy]:
    return {"margins": Margins(), "badge": Badge(), "typiclust": TypiClust()}


@dataclass(eq=False)
@checked
class Filtered(Composed):
    """`strategy` chooses from what a filter leaves of the pool: `rounds` times each of the `members` is asked for the
    best `share` of a random part of what is left, and the union of their answers goes on.

    part: how much of what is left a member sees, at most `most` items and never fewer than the batch asked for; a
    member keeps no fewer than that either, so that a batch is always whole. What is labelled is known to everybody. The
    strategy is asked about the items left as if they were the pool, so coverage is that of what was kept.
    The paper filters in several rounds through several strategies; `part`, `share` and `most` are ours.
    Cost: O(r s) queries of the members about `most` items, for r rounds and s members, then one of the strategy's.
    """

    strategy: Strategy = field(default_factory=UHerding)
    members: Annotated[Mapping[str, Strategy], MinLen(1)] = field(default_factory=_members)
    rounds: Annotated[Whole, Le(100)] = 5
    part: Annotated[float, Gt(0), Le(1)] = 0.5
    share: Annotated[float, Gt(0), Le(1)] = 0.5
    most: Count = 2500

    @property
    def asks(self) -> Sequence[Strategy]:
        return self.strategy, *self.members.values()

    def clusters_part(self, items: int) -> bool:
        seen = min(items, self.most)
        left = min(items, self.most * len(self.members)) if self.rounds else items
        return self.strategy.clusters_part(left) or any(one.clusters_part(seen) for one in self.members.values())

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return self.rounds > 0 or self.strategy.stochastic

    @property
    def needs_head(self) -> bool:  # type: ignore[override]
        """Without one members that need it sit out."""
        return self.strategy.needs_head

    @property
    def needs(self) -> Sequence[Need] | None:  # type: ignore[override]
        """Draws that are given are of the whole pool: heads of ours make them for a part."""
        found = super().needs
        return found if found is None or "draws" not in found else [*found, "head"]

    def select(self, query: Query, budget: int) -> Tensor:
        return query.each(lambda r: self._one(query, r, budget), budget)

    def _one(self, query: Query, r: int, budget: int) -> Tensor:
        rng, left = query.rng(r, "filter"), query.available[r].nonzero()[:, 0]
        for _ in range(self.rounds):
            left = self._kept(query, r, budget, left, rng)
        return self._asked(self.strategy, query, r, left, budget, int(rng.integers(2**31)))

    def _kept(self, query: Query, r: int, budget: int, left: Tensor, rng: np.random.Generator) -> Tensor:
        """What members keep of the items left, pool rows int64 (m,), ascending."""
        size = min(len(left), max(budget, min(math.ceil(self.part * len(left)), self.most)))
        count = min(size, max(budget, math.ceil(self.share * size)))
        kept = []
        for member in self.members.values():
            seen, seed = np.sort(rng.choice(len(left), size, replace=False)), int(rng.integers(2**31))
            if query.head is not None or not member.needs_head:
                part = left[torch.from_numpy(seen).to(left.device)]
                kept.append(self._asked(member, query, r, part, count, seed))
        return torch.cat(kept).unique() if kept else left

    def _asked(self, strategy: Strategy, query: Query, r: int, part: Tensor, count: int, seed: int) -> Tensor:
        """`count` pool rows that a strategy picks where the pool is this part, and what is labelled."""
        items = torch.cat([part, query.labelled(r)]).unique()
        asked = about(query, r, items, part_of(query.pool, items), seed, {})
        asked.available = torch.isin(items, part)[None]
        return items[ask(strategy, asked, count)[0][0]]
