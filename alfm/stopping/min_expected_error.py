"""Small expected error (Zhu, Wang & Hovy 2008, IJCNLP)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt, Lt

from alfm.options import checked
from alfm.stopping.base import Rule, Shown, confidence


@dataclass(kw_only=True)
@checked
class MinExpectedError(Rule):
    """Stops when the mean of 1 - the largest probability, over unlabelled items, is below `threshold`."""

    needs: ClassVar[tuple[str, ...]] = ("probabilities",)
    threshold: Annotated[float, Gt(0), Lt(1)] = 0.001

    def _look(self, shown: Shown) -> str | None:
        assert shown.probabilities is not None
        if not len(shown.probabilities):
            return None
        error = float(1 - confidence(shown.probabilities).mean())
        return f"the expected error is {error:.2g}, below {self.threshold:g}" if error < self.threshold else None
