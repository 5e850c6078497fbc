"""DCoM: Mishal & Weinshall 2024, "DCoM: active learning for all learners" (2407.01804), algorithms 1 and 2."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from alfm import devices
from alfm.acquisition import margin_uncertainty
from alfm.errors import UserError
from alfm.features.features import Vectors
from alfm.geometry import greedy
from alfm.geometry.balls import (
    Around,
    Centres,
    ListedBalls,
    MultipliedBalls,
    NearPairs,
    ball_purity,
    covered_by,
    inside,
    out_degrees,
)
from alfm.options import checked
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query
from alfm.threads import side_by_side


@dataclass(eq=False)
@checked
class Dcom(Strategy):
    """Density among what is not covered, turning into margins as coverage grows.

    Every labelled item has a ball on unit features; its radius is found by bisection (start `start`, at most `largest`,
    `resolution`): the largest whose share of items predicted as the ball's label is at least 0.2 c + 0.4, c the share
    of the pool that balls of radius `start` cover (those of the radii that are sought do not exist yet). Competence
    S = (1 + e^(-k (1 - a))) / (1 + e^(-k (cov - a))), cov the share that the balls found cover; score = S (1 - margin)
    + (1 - S) density, both min-max scaled; density = how many uncovered items lie within the mean radius. After a pick
    the ball of mean radius around it counts as covered; the density is scaled once per batch.
    Cost: once O(N^2 D), then O(N D n); memory O(N n) and the near pairs, both bounded.
    """

    needs = ("probabilities", "features", "labels")
    measures = ("unit",)

    a: Annotated[float, Ge(-1), Le(2)] = 0.8
    k: Annotated[float, Ge(0), Le(300)] = 50.0
    start: Annotated[float, Gt(0), Le(2)] = 0.6
    largest: Annotated[float, Gt(0), Le(2)] = 1.1
    resolution: Annotated[float, Ge(1e-6), Le(1)] = 0.05

    def __post_init__(self) -> None:
        if self.start > self.largest:
            raise UserError(f"{self.name} start={self.start:g} must not exceed largest={self.largest:g}.")

    def select(self, query: Query, budget: int) -> Tensor:
        head = query.head
        assert head is not None
        unit = query.pool.points()
        uncertainty, predicted = query.walk(lambda seen: (margin_uncertainty(seen.logits), seen.logits.argmax(-1)))

        def labelled(r: int) -> tuple[Tensor, Tensor]:
            """The mean radius () and what the labelled items' balls leave uncovered, bool (N,)."""
            balls = Centres(unit, query.labelled(r))
            radii = self.radii(query, r, predicted[r], balls)
            return radii.mean(), ~covered_by(balls, radii)

        _ = unit.sq_norms  # made once, before the replicates ask for it side by side
        found = side_by_side([partial(labelled, r) for r in range(query.R)], query.pool.device)
        radius, uncovered = [own for own, _ in found], [own for _, own in found]
        balls = self._around(query, radius)
        rest = [r for r in range(query.R) if not isinstance(balls[r], ListedBalls)]
        shared = dict(
            zip(rest, out_degrees(unit, [radius[r] for r in rest], [uncovered[r] for r in rest]), strict=True)
        )

        def batch(r: int) -> _Batch:
            own = balls[r]
            degrees = own.degrees(uncovered[r]) if isinstance(own, ListedBalls) else shared[r]
            share = float((~uncovered[r]).double().mean())
            competence = (1 + math.exp(-self.k * (1 - self.a))) / (1 + math.exp(-self.k * (share - self.a)))
            return _Batch(unit, own, uncovered[r], degrees, uncertainty[r], competence, query.available[r])

        return query.greedily(batch, budget)

    def radii(self, query: Query, r: int, predicted: Tensor, balls: Centres | None = None) -> Tensor:
        """Radius of each labelled item's ball, (n,), by bisection; predicted (N,): the head's classes."""
        labels, unit = query.labels_of(r), query.pool.points()
        balls = Centres(unit, query.labelled(r)) if balls is None else balls
        start = torch.full((len(labels),), self.start, dtype=query.pool.dtype, device=query.pool.device)
        least = 0.2 * float(covered_by(balls, start).double().mean()) + 0.4
        radii = torch.empty_like(start)
        for chunk, d2 in balls:
            agree = labels[chunk, None] == predicted
            low, middle = torch.zeros_like(start[chunk]), start[chunk]
            high = torch.full_like(middle, self.largest)
            for _ in range(1 + math.ceil(math.log2(max(self.start, self.largest - self.start) / self.resolution))):
                pure = ball_purity(unit, d2, middle, agree) >= least
                wide = high - low > self.resolution
                low, high = torch.where(wide & pure, middle, low), torch.where(wide & ~pure, middle, high)
                middle = (low + high) / 2
            radii[chunk] = torch.where(low > 0, low, middle)
        return radii

    @staticmethod
    def _around(query: Query, radius: Sequence[Tensor]) -> list[Around]:
        """The balls of each replicate's radius: read off lists where these fit and are faster than products."""
        unit = query.pool.points()
        if not devices.of(query.pool.device).keeps_pair_lists:
            return [MultipliedBalls(unit, own) for own in radius]
        near = query.pool.once("near pairs", lambda: NearPairs(unit))
        near.hold(max((own for own in map(float, radius) if own <= near.most), default=0.0))
        return [ListedBalls(near, own) if float(own) <= near.most else MultipliedBalls(unit, own) for own in radius]


