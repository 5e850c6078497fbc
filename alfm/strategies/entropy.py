"""Predictive entropy: Shannon 1948, as a query strategy in Settles 2009, section 3.1; of the mean of dropout passes:
Gal, Islam & Ghahramani 2017 (1703.02910)."""

from __future__ import annotations

from dataclasses import dataclass

from alfm.acquisition import entropy
from alfm.options import checked
from alfm.strategies.parts.scored import PredictionScored


@dataclass(eq=False)
@checked
class Entropy(PredictionScored):
    """Largest -sum p log p, from log-softmax (no NaN). Cost: O(N D C); memory O(N)."""

    acquisition = staticmethod(entropy)
