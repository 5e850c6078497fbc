"""Core-set selection by k-center greedy: Sener & Savarese 2018 (1708.00489), algorithm 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from alfm.geometry.kcenter import FarthestFirst
from alfm.strategies.base import Query, Strategy


@dataclass(eq=False)
class Coreset(Strategy):
    """Repeatedly the available item farthest from everything labelled or picked.

    space: `raw` features or the `head`'s embedding phi; metric: `l2` or `cosine`. The distances found so far are kept
    between rounds (in raw space they never change). Cost: one pass of N D n products for the first n labels, then
    about 1 % of N D B per round, since stale distances bound the true ones.
    """

    space: Literal["raw", "head"] = "raw"
    metric: Literal["l2", "cosine"] = "l2"

    @property
    def needs_head(self) -> bool:  # type: ignore[override]
        return self.space == "head"

    def select(self, query: Query, budget: int) -> Tensor:
        states = [self._state(query, r) for r in range(query.R)]

        def farthest(r: int) -> Tensor:
            state, known = states[r]
            labelled = query.labelled(r)
            state.add(labelled[known:])
            picks = state.select(query.available[r], budget)
            # a pick is a centre at once; it must become the next label for the state to stand
            query.carry[f"coreset {r}"] = (state, [*labelled.tolist(), *picks.tolist()])
            return picks

        return query.each(farthest, budget)

    def _state(self, query: Query, r: int) -> tuple[FarthestFirst, int]:
        """Distances to the first labels of replicate r, and how many labels that is."""
        space = query.pool.raw
        if self.space == "head":
            assert query.head is not None
            space = query.pool.vectors(query.head.spaces[r])
        state, centres = query.carry.get(f"coreset {r}", (None, []))
        same = state is not None and state.vectors is space and state.metric == self.metric
        if same and centres == query.labelled(r)[: len(centres)].tolist():
            return state, len(centres)
        return FarthestFirst(space, self.metric), 0
