"""An ensemble of refitted heads (query by committee: Seung et al. 1992; bagging: Breiman 1996)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from alfm.errors import UserError
from alfm.features.features import Features
from alfm.heads.base import Classifier, Reweighted
from alfm.heads.linear import LinearHead
from alfm.options import Fits, checked
from alfm.streams import integer, stream


@dataclass(frozen=True)
@checked
class Ensemble:
    """M heads, each fitted on a bootstrap resample of the labelled items and with a seed of its own.

    Members are more replicates: one call fits all R * M of them. Where the classifier can (logistic), a resample is a
    weighting of the labelled items by counts, and members start from the round's head. With `bootstrap=False` members
    differ by their seeds alone, so a classifier without randomness (logistic) is refused. Cost: M fits per replicate.
    """

    passes: Fits = 10
    bootstrap: bool = True

    joint = True
    refits: ClassVar[bool] = True

    def bind(
        self,
        pool: Features,
        head: LinearHead,
        classifier: Classifier,
        rows: Tensor,
        targets: Tensor,
        seeds: Sequence[int],
        round: int,
    ) -> EnsembleDraws:
        """See `alfm.posteriors.base.Posterior`. Raises UserError when all members would be equal."""
        if self.bootstrap and isinstance(classifier, Reweighted):
            weight = torch.zeros(*rows.shape[:1], self.passes, rows.shape[1], dtype=pool.dtype)
            for r, place in enumerate(_labelled(rows)):
                for m in range(self.passes):
                    drawn = self._resample(place.cpu(), seeds[r], round, m)
                    weight[r, m] = torch.bincount(drawn, minlength=rows.shape[1])
            fitted = classifier.fit_reweighted(pool, rows, targets, head.C, weight.to(pool.device), head)
            return EnsembleDraws(fitted, self.passes, pool)
        member_rows, member_targets, member_seeds = [], [], []
        for r, place in enumerate(_labelled(rows)):
            for m in range(self.passes):
                pick = self._resample(place, seeds[r], round, m) if self.bootstrap else place
                member_rows.append(rows[r, pick])
                member_targets.append(targets[r, pick])
                member_seeds.append(integer(seeds[r], round, f"member {m}"))
        fitted = classifier.fit(pool, _padded(member_rows), _padded(member_targets), head.C, member_seeds, round)
        if not self.bootstrap and self.passes > 1 and torch.equal(fitted.weight[0], fitted.weight[1]):
            raise UserError(
                "posterior=ensemble with bootstrap=false needs a classifier that depends on its seed, for example "
                "classifier=dropout: here all members would be equal. Set bootstrap=true."
            )
        return EnsembleDraws(fitted, self.passes, pool)

    def _resample(self, place: Tensor, seed: int, round: int, member: int) -> Tensor:
        """As many of the labelled places (n,) as there are, drawn with replacement."""
        drawn = stream(seed, round, f"bootstrap {member}").integers(len(place), size=len(place))
        return place[torch.from_numpy(drawn).to(place.device)]


class EnsembleDraws:
    """Draws of `Ensemble`: `members` holds R * M heads, replicate by replicate."""

    joint = True

    def __init__(self, members: LinearHead, passes: int, pool: Features) -> None:
        self.members, self.passes = members, passes
        self.R, self.C = members.R // passes, members.C
        self._phi = pool.vectors(members.spaces[0]).matrix if members.shared else None

    def logits(self, rows: slice | Tensor, x: Tensor, r: int) -> Tensor:
        """See `alfm.posteriors.base.Draws`. On a shared space all members are one product; a view, (M, b, C)."""
        own = slice(r * self.passes, (r + 1) * self.passes)
        if not self.members.shared:
            return torch.stack([self.members.forward(x, i) for i in range(own.start, own.stop)])
        phi = self._phi[rows] if self._phi is not None else self.members.spaces[0](x)
        return self.members.part(own).logits(phi)


def _labelled(rows: Tensor) -> list[Tensor]:
    """Places of each replicate's labelled rows, R vectors int64 (n,)."""
    return [(own >= 0).nonzero()[:, 0] for own in rows]


def _padded(vectors: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(vectors, batch_first=True, padding_value=-1)
