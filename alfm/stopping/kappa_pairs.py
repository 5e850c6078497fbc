"""Stabilising predictions as read by Pullar-Strecker et al. 2022 (arXiv 2110.03802): the last models all agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Le

from alfm.options import checked
from alfm.stopping.agreement import both_known, kappa
from alfm.stopping.base import Array, Rule, Shown


@dataclass(kw_only=True)
@checked
class KappaPairs(Rule):
    """Stops when the mean kappa over ALL pairs of the last `window` models is at least `threshold`.

    So not before `window` rounds. All pairs are compared on the items that are unlabelled still.
    """

    needs: ClassVar[tuple[str, ...]] = ("predictions",)
    window: Annotated[int, Ge(2), Le(100)] = 3
    threshold: Annotated[float, Ge(0), Le(1)] = 0.99
    last: list[Array] = field(default_factory=list, init=False, repr=False)

    def _look(self, shown: Shown) -> str | None:
        assert shown.predictions is not None
        self.last = [*self.last, shown.predictions][-self.window :]
        if len(self.last) < self.window or (known := both_known(*self.last)) is None:
            return None
        mean = float(np.mean([kappa(*pair) for pair in combinations(known, 2)]))
        if mean < self.threshold:
            return None
        return (
            f"the last {self.window} models agree: mean kappa of their pairs is {mean:.4f}, at least {self.threshold:g}"
        )
