"""Query by committee: Seung, Opper & Sompolinsky 1992; measures as in Settles 2009, section 3.2."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from alfm.acquisition import kl_to_consensus, variation_ratio, vote_entropy
from alfm.heads.passes import walk_draws
from alfm.options import checked
from alfm.posteriors import Ensemble, Posterior
from alfm.strategies.parts.scored import Scored
from alfm.strategies.query import Query

MEASURES = {"variation_ratio": variation_ratio, "vote_entropy": vote_entropy, "kl": kl_to_consensus}


@dataclass(eq=False)
@checked
class Qbc(Scored):
    """Items on which a committee of heads disagrees most.

    measure: `variation_ratio` (share of members outside the plurality), `vote_entropy`, or `kl` (mean KL divergence
    to the mean prediction; McCallum & Nigam 1998). posterior: the committee, by default heads fitted on bootstrap
    resamples. Votes of few members tie often; `kl` does not.
    Cost: M fits and O(M N D C); memory O(N + M C D).
    """

    stochastic = True
    model_needs = ("draws",)
    measure: Literal["variation_ratio", "vote_entropy", "kl"] = "vote_entropy"
    posterior: Posterior = field(default_factory=Ensemble)

    def score(self, query: Query) -> Tensor:
        measure = MEASURES[self.measure]
        return walk_draws(query.pool, query.draws(self.posterior), lambda seen: measure(seen.logits), joined=True)
