"""FALCUN: Gilhuber, Beer, Ma & Seidl 2024, "FALCUN: A simple and efficient deep active learning strategy"
(ECML PKDD 2024, pp. 421-439)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm.acquisition import margin_uncertainty
from alfm.heads.passes import logits_of
from alfm.host_ops import running_sums
from alfm.options import checked
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query, embedding, per_replicate, stack_picks


@dataclass(eq=False)
@checked
class Falcun(Strategy):
    """Uncertain items that are far from the picks in probability space (section 3, eqs. 1-6).

    u = 1 - (p1 - p2) is the uncertainty and where the distance d starts; after a pick d_i = min(d_i, |p_i - p_pick|_1).
    The next pick is drawn with probability proportional to (d_i + u_i)^gamma, d min-max scaled over the remaining
    items (0 when all are equal). gamma = 10. deterministic: the largest d + u instead, ties to the lower index.

    As in the authors' code the scaling is for the draw only, d itself keeps its scale, and it applies to the first
    pick too. When nothing is left to tell items apart (all certain), the draw is uniform.
    Cost: O(N D C + B N C); memory O(N C).
    """

    needs = ("probabilities",)
    gamma: Annotated[float, Ge(0), Le(1e6)] = 10.0
    deterministic: bool = False

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return not self.deterministic

    def select(self, query: Query, budget: int) -> Tensor:
        if query.R == 1:
            # Nobody runs beside it, so torch's threads share the items of each step; no sum spans two of them.
            (predicted,) = per_replicate(query, lambda r: self._predicted(query, r))
            picks = [self._picks(query, 0, budget, *predicted)]
        else:
            picks = per_replicate(query, lambda r: self._picks(query, r, budget, *self._predicted(query, r)))
        return stack_picks(picks, budget, query.pool.device)

    def _predicted(self, query: Query, r: int) -> tuple[Tensor, Tensor, Tensor]:
        """Available rows int64 (m,), their probabilities (m, C) and uncertainties float64 (m,)."""
        head, rows = query.head, query.available[r].nonzero()[:, 0]
        assert head is not None
        logits = logits_of(embedding(query, r), head, r)[rows]
        return rows, torch.softmax(logits, 1), margin_uncertainty(logits).double()

    def _picks(self, query: Query, r: int, budget: int, rows: Tensor, p: Tensor, u: Tensor) -> Tensor:
        uniform = torch.from_numpy(query.rng(r, "falcun").random(budget)).to(rows.device)
        return rows[contrastive(p, u, budget, self.gamma, None if self.deterministic else uniform)]


def relevance(d: Tensor, u: Tensor, taken: Tensor) -> Tensor:
    """d + u with d min-max scaled over the items that are not taken, (m,) float64; -1 for those taken.

    taken: int64 places, whose d may be overwritten.
    """
    low = d.index_fill_(0, taken, math.inf).min()
    span = d.index_fill_(0, taken, -math.inf).max() - low
    flat = span == 0  # all equal: 0 everywhere, and 0 / 1 is
    return (d - low).div_(span + flat).add_(u).index_fill_(0, taken, -1.0)


def contrastive(p: Tensor, u: Tensor, budget: int, gamma: float, uniform: Tensor | None) -> Tensor:
    """Places int64 (budget,) of the picks among m items: p (m, C), u (m,) float64; uniform (budget,) in [0, 1)."""
    d = u.clone()
    chosen = torch.empty(budget, dtype=torch.int64, device=p.device)
    for b in range(budget):
        taken = chosen[:b]
        value = relevance(d, u, taken)
        if uniform is None:
            pick = value.argmax(0, keepdim=True)
        else:
            largest = value.max()
            nothing = largest == 0  # everybody has 0: equal weights
            weight = value.add_(nothing).div_(largest + nothing).pow_(gamma).index_fill_(0, taken, 0.0)
            mass = running_sums(weight)
            # strictly below the total, so that the first place beyond the target has a weight of its own
            target = torch.minimum(uniform[b] * mass[-1:], torch.nextafter(mass[-1:], torch.zeros_like(mass[-1:])))
            pick = torch.searchsorted(mass, target, right=True)
        chosen[b : b + 1] = pick
        torch.minimum(d, torch.cdist(p, p.index_select(0, pick), p=1)[:, 0], out=d)
    return chosen
