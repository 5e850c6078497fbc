"""Strategies that rank items by one number from the head's predictions, with the options they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor

from alfm.acquisition import entropy, least_confidence, margin_uncertainty, mean_log_probabilities
from alfm.heads.passes import apart, walk_draws
from alfm.options import Count, checked
from alfm.posteriors import DropoutPosterior, Posterior
from alfm.strategies.base import Need, Strategy
from alfm.strategies.parts.candidates import best, clustered, highest, typical
from alfm.strategies.query import Query, stack_picks

JOINED = (entropy, least_confidence, margin_uncertainty)
"""Acquisitions that serve several replicates at once, (R', b, C) -> (R', b), where a device gains by it."""


@dataclass(eq=False)
@checked
class Scored(Strategy):
    """Picks the items of highest `score`.

    typical_features: candidates are the `oversample` x budget items around the median score instead of the top.
    cluster_features: of the candidates (the top `oversample` x budget), the ones nearest to the centroids of a
    k-means with `budget` clusters on unit features.
    """

    typical_features: bool = False
    cluster_features: bool = False
    oversample: Count = 50

    @property
    def measures(self) -> Sequence[Literal["unit"]]:  # type: ignore[override]
        return ("unit",) if self.cluster_features else ()

    @property
    def needs(self) -> Sequence[Need] | None:  # type: ignore[override]
        """Features too where candidates are clustered."""
        model = self.model_needs
        return None if model is None else (*model, *(("features",) if self.cluster_features else ()))

    @property
    def model_needs(self) -> Sequence[Need] | None:
        """What `score` works from."""
        return None

    @abstractmethod
    def score(self, query: Query) -> Tensor:
        """Acquisition score (R, N), higher = sooner."""

    def select(self, query: Query, budget: int) -> Tensor:
        if not self.cluster_features and not self.typical_features:
            return best(query, self.score(query), budget)
        kept = self.oversample * budget if self.cluster_features else budget
        candidates = (typical if self.typical_features else highest)(query, self.score(query), kept)
        picks = clustered(query, candidates, budget, up_to=kept) if self.cluster_features else candidates
        return stack_picks(picks, budget, query.pool.device)


@dataclass(eq=False)
@checked
class PredictionScored(Scored):
    """A score that is a function of the predicted probabilities.

    enable_dropout: of the mean probabilities of the posterior's passes (by default input dropout, as the authors of
    AL-foundation-models do) instead of the head's own.
    """

    enable_dropout: bool = False
    posterior: Posterior = field(default_factory=DropoutPosterior)
    acquisition: ClassVar[Any]
    """logits (b, C) -> scores (b,) of one replicate; a static method, pure: several run in threads of their own."""

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return self.enable_dropout

    @property
    def model_needs(self) -> Sequence[Need]:
        return ("draws",) if self.enable_dropout else ("probabilities",)

    def joins_parts(self, items: int) -> bool:
        return not self.enable_dropout and not self.cluster_features

    def score(self, query: Query) -> Tensor:
        rank = type(self).acquisition
        if self.enable_dropout and rank in JOINED:
            draws = query.draws(self.posterior)
            return walk_draws(query.pool, draws, lambda seen: rank(mean_log_probabilities(seen.logits)), joined=True)
        if self.enable_dropout:
            of_mean = apart(lambda x, logits, rows, r: rank(mean_log_probabilities(logits)))
            return walk_draws(query.pool, query.draws(self.posterior), of_mean)
        return query.walk(lambda seen: rank(seen.logits)) if rank in JOINED else query.score(rank)
