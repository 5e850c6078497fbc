"""A model that is right about what was just labelled (Zhu, Wang & Hovy 2008, IJCNLP)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Lt

from alfm.options import checked
from alfm.stopping.base import Rule, Shown


@dataclass(kw_only=True)
@checked
class SelectedAccuracy(Rule):
    """Stops when the share of the batch that the model before predicted rightly is above `threshold`."""

    needs: ClassVar[tuple[str, ...]] = ("answers",)
    from_second: ClassVar[tuple[str, ...]] = ("batch",)
    threshold: Annotated[float, Ge(0), Lt(1)] = 0.9

    def _look(self, shown: Shown) -> str | None:
        if shown.batch is None or not len(shown.batch):
            return None
        right, total = int((shown.batch.argmax(1) == shown.answers).sum()), len(shown.batch)
        if right <= self.threshold * total:
            return None
        return f"{right} of the {total} labels just given were predicted, more than the share {self.threshold:g}"
