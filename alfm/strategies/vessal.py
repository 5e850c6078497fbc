"""VeSSAL: Saran, Yousefi, Krishnamurthy, Langford & Ash 2023, "Streaming active learning with deep neural networks"
(2303.02535)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm.features.features import Vectors
from alfm.heads.passes import walk
from alfm.host_ops import running_sums, surely_empty
from alfm.options import checked
from alfm.strategies.base import Strategy
from alfm.strategies.parts.gradients import prediction_error
from alfm.strategies.query import Query, embedding, per_replicate, stack_picks


@dataclass(eq=False)
@checked
class Vessal(Strategy):
    """One pass over a stream, an item accepted in proportion to the volume its gradient adds (algorithm 1).

    x = (p - e_y) x phi, y the predicted class. S = `ridge` I + sum of x x^T over the items accepted this round; item
    t is accepted with probability rate * x^T S^-1 x / tr(Cov_t S^-1), Cov_t the mean of x x^T over the items seen,
    itself included, rate = (budget - accepted) / (items left). `rate`: a fixed rate instead, then at most `budget`
    are accepted. The order of the stream and the decisions have streams of their own. The pass may end short of the
    budget: the caller fills up at random.

    tr(Cov_t S^-1) is the mean of x_j^T S^-1 x_j over the items seen, so only these N numbers are followed: an accepted
    item lowers them by a squared residual of a pivoted Cholesky decomposition of the Gram matrix, and <x_i, x_j> =
    <d_i, d_j> <phi_i, phi_j>. Nothing of size (C D)^2 exists, and the projection of the authors' code to 2560
    dimensions is not needed: this is the method in all C D of them. Sums are float64.
    Cost: O(N D C + B N (D + C + B)); memory O(N B).
    """

    needs = ("embedding", "probabilities")
    stochastic = True
    rate: Annotated[float, Ge(1e-6), Le(1e6)] | None = None
    ridge: Annotated[float, Ge(1e-9), Le(1e6)] = 0.01

    def select(self, query: Query, budget: int) -> Tensor:
        picks = per_replicate(query, lambda r: self._picks(query, r, budget))
        return stack_picks(picks, budget, query.pool.device)

    def _picks(self, query: Query, r: int, budget: int) -> Tensor:
        head, phi, free = query.head, embedding(query, r), query.available[r].nonzero()[:, 0]
        assert head is not None
        rng = query.rng(r, "vessal")
        order = free[torch.from_numpy(rng.permutation(len(free))).to(free.device)]
        uniform = torch.from_numpy(rng.random(len(free))).to(free.device)
        error = walk(phi, head.part(slice(r, r + 1)), lambda seen: prediction_error(seen.logits))[0]
        return order[accepted(Gradients(phi, error, order), uniform, budget, self.rate, self.ridge)]


class Gradients:
    """x_t = d_t (outer) phi_t in stream order: squared lengths (T,) and inner products with one of them, float64."""

    def __init__(self, phi: Vectors, error: Tensor, order: Tensor) -> None:
        self.phi, self.order = phi, order
        self.error = error[order]
        self.sq_norms = torch.linalg.vecdot(error, error).double().mul_(phi.sq_norms)[order]

    def products(self, t: Tensor) -> Tensor:
        """<x_s, x_t> for all s, (T,); t int64 (1,)."""
        row = self.phi.rows(self.order[t], plain=True)[0]
        features = torch.cat([torch.mv(x, row) for _, x in self.phi.blocks()])[self.order]
        return torch.mv(self.error, self.error[t][0]).double().mul_(features)


def accepted(x: Gradients, uniform: Tensor, budget: int, rate: float | None, ridge: float) -> Tensor:
    """Places in the stream that are accepted, int64 (at most budget,), ascending. uniform: (T,) in [0, 1).

    Between two acceptances S does not change, so the next accepted place is found in one vectorised step. Where
    looking costs a wait nobody asks whether there is one: what follows the last changes nothing.
    """
    T, device = len(uniform), uniform.device
    place = torch.arange(T, device=device)
    leverage = x.sq_norms / ridge  # x^T S^-1 x
    residuals = torch.zeros(budget, T, dtype=torch.float64, device=device)
    taken = torch.full((budget,), T, dtype=torch.int64, device=device)
    last = place.new_full((1,), -1)
    for b in range(budget):
        trace = running_sums(leverage) / (place + 1)
        # nothing but zero gradients so far: all items are alike
        share = torch.where(trace > 0, leverage / trace, 1.0)
        wanted = rate if rate is not None else (budget - b) / (T - place)
        hit = (uniform < wanted * share) & (place > last)
        if surely_empty(hit):
            break
        found = hit.any()
        pick = hit.to(torch.uint8).argmax(0, keepdim=True)  # the first of equals
        last = torch.where(found, pick, T)
        taken[b : b + 1] = last
        # Cholesky column: what of x_s along x_t is not explained by the items accepted before
        scale = (ridge * (1 + leverage[pick])).sqrt()
        column = (x.products(pick) - torch.mv(residuals[:b].T, residuals[:b, pick][:, 0])) / scale
        residuals[b] = column
        leverage = (leverage - column.square() / ridge).clamp_min_(0)
    return taken[taken < T]
