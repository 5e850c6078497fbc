"""DCoM: Mishal & Weinshall 2024, "DCoM: active learning for all learners" (2407.01804), algorithms 1 and 2."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from alfm.acquisition import margin_uncertainty
from alfm.geometry.coverage import ball_purity, covered_by, limit, out_degrees, squared_distances
from alfm.geometry.herding import lazy_greedy
from alfm.pool import Vectors
from alfm.strategies.base import Query, Strategy


@dataclass(eq=False)
class Dcom(Strategy):
    """Density among what is not covered, turning into margins as coverage grows.

    Every labelled item has a ball on unit features; its radius is found by bisection (start `start`, at most `largest`,
    `resolution`): the largest whose share of items predicted as the ball's label is at least 0.2 cov + 0.4, cov the
    pool's covered share. Competence S = (1 + e^(-k (1 - a))) / (1 + e^(-k (cov - a))); score = S (1 - margin) +
    (1 - S) density, both min-max scaled; density = how many uncovered items lie within the mean radius. After each pick
    the ball of mean radius around it counts as covered; the density is scaled once per batch. Cost per round: one
    symmetric pass of N^2 D / 2 products for all replicates, and N D n for the labelled balls.
    """

    a: float = 0.8
    k: float = 50.0
    start: float = 0.6
    largest: float = 1.1
    resolution: float = 0.05

    def select(self, query: Query, budget: int) -> Tensor:
        head = query.head
        assert head is not None
        unit = query.pool.unit
        uncertainty, predicted = query.pool.map(
            lambda phi, logits, rows, r: (margin_uncertainty(logits), logits.argmax(1)), head
        )
        uncovered, radius, competence = [], [], []
        for r in range(query.R):
            rows = query.labelled(r)
            radii = self.radii(query, r, predicted[r])
            inside = covered_by(unit, rows, radii)
            share = float(inside.double().mean())
            radius.append(radii.mean())
            uncovered.append(~inside)
            competence.append((1 + math.exp(-self.k * (1 - self.a))) / (1 + math.exp(-self.k * (share - self.a))))
        degrees = out_degrees(unit, torch.stack(radius), torch.stack(uncovered))

        def greedy(r: int) -> Tensor:
            ball = _Balls(unit, radius[r], uncovered[r], degrees[r], uncertainty[r], competence[r], query.available[r])
            return lazy_greedy(ball, ball.score(degrees[r]), query.available[r], budget)

        return query.each(greedy, budget)

    def radii(self, query: Query, r: int, predicted: Tensor) -> Tensor:
        """Radius of each labelled item's ball, (n,), by bisection; predicted (N,): the head's classes."""
        unit, rows, labels = query.pool.unit, query.labelled(r), query.labels_of(r)
        start = torch.full((len(rows),), self.start, dtype=query.pool.dtype, device=query.pool.device)
        least = 0.2 * float(covered_by(unit, rows, start).double().mean()) + 0.4
        low, high, middle = torch.zeros_like(start), torch.full_like(start, self.largest), start
        for _ in range(1 + math.ceil(math.log2(max(self.start, self.largest - self.start) / self.resolution))):
            pure = ball_purity(unit, rows, middle, labels, predicted) >= least
            wide = high - low > self.resolution
            low, high = torch.where(wide & pure, middle, low), torch.where(wide & ~pure, middle, high)
            middle = (low + high) / 2
        return torch.where(low > 0, low, middle)


class _Balls:
    """The batch's objective for `lazy_greedy`: degrees only fall as balls are covered, so stale scores bound new ones.

    The density is scaled once per batch, by the degrees at its start.
    """

    def __init__(
        self,
        unit: Vectors,
        radius: Tensor,
        uncovered: Tensor,
        degrees: Tensor,
        uncertainty: Tensor,
        competence: float,
        available: Tensor,
    ) -> None:
        self.unit, self.limit, self.uncovered = unit, limit(radius, unit), uncovered.clone()
        self.competence = competence
        self.margin = _scaled(uncertainty, uncertainty[available])
        free = degrees[available].to(uncertainty.dtype)
        self.low, self.span = free.min(), (free.max() - free.min()).clamp_min(1)

    def score(self, degrees: Tensor, items: Tensor | None = None) -> Tensor:
        density = (degrees.to(self.margin.dtype) - self.low) / self.span
        margin = self.margin if items is None else self.margin[items]
        return self.competence * margin + (1 - self.competence) * density

    def gains(self, items: Tensor) -> Tensor:
        return self.score((self._inside(items) & self.uncovered).sum(1), items)

    def add(self, item: Tensor) -> None:
        self.uncovered &= ~self._inside(item)[0]

    def renew(self, bounds: Tensor) -> bool:
        return False

    def _inside(self, items: Tensor) -> Tensor:
        """bool (m, N): which items lie in the balls around `items`."""
        q, norms = self.unit.rows(items), self.unit.sq_norms
        parts = [squared_distances(q, x, norms[items], norms[rows]) for rows, x in self.unit.blocks()]
        inside = torch.cat(parts, 1) < self.limit
        inside[torch.arange(len(items)), items] = True
        return inside


def _scaled(x: Tensor, free: Tensor) -> Tensor:
    """Min-max scaling by the values of the free items; constant values become 0."""
    return (x - free.min()) / (free.max() - free.min()).clamp_min(torch.finfo(x.dtype).tiny)
