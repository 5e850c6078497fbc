"""An ensemble of refitted heads (query by committee: Seung et al. 1992; bagging: Breiman 1996)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alfm.errors import UserError
from alfm.heads.base import Classifier, LinearHead
from alfm.pool import Pool
from alfm.streams import integer, stream


@dataclass(frozen=True)
class Ensemble:
    """M heads, each fitted on a bootstrap resample of the labelled items and with a seed of its own.

    Members are more replicates: one call fits all R * M of them. With `bootstrap=False` members differ by their seeds
    alone, so a classifier without randomness (logistic) is refused. Cost: M fits per replicate.
    """

    passes: int = 10
    bootstrap: bool = True

    joint = True

    def __post_init__(self) -> None:
        if self.passes < 1:
            raise UserError(f"posterior.passes must be at least 1; got {self.passes}.")

    def bind(
        self,
        pool: Pool,
        head: LinearHead,
        classifier: Classifier,
        rows: Tensor,
        targets: Tensor,
        seeds: Sequence[int],
        round: int,
    ) -> EnsembleDraws:
        """See `alfm.posteriors.base.Posterior`. Raises UserError when all members would be equal."""
        member_rows, member_targets, member_seeds = [], [], []
        for r, seed in enumerate(seeds):
            place = (rows[r] >= 0).nonzero()[:, 0]
            for m in range(self.passes):
                pick = place
                if self.bootstrap:
                    drawn = stream(seed, round, f"bootstrap {m}").integers(len(place), size=len(place))
                    pick = place[torch.from_numpy(drawn).to(place.device)]
                member_rows.append(rows[r, pick])
                member_targets.append(targets[r, pick])
                member_seeds.append(integer(seed, round, f"member {m}"))
        fitted = classifier.fit(pool, _padded(member_rows), _padded(member_targets), head.C, member_seeds, round)
        if not self.bootstrap and self.passes > 1 and torch.equal(fitted.weight[0], fitted.weight[1]):
            raise UserError(
                "posterior=ensemble with bootstrap=false needs a classifier that depends on its seed, for example "
                "classifier=dropout: here all members would be equal. Set bootstrap=true."
            )
        return EnsembleDraws(fitted, self.passes)


class EnsembleDraws:
    """Draws of `Ensemble`: `members` holds R * M heads, replicate by replicate."""

    joint = True

    def __init__(self, members: LinearHead, passes: int) -> None:
        self.members, self.passes = members, passes
        self.R, self.C = members.R // passes, members.C

    def logits(self, rows: slice | Tensor, x: Tensor, r: int) -> Tensor:
        """See `alfm.posteriors.base.Draws`."""
        heads = range(r * self.passes, (r + 1) * self.passes)
        if self.members.shared:
            phi = self.members.spaces[0](x)
            return torch.stack([self.members.logits(phi, i) for i in heads])
        return torch.stack([self.members.forward(x, i) for i in heads])


def _padded(vectors: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(vectors, batch_first=True, padding_value=-1)
