"""One strategy first, another one later, as TCM does (Doucet et al. 2024, 2403.03728), whichever two they are: by
default UHerding (Bae et al. 2025, 2412.20644) and BAIT (Ash et al. 2021, 2106.09675)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alfm.options import checked
from alfm.strategies.bait import Bait
from alfm.strategies.base import Need, Strategy
from alfm.strategies.parts.composed import Composed
from alfm.strategies.query import Query
from alfm.strategies.switch_rules import AfterLabels, SwitchRule
from alfm.strategies.uherding import UHerding


@dataclass(eq=False)
@checked
class Switched(Composed):
    """`first` until `after` says that it is the turn of `then`; without a head always `first`.

    The rule is asked anew in every round, of each replicate by itself, so that a resumed run goes the same way.
    Cost: that of either, by default O(N D^2 + B N D) or once O(N^2 D), then O(N^2 / n).
    """

    first: Strategy = field(default_factory=UHerding)
    then: Strategy = field(default_factory=Bait)
    after: SwitchRule = field(default_factory=AfterLabels)

    @property
    def asks(self) -> Sequence[Strategy]:
        return self.first, self.then

    @property
    def needs_head(self) -> bool:  # type: ignore[override]
        return self.first.needs_head

    @property
    def needs(self) -> Sequence[Need] | None:  # type: ignore[override]
        """Those of both, and of the rule where it says some."""
        found = super().needs
        return None if found is None else list(dict.fromkeys([*found, *getattr(self.after, "needs", ())]))

    def select(self, query: Query, budget: int) -> Tensor:
        turn = self._ready(query)
        picks = torch.full((query.R, budget), -1, dtype=torch.int64, device=query.pool.device)
        kept: dict[str, dict[str, Any]] = query.carry.setdefault("switched", {})
        for name, strategy, later in (("first", self.first, False), ("then", self.then, True)):
            group = [r for r in range(query.R) if turn[r] == later]
            if group:
                asked = query.of(group, renumbered(kept.get(name, {}), {r: i for i, r in enumerate(group)}))
                picks[group] = strategy.select(asked, budget)
                kept[name] = renumbered(asked.carry, dict(enumerate(group)))
        return picks

    def _ready(self, query: Query) -> list[bool]:
        return [False] * query.R if query.head is None else self.after.ready(query)


def renumbered(carry: dict[str, Any], places: dict[int, int]) -> dict[str, Any]:
    """What strategies keep of replicates (see `Query.kept`) under other numbers; of those without one nothing stays."""
    return {
        name: {places[r]: state for r, state in kept.items() if r in places} if isinstance(kept, dict) else kept
        for name, kept in carry.items()
    }
