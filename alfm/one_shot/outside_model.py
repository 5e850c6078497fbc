"""A model from elsewhere, known by its probabilities alone, in the place of a fitted head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from alfm.acquisition import mean_log_probabilities
from alfm.features.features import Features
from alfm.features.spaces import RAW, Space
from alfm.heads.passes import Draws, apart, walk
from alfm.posteriors.base import Posterior
from alfm.strategies.query import Query


@dataclass(frozen=True, eq=False)
class OutsideHead:
    """What `LinearHead` is for a head of ours: one replicate whose logits are log probabilities, known by row.

    log_p (N, C). Its coordinates are the features as they are: the model's embedding, where a strategy needs one.
    """

    log_p: Tensor
    spaces: Sequence[Space] = (RAW,)
    shared = True
    R = 1

    @property
    def C(self) -> int:
        return self.log_p.shape[1]

    def part(self, replicates: slice) -> OutsideHead:
        return self

    def embed(self, x: Tensor) -> Tensor:
        return x[None]

    def at(self, rows: slice | Tensor, phi: Tensor, r: int | None = None) -> Tensor:
        """Logits (1, b, C) of pool rows, or (b, C) of replicate r."""
        return self.log_p[rows] if r is not None else self.log_p[rows][None]

    def among(self, items: Tensor) -> OutsideHead:
        return OutsideHead(self.log_p[items], self.spaces)

    def map(self, features: Features, fn: Callable[..., Tensor | tuple[Tensor, ...]]) -> Any:
        return walk(features, self, apart(fn), joined=False)


@dataclass(frozen=True, eq=False)
class OutsideDraws:
    """M models' log probabilities (M, N, C) as `alfm.heads.passes.Draws`."""

    log_p: Tensor
    joint = True
    R = 1

    @property
    def passes(self) -> int:
        return self.log_p.shape[0]

    @property
    def C(self) -> int:
        return self.log_p.shape[2]

    def logits(self, rows: slice | Tensor, x: Tensor, r: int) -> Tensor:
        return self.log_p[:, rows]


@dataclass
class OutsideQuery(Query):
    """A query whose draws are given, whatever posterior a strategy has."""

    given: Draws | None = None

    def draws(self, posterior: Posterior) -> Draws:
        assert self.given is not None
        return self.given


def mean_log_p(log_p: Tensor) -> Tensor:
    """Of M draws (M, N, C) the prediction, the mean probability, as logarithms (N, C)."""
    return log_p[0] if len(log_p) == 1 else mean_log_probabilities(log_p)
