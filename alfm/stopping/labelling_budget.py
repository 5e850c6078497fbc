"""A number of labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from alfm.options import Count, checked
from alfm.stopping.base import Rule, Shown


@dataclass(kw_only=True)
@checked
class LabellingBudget(Rule):
    """Stops once so many labels, or more, were paid for: those given, where nothing is said of what was paid."""

    needs: ClassVar[tuple[str, ...]] = ("answers",)
    labels: Count = 500

    def _look(self, shown: Shown) -> str | None:
        spent = self.labelled if shown.paid is None else shown.paid
        return f"{spent} labels, of {self.labels} to spend" if spent >= self.labels else None
