"""A time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Gt, Le

from alfm.options import checked
from alfm.stopping.base import Rule, Shown


@dataclass(kw_only=True)
@checked
class TimeLimit(Rule):
    """Stops once the rounds took so many seconds: those it is told, else those on the clock since it was made."""

    seconds: Annotated[float, Gt(0), Le(1e9)] = 3600.0
    spent: float = field(default=0.0, init=False, repr=False)
    begun: float = field(default_factory=time.monotonic, init=False, repr=False, compare=False)

    def _look(self, shown: Shown) -> str | None:
        now = time.monotonic()
        self.spent += now - self.begun if shown.seconds is None else shown.seconds
        self.begun = now
        return f"{self.spent:.0f} seconds, of {self.seconds:g} to spend" if self.spent >= self.seconds else None
