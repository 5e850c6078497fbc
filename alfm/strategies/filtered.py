"""The progressive filter of REFINE: Huseljic et al. 2025, "Cleaning the pool: progressive filtering of unlabeled pools
in deep active learning" (2511.22344), around any strategy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt, Le, MinLen
from torch import Tensor

from alfm import devices
from alfm.options import Count, Whole, checked
from alfm.strategies.ask import ask_on_host
from alfm.strategies.badge import Badge
from alfm.strategies.base import Need, Strategy
from alfm.strategies.margins import Margins
from alfm.strategies.parts.composed import Composed
from alfm.strategies.parts.sub_pool import about, part_of
from alfm.strategies.query import Query
from alfm.strategies.typiclust import TypiClust
from alfm.strategies.uherding import UHerding
from alfm.threads import side_by_side


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
        device = query.pool.device
        size = devices.of(device).at_once(query.R, query.pool.N, 1)
        jobs = [
            partial(self._picks, query, range(start, min(start + size, query.R)), budget)
            for start in range(0, query.R, size)
        ]
        picks = [own for group in side_by_side(jobs, device) for own in group]
        return devices.of(device).sent(torch.from_numpy(np.stack(picks)))

    def _picks(self, query: Query, which: Sequence[int], budget: int) -> list[np.ndarray]:
        """Picks of consecutive replicates. What is left of each is known to the host: pool rows int64, ascending."""
        rngs = [query.rng(r, "filter") for r in which]
        left = [free.nonzero()[0] for free in query.some(query.available, which).cpu().numpy()]
        known = [own[own >= 0] for own in query.some(query.rows, which).cpu().numpy()]
        for _ in range(self.rounds):
            left = self._kept(query, which, budget, left, known, rngs)
        return self._asked(self.strategy, query, which, left, known, [budget] * len(which), _seeds(rngs))

    def _kept(
        self,
        query: Query,
        which: Sequence[int],
        budget: int,
        left: Sequence[np.ndarray],
        known: Sequence[np.ndarray],
        rngs: Sequence[np.random.Generator],
    ) -> list[np.ndarray]:
        """What members keep of the items left."""
        sizes = [min(len(own), max(budget, min(math.ceil(self.part * len(own)), self.most))) for own in left]
        counts = [min(size, max(budget, math.ceil(self.share * size))) for size in sizes]
        kept = []
        for member in self.members.values():
            parts = [
                own[np.sort(rng.choice(len(own), size, replace=False))]
                for own, size, rng in zip(left, sizes, rngs, strict=True)
            ]
            seeds = _seeds(rngs)
            if query.head is not None or not member.needs_head:
                kept.append(self._asked(member, query, which, parts, known, counts, seeds))
        return [np.unique(np.concatenate(own)) for own in zip(*kept, strict=True)] if kept else list(left)

    def _asked(
        self,
        strategy: Strategy,
        query: Query,
        which: Sequence[int],
        parts: Sequence[np.ndarray],
        known: Sequence[np.ndarray],
        counts: Sequence[int],
        seeds: Sequence[int],
    ) -> list[np.ndarray]:
        """So many pool rows that a strategy picks where each replicate's pool is its part, and what is known."""
        members = [np.union1d(*own) for own in zip(parts, known, strict=True)]
        every = np.unique(np.concatenate(members))
        if len(which) > 1 and not strategy.joins_parts(len(every)):
            alone = zip(which, parts, known, counts, seeds, strict=True)
            return [self._asked(strategy, query, [r], [p], [k], [n], [seed])[0] for r, p, k, n, seed in alone]
        there = devices.of(query.pool.device)
        items = there.sent(torch.from_numpy(every))
        pool = part_of(query.pool, items)
        pool.fitted_as = query.pool.fitted_as  # so that nobody's heads depend on which parts are asked about together
        asked = about(query, which, items, pool, seeds, {})
        asked.available = there.sent(_marked(every, parts))
        if len(which) > 1:
            places = there.sent(torch.from_numpy(np.searchsorted(every, np.concatenate(members))))
            asked.members, asked.wanted = places.split([len(own) for own in members]), counts
        picks, _ = ask_on_host(strategy, asked, max(counts))
        return [every[own[:n]] for own, n in zip(picks.numpy(), counts, strict=True)]


def _seeds(rngs: Sequence[np.random.Generator]) -> list[int]:
    return [int(rng.integers(2**31)) for rng in rngs]


def _marked(every: np.ndarray, parts: Sequence[np.ndarray]) -> Tensor:
    """Which of the items are in each part: bool (R, m)."""
    return torch.from_numpy(np.stack([np.isin(every, own) for own in parts]))
