"""Variance of the selected items' uncertainty that falls (Ghayoomi 2010)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Le

from alfm.options import checked
from alfm.stopping.base import Rule, Shown, confidence


@dataclass(kw_only=True)
@checked
class Variance(Rule):
    """Stops when the variance of 1 - the largest probability, over the batch, fell in `falls` rounds in a row, each
    time by more than `threshold` (the paper's other form: 0)."""

    from_second: ClassVar[tuple[str, ...]] = ("batch",)
    threshold: Annotated[float, Ge(0), Le(1)] = 0.001
    falls: Annotated[int, Ge(1), Le(1000)] = 2
    variances: list[float] = field(default_factory=list, init=False, repr=False)

    def _look(self, shown: Shown) -> str | None:
        if shown.batch is None or not len(shown.batch):
            return None
        self.variances.append(float(confidence(shown.batch).var()))
        last = np.array(self.variances[-self.falls - 1 :])
        if len(last) <= self.falls or not (np.diff(last) < -self.threshold).all():
            return None
        return f"the batch's variance of uncertainty fell {self.falls} times in a row, to {last[-1]:.2g}"
