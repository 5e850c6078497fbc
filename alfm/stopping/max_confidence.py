"""A model that is sure of all that was asked (Zhu & Hovy 2007, EMNLP)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt, Le

from alfm.options import checked
from alfm.stopping.base import Rule, Shown, entropy


@dataclass(kw_only=True)
@checked
class MaxConfidence(Rule):
    """Stops when the largest entropy of the batch, under the model that asked for it, is below `threshold` (nats)."""

    from_second: ClassVar[tuple[str, ...]] = ("batch",)
    threshold: Annotated[float, Gt(0), Le(100)] = 0.001

    def _look(self, shown: Shown) -> str | None:
        if shown.batch is None or not len(shown.batch):
            return None
        largest = float(entropy(shown.batch).max())
        if largest >= self.threshold:
            return None
        return f"the largest entropy of the batch is {largest:.2g}, below {self.threshold:g}"
