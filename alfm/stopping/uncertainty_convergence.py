"""Uncertainty of what is asked that has levelled off (Laws & Schütze 2008, as run by Pullar-Strecker et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from alfm.options import checked
from alfm.stopping.base import Rule, Shown, entropy
from alfm.stopping.gradient import flat_at_new_maximum


@dataclass(kw_only=True)
@checked
class UncertaintyConvergence(Rule):
    """Stops at a new maximum of the batch's smallest entropy when its median over `window` rounds rose by less than
    `threshold`."""

    from_second: ClassVar[tuple[str, ...]] = ("batch",)
    window: Annotated[int, Ge(1), Le(1000)] = 10
    threshold: Annotated[float, Gt(0), Le(100)] = 5e-5
    smallest: list[float] = field(default_factory=list, init=False, repr=False)

    def _look(self, shown: Shown) -> str | None:
        if shown.batch is None or not len(shown.batch):
            return None
        self.smallest.append(float(entropy(shown.batch).min()))
        rise = flat_at_new_maximum(self.smallest, self.window, self.threshold, "median")
        return None if rise is None else f"uncertainty of the batch rises by {rise:.2g}, less than {self.threshold:g}"
