"""TCM: Doucet et al. 2024, "Bridging diversity and uncertainty in active learning" (2403.03728)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from alfm.geometry.kmeans_on_part import GATHERED
from alfm.options import Whole, checked
from alfm.strategies.base import Strategy
from alfm.strategies.margins import Margins
from alfm.strategies.query import Query
from alfm.strategies.switch_rules import AfterRounds
from alfm.strategies.switched import Switched
from alfm.strategies.typiclust import TypiClust


@dataclass(eq=False)
@checked
class Tcm(Strategy):
    """TypiClust for the first `rounds` queries after the initial set, then margins.
    Cost: that of TypiClust, O(N D K), or of margins, O(N D C).
    """

    needs = ("features", "probabilities")
    needs_head = False
    stochastic = True
    measures = ("unit",)
    repairs_near = True
    cluster_up_to = GATHERED
    rounds: Whole = 3

    def select(self, query: Query, budget: int) -> Tensor:
        return Switched(TypiClust(), Margins(), AfterRounds(self.rounds)).select(query, budget)