class _Batch:
    """One replicate's batch: an objective for `greedy.lazy`, or a part of one for `greedy.stepwise`.

    Degrees only fall as balls are covered, so stale scores bound new ones. The density is scaled once per batch, by the
    degrees (N,) at its start. uncovered (N,) is written to.
    """

    def __init__(
        self,
        unit: Vectors,
        balls: Around,
        uncovered: Tensor,
        degrees: Tensor,
        uncertainty: Tensor,
        competence: float,
        available: Tensor,
    ) -> None:
        self.vectors, self.balls, self.uncovered, self.competence = unit, balls, uncovered, competence
        self.margin = _scaled(uncertainty, uncertainty[available])
        free = degrees[available].to(uncertainty.dtype)
        self.low, self.span = free.min(), (free.max() - free.min()).clamp_min(1)
        self.bounds = self.score(degrees)

    def score(self, degrees: Tensor, items: Tensor | None = None) -> Tensor:
        density = (degrees.to(self.margin.dtype) - self.low) / self.span
        margin = self.margin if items is None else self.margin[items]
        return self.competence * margin + (1 - self.competence) * density

    def gains(self, items: Tensor) -> Tensor:
        return self.score(self.balls.counts(items, self.uncovered), items)

    def add(self, item: Tensor) -> None:
        self.balls.clear(item, self.uncovered)

    def renew(self, bounds: Tensor) -> bool:
        return False

    def select(self, allowed: Tensor, budget: int) -> Tensor:
        """See `greedy.Replicate`."""
        return greedy.lazy(self, self.bounds, allowed, budget)

    def alike(self) -> Hashable | None:
        """See `greedy.Replicate`: products go together, lists do not."""
        return self.vectors if isinstance(self.balls, MultipliedBalls) else None

    @classmethod
    def together(cls, states: Sequence[_Batch], allowed: Tensor, budget: int) -> list[Tensor]:
        """See `greedy.Replicate`."""
        return greedy.stepwise(_Together(states), torch.stack([one.bounds for one in states]), allowed, budget)


class _Together:
    """Replicates' batches on products, for `greedy.stepwise`."""

    def __init__(self, states: Sequence[_Batch]) -> None:
        self.states, self.unit = states, states[0].vectors
        self.limits = torch.stack([one.balls.limit for one in states if isinstance(one.balls, MultipliedBalls)])
        self.uncovered = torch.stack([one.uncovered for one in states])
        self.state = [self.uncovered]

    def look(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """See `greedy.Stepwise`: the balls are the rows, bool (R, m, N)."""
        ball = inside(self.unit, items, self.limits)
        degrees = (ball & self.uncovered[:, None]).sum(2)
        scores = [one.score(own, some) for one, own, some in zip(self.states, degrees, items, strict=True)]
        return torch.stack(scores), ball

    def take(self, rows: Tensor, live: Tensor) -> None:
        """See `greedy.Stepwise`."""
        self.uncovered.logical_and_(~(rows & live))

    def renew(self, bounds: Tensor, steps: int) -> bool:
        """Never: all degrees would take a pass over all pairs."""
        return False


def _scaled(x: Tensor, free: Tensor) -> Tensor:
    """Min-max scaling by the values of the free items; constant values become 0."""
    return (x - free.min()) / (free.max() - free.min()).clamp_min(torch.finfo(x.dtype).tiny)
