"""Estimated performance that has stopped rising (Laws & Schütze 2008, as run by Pullar-Strecker et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from alfm.options import checked
from alfm.stopping.base import Rule, Shown, confidence
from alfm.stopping.gradient import flat_at_new_maximum


@dataclass(kw_only=True)
@checked
class PerformanceConvergence(Rule):
    """Stops at a new maximum of the estimated F when its mean over `window` rounds rose, by less than `threshold`.

    F over all classes, with probabilities for the truth, is the mean of the largest probability: what is wrong of a
    prediction is one false positive and one false negative.
    """

    needs: ClassVar[tuple[str, ...]] = ("probabilities",)
    window: Annotated[int, Ge(1), Le(1000)] = 10
    threshold: Annotated[float, Gt(0), Le(1)] = 5e-5
    estimates: list[float] = field(default_factory=list, init=False, repr=False)

    def _look(self, shown: Shown) -> str | None:
        assert shown.probabilities is not None
        if not len(shown.probabilities):
            return None
        self.estimates.append(float(confidence(shown.probabilities).mean()))
        rise = flat_at_new_maximum(self.estimates, self.window, self.threshold, "mean")
        return None if rise is None else f"the estimated F rises by {rise:.2g} a round, less than {self.threshold:g}"
