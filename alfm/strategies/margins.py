"""Margin sampling: Scheffer, Decomain & Wrobel 2001, "Active hidden Markov models for information extraction"."""

from __future__ import annotations

from dataclasses import dataclass

from alfm.acquisition import margin_uncertainty
from alfm.options import checked
from alfm.strategies.parts.scored import PredictionScored


@dataclass(eq=False)
@checked
class Margins(PredictionScored):
    """Smallest p1 - p2, the two largest probabilities. Cost: O(N D C); memory O(N)."""

    acquisition = staticmethod(margin_uncertainty)
