"""DCoM: Mishal & Weinshall 2024, "DCoM: active learning for all learners" (2407.01804), algorithms 1 and 2."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

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
    PairsAround,
    ball_purity,
    covered_by,
    inside,
    out_degrees,
)
from alfm.geometry.kernels import filled
from alfm.geometry.pairs import limit
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
        _ = unit.sq_norms  # made once, before the replicates ask for it side by side
        radius, uncovered = self._labelled(query, predicted)
        balls = self._around(query, radius)
        multiplied = {r: own.limit for r, own in enumerate(balls) if isinstance(own, MultipliedBalls)}
        degrees: dict[int, Tensor] = {}
        if multiplied:
            limits, open_ = torch.stack(list(multiplied.values())), torch.stack([uncovered[r] for r in multiplied])
            degrees |= zip(
                multiplied, self._degrees(query, [radius[r] for r in multiplied], limits, open_), strict=True
            )
        scores: list[_Scores] = []
        if unit.pool.joins_replicates:
            open_, found = (torch.stack(list(own)) for own in (uncovered, degrees.values()))
            scores = self._scores(uncertainty, open_, found, query.available).apart()

        def batch(r: int) -> _Batch:
            own, left = balls[r], uncovered[r]
            inside = own.degrees(left) if isinstance(own, ListedBalls) else degrees[r]
            score = scores[r] if scores else self._scores(uncertainty[r], left, inside, query.available[r])
            return _Batch(unit, own, left, score, inside)

        return query.greedily(batch, budget)

    def _labelled(self, query: Query, predicted: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Each replicate's mean radius () and what the labelled items' balls leave uncovered, bool (N,)."""
        unit, R = query.pool.points(), range(query.R)

        def of(rows: Tensor, labels: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
            balls = Centres(unit, rows)
            radii = self._radii(balls, labels, predicted)
            return radii, ~covered_by(balls, radii)

        def alone(r: int) -> tuple[Tensor, Tensor]:
            radii, uncovered = of(query.labelled(r), query.labels_of(r), predicted[r])
            return radii.mean(), uncovered

        if not unit.pool.joins_replicates or not all(query.counts):
            found = side_by_side([partial(alone, r) for r in R], unit.device)
            return [radius for radius, _ in found], [uncovered for _, uncovered in found]
        rows, labels = (filled([own(r) for r in R]) for own in (query.labelled, query.labels_of))
        radii, uncovered = of(rows, labels, predicted)
        if len(set(query.counts)) == 1:
            return list(radii.mean(1)), list(uncovered)
        return [own[:n].mean() for own, n in zip(radii, query.counts, strict=True)], list(uncovered)

    def radii(self, query: Query, r: int, predicted: Tensor) -> Tensor:
        """Radius of each labelled item's ball, (n,), by bisection; predicted (N,): the head's classes."""
        return self._radii(Centres(query.pool.points(), query.labelled(r)), query.labels_of(r), predicted)

    def _radii(self, balls: Centres, labels: Tensor, predicted: Tensor) -> Tensor:
        """(.., n) of as many balls with their labels; predicted (.., N)."""
        unit = balls.unit
        start = torch.full(labels.shape, self.start, dtype=unit.pool.dtype, device=labels.device)
        least = 0.2 * covered_by(balls, start).double().mean(-1, keepdim=True) + 0.4
        radii = torch.empty_like(start)
        for chunk, d2 in balls:
            agree = labels[..., chunk, None] == predicted[..., None, :]
            middle = start[..., chunk]
            low, high = torch.zeros_like(middle), torch.full_like(middle, self.largest)
            for _ in range(1 + math.ceil(math.log2(max(self.start, self.largest - self.start) / self.resolution))):
                pure = ball_purity(unit, d2, middle, agree) >= least
                wide = high - low > self.resolution
                low, high = torch.where(wide & pure, middle, low), torch.where(wide & ~pure, middle, high)
                middle = (low + high) / 2
            radii[..., chunk] = torch.where(low > 0, low, middle)
        return radii

    @staticmethod
    def _around(query: Query, radius: Sequence[Tensor]) -> list[Around]:
        """The balls of each replicate's radius: read off lists where these fit and are faster than products."""
        unit = query.pool.points()
        multiplied = [MultipliedBalls(unit, own) for own in limit(torch.stack(list(radius)), unit)]
        if not devices.of(query.pool.device).keeps_pair_lists:
            return [*multiplied]
        near = query.pool.once("near pairs", lambda: NearPairs(unit))
        near.hold(max((own for own in map(float, radius) if own <= near.most), default=0.0))
        both = zip(radius, multiplied, strict=True)
        return [ListedBalls(near, own) if float(own) <= near.most else other for own, other in both]

    @staticmethod
    def _degrees(query: Query, radius: Sequence[Tensor], limits: Tensor, uncovered: Tensor) -> Tensor:
        """`out_degrees` of replicates, by kept pairs where picks are enqueued and there is room for them."""
        unit = query.pool.points()
        if greedy.enqueued(unit):
            near = query.pool.once("pairs around", lambda: PairsAround(unit))
            if near.holds(float(torch.stack(list(radius)).max())):
                return near.degrees(limits, uncovered)
        return out_degrees(unit, limits, uncovered)

    def _scores(self, uncertainty: Tensor, uncovered: Tensor, degrees: Tensor, available: Tensor) -> _Scores:
        """Of one replicate, all (N,), or of several, (R, N)."""
        share = (~uncovered).double().mean(-1, keepdim=True)
        whole = 1 + math.exp(-self.k * (1 - self.a))
        trust = [whole / (1 + math.exp(-self.k * (own - self.a))) for own in share.flatten().tolist()]
        low, high = _extremes(uncertainty, available)
        margin = (uncertainty - low) / (high - low).clamp_min(torch.finfo(uncertainty.dtype).tiny)
        few, many = _extremes(degrees.to(margin.dtype), available)
        density = margin.new_tensor([1 - own for own in trust]).view(share.shape)
        return _Scores(margin, few, (many - few).clamp_min(1), margin.new_tensor(trust).view(share.shape), density)


class _Scores(NamedTuple):
    """One replicate's, or with R in front: scaled margins (N,), the smallest degree (1,) of a free item, by how much
    the largest exceeds it, and what margin and density weigh, (1,)."""

    margin: Tensor
    low: Tensor
    span: Tensor
    of_margin: Tensor
    of_density: Tensor

    def apart(self) -> list[_Scores]:
        """Each replicate's."""
        return [_Scores(*own) for own in zip(*self, strict=True)]

    def at(self, degrees: Tensor, items: Tensor | None = None) -> Tensor:
        """Scores (.., m) of items int64 (.., m), by default of all, with so many uncovered items around them."""
        density = (degrees.to(self.margin.dtype) - self.low) / self.span
        margin = self.margin if items is None else self.margin.gather(-1, items)
        return self.of_margin * margin + self.of_density * density


class _Batch:
    """One replicate's batch: an objective for `greedy.lazy`, or a part of one for `greedy.stepwise`.

    Degrees only fall as balls are covered, so stale scores bound new ones. The density is scaled once per batch, by the
    degrees (N,) at its start. uncovered (N,) is written to.
    """

    def __init__(self, unit: Vectors, balls: Around, uncovered: Tensor, score: _Scores, degrees: Tensor) -> None:
        self.vectors, self.balls, self.uncovered, self.score = unit, balls, uncovered, score
        self.bounds = score.at(degrees)

    def gains(self, items: Tensor) -> Tensor:
        return self.score.at(self.balls.counts(items, self.uncovered), items)

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
        self.unit = states[0].vectors
        self.score = _Scores(*(torch.stack(own) for own in zip(*(one.score for one in states), strict=True)))
        self.limits = torch.stack([one.balls.limit for one in states if isinstance(one.balls, MultipliedBalls)])
        self.uncovered = torch.stack([one.uncovered for one in states])
        self.state = [self.uncovered]

    def look(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """See `greedy.Stepwise`: the balls are the rows, bool (R, m, N)."""
        ball = inside(self.unit, items, self.limits)
        return self.score.at((ball & self.uncovered[:, None]).sum(2), items), ball

    def take(self, rows: Tensor, live: Tensor) -> None:
        """See `greedy.Stepwise`."""
        self.uncovered.logical_and_(~(rows & live))

    def renew(self, bounds: Tensor, steps: int) -> bool:
        """Never: all degrees would take a pass over all pairs."""
        return False


def _extremes(x: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest of each row's free values, (.., 1)."""
    return x.where(free, torch.inf).amin(-1, keepdim=True), x.where(free, -torch.inf).amax(-1, keepdim=True)
