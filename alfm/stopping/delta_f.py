"""Predicted change of F between successive models (Altschuler & Bloodgood 2019, arXiv 1901.09118)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from annotated_types import Ge, Le

from alfm.options import Whole, checked
from alfm.stopping.agreement import both_known, change_of_f
from alfm.stopping.base import Array, Rule, Shown


@dataclass(kw_only=True)
@checked
class DeltaF(Rule):
    """Stops when the change was at most `threshold` in each of the last `window` rounds.

    The change of a class is 1 - 2a / (2a + b + c), a: items that both models give it, b and c: that one of them does.
    positive: of this class, as in the paper; None: the mean over the classes that the two models give at all.
    """

    needs: ClassVar[tuple[str, ...]] = ("predictions",)
    window: Annotated[int, Ge(1), Le(1000)] = 3
    threshold: Annotated[float, Ge(0), Le(1)] = 0.05
    positive: Whole | None = None
    before: Array | None = field(default=None, init=False, repr=False)
    changes: list[float] = field(default_factory=list, init=False, repr=False)

    def _look(self, shown: Shown) -> str | None:
        assert shown.predictions is not None
        before, self.before = self.before, shown.predictions
        if before is None or (pair := both_known(before, shown.predictions)) is None:
            return None
        self.changes.append(change_of_f(pair[0], pair[1], self.positive))
        largest = max(self.changes[-self.window :])
        if len(self.changes) < self.window or largest > self.threshold:
            return None
        return (
            f"F changed by {largest:.4f} at most in each of {self.window} rounds, up to {self.threshold:g} is allowed"
        )
