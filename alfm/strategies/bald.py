"""BALD: Houlsby et al. 2011 (1112.5745); with Monte-Carlo dropout: Gal, Islam & Ghahramani 2017 (1703.02910)."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alfm.acquisition import bald
from alfm.heads.passes import walk_draws
from alfm.options import checked
from alfm.posteriors import DropoutPosterior, Posterior
from alfm.strategies.parts.scored import Scored
from alfm.strategies.query import Query


@dataclass(eq=False)
@checked
class Bald(Scored):
    """Largest mutual information between an item's label and the weights, H(mean_m p) - mean_m H(p) (eq. 3).

    posterior: where the M draws come from; by default 20 dropout passes with a mask per item and pass.
    Cost: O(M N D C); memory O(N).
    """

    stochastic = True
    model_needs = ("draws",)
    posterior: Posterior = field(default_factory=DropoutPosterior)

    def score(self, query: Query) -> Tensor:
        return walk_draws(query.pool, query.draws(self.posterior), lambda seen: bald(seen.logits), joined=True)
