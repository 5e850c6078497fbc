"""FALCUN: Gilhuber, Beer, Ma & Seidl 2024, "FALCUN: A simple and efficient deep active learning strategy"
(ECML PKDD 2024, pp. 421-439)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm.acquisition import margin_uncertainty
from alfm.geometry import greedy
from alfm.heads.passes import logits_of
from alfm.host_ops import running_sums
from alfm.options import checked
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query, embedding, per_replicate, stack_picks
from alfm.threads import batched

HELD = 1 << 30  # probabilities of as many replicates as go together
Predicted = tuple[Tensor, Tensor, Tensor]


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
        if query.R > 1 and not query.pool.joins_replicates:
            picks = per_replicate(query, lambda r: self._picks(query, [r], budget, [self._predicted(query, r)])[0])
        else:
            # One alone has nobody beside it, so torch's threads share the items of each step; no sum spans two of them.
            seen = per_replicate(query, partial(self._predicted, query))
            picks = self._picks(query, range(query.R), budget, seen)
        return stack_picks(picks, budget, query.pool.device)

    def _predicted(self, query: Query, r: int) -> Predicted:
        """Available rows int64 (m,), their probabilities (m, C) and uncertainties float64 (m,)."""
        head, rows = query.head, query.available[r].nonzero()[:, 0]
        assert head is not None
        logits = logits_of(embedding(query, r), head, r)[rows]
        return rows, torch.softmax(logits, 1), margin_uncertainty(logits).double()

    def _picks(self, query: Query, replicates: Sequence[int], budget: int, seen: Sequence[Predicted]) -> list[Tensor]:
        """Those with as many items left go together, as far as memory allows."""
        picks: dict[int, Tensor] = {}
        groups: dict[int, list[int]] = {}
        for i, (rows, _, _) in enumerate(seen):
            groups.setdefault(len(rows), []).append(i)
        for m, every in groups.items():
            for own in batched(iter(every), max(1, HELD // max(1, m * query.num_classes))):
                rows, p, u = (torch.stack([seen[i][part] for i in own]) for part in range(3))
                numbers = np.stack([query.rng(replicates[i], "falcun").random(budget) for i in own])
                uniform = None if self.deterministic else torch.from_numpy(numbers).to(rows.device)
                picks |= zip(own, rows.gather(1, contrastive(p, u, budget, self.gamma, uniform)), strict=True)
        return [picks[i] for i in range(len(seen))]


def relevance(d: Tensor, u: Tensor, taken: Tensor) -> Tensor:
    """d + u with d min-max scaled over the items that are not taken, (R, m) float64; -1 for those taken.

    taken: int64 places (R, n), whose d may be overwritten.
    """
    low = d.scatter_(1, taken, math.inf).amin(1, keepdim=True)
    span = d.scatter_(1, taken, -math.inf).amax(1, keepdim=True) - low
    flat = span == 0  # all equal: 0 everywhere, and 0 / 1 is
    return (d - low).div_(span + flat).add_(u).scatter_(1, taken, -1.0)


def contrastive(p: Tensor, u: Tensor, budget: int, gamma: float, uniform: Tensor | None) -> Tensor:
    """Places int64 (R, budget) of the picks among m items each: p (R, m, C), u (R, m) float64; uniform (R, budget) in
    [0, 1). A step is of one shape: there is one place more, taken from the start, where those to come are until then.
    """
    m = u.shape[1]
    u = torch.nn.functional.pad(u, (0, 1))
    d, slot = u.clone(), torch.zeros(1, dtype=torch.int64, device=p.device)
    chosen = slot.new_full((len(u), budget), m)

    def step() -> None:
        value = relevance(d, u, chosen)
        if uniform is None:
            pick = value.argmax(1, keepdim=True)
        else:
            largest = value.amax(1, keepdim=True)
            nothing = largest == 0  # everybody has 0: equal weights
            weight = value.add_(nothing).div_(largest + nothing).pow_(gamma).scatter_(1, chosen, 0.0)
            mass = running_sums(weight).contiguous()
            # strictly below the total, so that the first place beyond the target has a weight of its own
            total = mass[:, -1:]
            target = torch.minimum(uniform.index_select(1, slot) * total, total.nextafter(torch.zeros_like(total)))
            pick = torch.searchsorted(mass, target, right=True)
        chosen.index_copy_(1, slot, pick)
        near = torch.cdist(p, p.gather(1, pick[:, :, None].expand(-1, -1, p.shape[2])), p=1)[:, :, 0]
        torch.minimum(d[:, :m], near, out=d[:, :m])
        slot.add_(1)

    greedy.repeat(step, [d, chosen, slot], budget)
    return chosen
