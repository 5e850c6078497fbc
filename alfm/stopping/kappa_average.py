"""Stabilising predictions: successive models agree (Bloodgood & Vijay-Shanker 2009, arXiv 1409.5165)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Le

from alfm.options import checked
from alfm.stopping.agreement import both_known, kappa
from alfm.stopping.base import Array, Rule, Shown


@dataclass(kw_only=True)
@checked
class KappaAverage(Rule):
    """Stops when the mean of the last `window` kappas, each between two successive models, is at least `threshold`.

    So not before window + 1 rounds.
    """

    needs: ClassVar[tuple[str, ...]] = ("predictions",)
    window: Annotated[int, Ge(1), Le(1000)] = 3
    threshold: Annotated[float, Ge(0), Le(1)] = 0.99
    before: Array | None = field(default=None, init=False, repr=False)
    kappas: list[float] = field(default_factory=list, init=False, repr=False)

    def _look(self, shown: Shown) -> str | None:
        assert shown.predictions is not None
        before, self.before = self.before, shown.predictions
        if before is None or (pair := both_known(before, shown.predictions)) is None:
            return None
        self.kappas.append(kappa(*pair))
        if len(self.kappas) < self.window:
            return None
        mean = float(np.mean(self.kappas[-self.window :]))
        if mean < self.threshold:
            return None
        return (
            f"successive models agree: mean kappa of the last {self.window} is {mean:.4f}, at least {self.threshold:g}"
        )
