"""Predictions that no longer change (Zhu, Wang & Hovy 2008, COLING)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from annotated_types import Ge, Lt

from alfm.options import checked
from alfm.stopping.agreement import both_known
from alfm.stopping.base import Array, Rule, Shown


@dataclass(kw_only=True)
@checked
class ClassificationChange(Rule):
    """Stops when at most the share `threshold` of the stop set is predicted otherwise than by the model before."""

    needs: ClassVar[tuple[str, ...]] = ("predictions",)
    threshold: Annotated[float, Ge(0), Lt(1)] = 0.0
    before: Array | None = field(default=None, init=False, repr=False)

    def _look(self, shown: Shown) -> str | None:
        assert shown.predictions is not None
        before, self.before = self.before, shown.predictions
        if before is None or (pair := both_known(before, shown.predictions)) is None:
            return None
        changed = int((pair[0] != pair[1]).sum())
        if changed > self.threshold * len(pair[0]):
            return None
        return f"{changed} of {len(pair[0])} predictions changed, at most the share {self.threshold:g}"
