"""A number of rounds."""

from __future__ import annotations

from dataclasses import dataclass

from alfm.options import Rounds, checked
from alfm.stopping.base import Rule, Shown


@dataclass(kw_only=True)
@checked
class MaxRounds(Rule):
    """Stops after so many rounds, the initial set being the first."""

    rounds: Rounds = 10

    def _look(self, shown: Shown) -> str | None:
        return f"{self.round} rounds, as many as asked for" if self.round >= self.rounds else None
