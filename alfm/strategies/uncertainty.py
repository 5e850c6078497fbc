"""Least confidence: Lewis & Gale 1994, "A sequential algorithm for training text classifiers"."""

from __future__ import annotations

from dataclasses import dataclass

from alfm.acquisition import least_confidence
from alfm.options import checked
from alfm.strategies.parts.scored import PredictionScored


@dataclass(eq=False)
@checked
class Uncertainty(PredictionScored):
    """Largest 1 - p1, p1 the largest predicted probability. Cost: O(N D C); memory O(N)."""

    acquisition = staticmethod(least_confidence)
