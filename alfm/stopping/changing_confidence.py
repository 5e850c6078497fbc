"""Confidence that falls, or no longer rises (Vlachos 2008)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le

from alfm.options import checked
from alfm.stopping.base import Rule, Shown, confidence


@dataclass(kw_only=True)
@checked
class ChangingConfidence(Rule):
    """Compares the last `window` mean confidences with the one before them, so not before window + 1 rounds.

    mode: "D", drop: stops when all are below it; "N", no rise: when none is above it.
    """

    needs: ClassVar[tuple[str, ...]] = ("probabilities",)
    mode: Literal["D", "N"] = "D"
    window: Annotated[int, Ge(1), Le(1000)] = 3
    means: list[float] = field(default_factory=list, init=False, repr=False)

    def _look(self, shown: Shown) -> str | None:
        assert shown.probabilities is not None
        if not len(shown.probabilities):
            return None
        self.means.append(float(confidence(shown.probabilities).mean()))
        if len(self.means) <= self.window:
            return None
        first, last = self.means[-self.window - 1], self.means[-self.window :]
        if max(last) > first or self.mode == "D" and max(last) == first:
            return None
        how = "below" if self.mode == "D" else "not above"
        return f"mean confidence is {how} {first:.4f} for {self.window} rounds"
