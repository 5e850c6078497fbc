"""FALCUN: Gilhuber, Beer, Ma & Seidl 2024, "FALCUN: A simple and efficient deep active learning strategy"
(ECML PKDD 2024, pp. 421-439)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from alfm.acquisition import margin_uncertainty
from alfm.strategies.base import Query, Strategy, stack_picks
from alfm.strategies.embedding import embedding, per_replicate


@dataclass(eq=False)
class Falcun(Strategy):
    """Uncertain items that are far from the picks in probability space (section 3, eqs. 1-6).

    u = 1 - (p1 - p2) is the uncertainty and where the distance d starts; after a pick d_i = min(d_i, |p_i - p_pick|_1).
    The next pick is drawn with probability proportional to (d_i + u_i)^gamma, d min-max scaled over the remaining
    items (0 when all are equal). gamma = 10. deterministic: the largest d + u instead, ties to the lower index.

    As in the authors' code the scaling is for the draw only, d itself keeps its scale, and it applies to the first
    pick too. When nothing is left to tell items apart (all certain), the draw is uniform. Cost: one pool pass, N C
    operations and one uniform number per pick; 4 N C bytes of probabilities for one replicate per core.
    """

    gamma: float = 10.0
    deterministic: bool = False

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return not self.deterministic

    def select(self, query: Query, budget: int) -> Tensor:
        picks = per_replicate(query, lambda r: self._picks(query, r, budget))
        return stack_picks(picks, budget, query.pool.device)

    def _picks(self, query: Query, r: int, budget: int) -> Tensor:
        head, rows = query.head, query.available[r].nonzero()[:, 0]
        assert head is not None
        logits = torch.cat([head.logits(x, r) for _, x in embedding(query, r).blocks()])[rows]
        uniform = torch.from_numpy(query.rng(r, "falcun").random(budget)).to(rows.device)
        u = margin_uncertainty(logits).double()
        return rows[
            contrastive(torch.softmax(logits, 1), u, budget, self.gamma, None if self.deterministic else uniform)
        ]


def relevance(d: Tensor, u: Tensor, free: Tensor) -> Tensor:
    """d + u with d min-max scaled over the free items, (m,) float64; -1 for the others."""
    low = torch.where(free, d, math.inf).min()
    span = torch.where(free, d, -math.inf).max() - low
    scaled = torch.where(span > 0, (d - low) / span, 0.0)
    return torch.where(free, scaled + u, -1.0)


def contrastive(p: Tensor, u: Tensor, budget: int, gamma: float, uniform: Tensor | None) -> Tensor:
    """Places int64 (budget,) of the picks among m items: p (m, C), u (m,) float64; uniform (budget,) in [0, 1)."""
    d = u.clone()
    free = torch.ones_like(u, dtype=torch.bool)
    chosen = torch.empty(budget, dtype=torch.int64, device=p.device)
    for b in range(budget):
        value = relevance(d, u, free)
        if uniform is None:
            pick = value.argmax(0, keepdim=True)
        else:
            largest = value.max()
            weight = torch.where(largest > 0, value / largest, 1.0).pow(gamma).masked_fill(~free, 0.0)
            mass = weight.cumsum(0)
            # strictly below the total, so that the first place beyond the target has a weight of its own
            target = torch.minimum(uniform[b] * mass[-1:], torch.nextafter(mass[-1:], torch.zeros_like(mass[-1:])))
            pick = torch.searchsorted(mass, target, right=True)
        chosen[b : b + 1] = pick
        free.index_fill_(0, pick, False)
        d = torch.minimum(d, torch.cdist(p, p.index_select(0, pick), p=1)[:, 0].double())
    return chosen
