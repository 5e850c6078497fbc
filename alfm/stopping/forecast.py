"""A measured learning curve that promises little (PALM, Machnio et al. 2025, arXiv 2507.15381)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from alfm.options import Seed, checked
from alfm.stopping.base import Array, Rule, Shown
from alfm.stopping.learning_curve import outlook


@dataclass(kw_only=True)
@checked
class Forecast(Rule):
    """Stops when the next `ahead` rounds would bring less than `gain` in accuracy, by the upper end of the interval.

    It is told which items of an audit, a random labelled sample, the new model predicts rightly. Below six rounds it
    says nothing. What a forecast says in words: see `outlook`.
    """

    needs: ClassVar[tuple[str, ...]] = ("answers", "audit")
    gain: Annotated[float, Gt(0), Lt(1)] = 0.01
    ahead: Annotated[float, Gt(0), Le(1000)] = 5.0
    level: Annotated[float, Gt(0), Lt(1)] = 0.9
    draws: Annotated[int, Ge(20), Le(10_000)] = 100
    seed: Seed = 0
    counts: list[int] = field(default_factory=list, init=False, repr=False)
    right: list[Array] = field(default_factory=list, init=False, repr=False)

    def _look(self, shown: Shown) -> str | None:
        assert shown.audit is not None and shown.answers is not None
        self.right.append(shown.audit)
        self.counts.append(self.labelled)
        more = self.ahead * len(shown.answers)
        right = np.stack(self.right)
        if not outlook(self.counts, right, more, draws=0).gain < self.gain:
            return None  # the upper end, which takes a fit for each draw, is not looked for
        high = outlook(self.counts, right, more, level=self.level, draws=self.draws, seed=self.seed).high
        if not high < self.gain:
            return None
        return f"{more:g} more labels would bring {100 * high:.2g} points at most, below {100 * self.gain:g}"
