"""Low mean uncertainty (Zhu, Wang & Hovy 2008, COLING)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Lt

from alfm.options import checked
from alfm.stopping.base import Rule, Shown, entropy


@dataclass(kw_only=True)
@checked
class OverallUncertainty(Rule):
    """Stops when the mean entropy of the unlabelled items, divided by log C, is below `threshold`."""

    needs: ClassVar[tuple[str, ...]] = ("probabilities",)
    threshold: Annotated[float, Gt(0), Lt(1)] = 0.05

    def _look(self, shown: Shown) -> str | None:
        assert shown.probabilities is not None
        if not len(shown.probabilities):
            return None
        mean = float(entropy(shown.probabilities).mean() / np.log(shown.probabilities.shape[1]))
        return f"mean uncertainty is {mean:.4f}, below {self.threshold:g}" if mean < self.threshold else None
