"""A pool that is covered: the next pick adds little to what the first one did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from annotated_types import Gt, Lt

from alfm.options import checked
from alfm.stopping.base import Rule, Shown


@dataclass(kw_only=True)
@checked
class CoverageGain(Rule):
    """Stops when the next pick's gain in coverage is below `threshold` times the first one's.

    What coverage is, is up to whoever tells the gains: MaxHerding's mean similarity to the nearest label, a share of
    the pool within a radius. The first number ever told is the first pick's.
    """

    needs: ClassVar[tuple[str, ...]] = ("gains",)
    threshold: Annotated[float, Gt(0), Lt(1)] = 0.001
    first: float | None = field(default=None, init=False, repr=False)

    def _look(self, shown: Shown) -> str | None:
        assert shown.gains is not None
        if not len(shown.gains):
            return None
        self.first = float(shown.gains[0]) if self.first is None else self.first
        share = float(shown.gains[-1]) / self.first if self.first > 0 else 0.0
        if share >= self.threshold:
            return None
        return f"the next pick covers {share:.2g} of what the first one did, below {self.threshold:g}"
