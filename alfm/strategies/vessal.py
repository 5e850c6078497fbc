"""VeSSAL: Saran, Yousefi, Krishnamurthy, Langford & Ash 2023, "Streaming active learning with deep neural networks"
(2303.02535)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm import devices
from alfm.features.features import Vectors
from alfm.geometry import greedy
from alfm.heads.passes import walk
from alfm.host_ops import running_sums, surely_empty
from alfm.options import checked
from alfm.strategies.base import Strategy
from alfm.strategies.parts.candidates import all_available
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
        if query.pool.joins_replicates:
            error = query.walk(lambda seen: prediction_error(seen.logits))
            seen = [self._seen(query, r, rows, error[r]) for r, rows in enumerate(all_available(query))]
            groups: dict[int, list[int]] = {}
            for r, (_, order, _) in enumerate(seen):
                groups.setdefault(len(order), []).append(r)
            picks = dict(one for own in groups.values() for one in self._picks([seen[r] for r in own], own, budget))
            return stack_picks([picks[r] for r in range(query.R)], budget, query.pool.device)

        def alone(r: int) -> Tensor:
            head = query.head
            assert head is not None
            error = walk(embedding(query, r), head.part(slice(r, r + 1)), lambda seen: prediction_error(seen.logits))[0]
            seen = self._seen(query, r, query.available[r].nonzero()[:, 0], error)
            return self._picks([seen], [r], budget)[0][1]

        return stack_picks(per_replicate(query, alone), budget, query.pool.device)

    def _seen(self, query: Query, r: int, free: Tensor, error: Tensor) -> tuple[Gradients, Tensor, Tensor]:
        """Replicate r's gradients, (1, T), in the order of its stream, int64 (T,), and uniform numbers (T,); free: rows
        that are available, int64 (T,), error (N, C): see `prediction_error`."""
        rng, there = query.rng(r, "vessal"), devices.of(free)
        order = free.index_select(0, there.sent(torch.from_numpy(rng.permutation(len(free)))))
        uniform = there.sent(torch.from_numpy(rng.random(len(free))))
        return Gradients([embedding(query, r)], error[None], order[None]), order, uniform

    def _picks(
        self, seen: Sequence[tuple[Gradients, Tensor, Tensor]], replicates: Sequence[int], budget: int
    ) -> list[tuple[int, Tensor]]:
        """Of replicates whose streams are equally long: (r, rows that are accepted)."""
        x = seen[0][0] if len(seen) == 1 else Gradients.of([one for one, _, _ in seen])
        order, uniform = torch.stack([own for _, own, _ in seen]), torch.stack([own for _, _, own in seen])
        places = accepted(x, uniform, budget, self.rate, self.ridge)
        return [(r, own[some]) for r, own, some in zip(replicates, order, places, strict=True)]


class Gradients:
    """x_t = d_t (outer) phi_t in stream order: squared lengths (R, T) and inner products with one of them, float64.

    phi: every replicate's; error (R, N, C); order int64 (R, T).
    """

    def __init__(self, phi: Sequence[Vectors], error: Tensor, order: Tensor) -> None:
        self.phi, self.order = phi, order
        self.error = torch.stack([own[rows] for own, rows in zip(error, order, strict=True)])
        lengths = [torch.linalg.vecdot(e, e).double().mul_(p.sq_norms) for e, p in zip(error, phi, strict=True)]
        self.sq_norms = torch.stack([own[rows] for own, rows in zip(lengths, order, strict=True)])

    @classmethod
    def of(cls, parts: Sequence[Gradients]) -> Gradients:
        """Several replicates' as one."""
        made = object.__new__(cls)
        made.phi = [one for part in parts for one in part.phi]
        made.order, made.error, made.sq_norms = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("order", "error", "sq_norms")
        )
        return made

    def products(self, t: Tensor) -> Tensor:
        """<x_s, x_t> for all s, (R, T); t int64 (R, 1)."""
        at, own = self.order.gather(1, t), self.error.gather(1, t[:, :, None].expand(-1, -1, self.error.shape[2]))
        return inner(self.error, own[:, 0]).double().mul_(self._features(at[:, 0]).gather(1, self.order))

    def _features(self, rows: Tensor) -> Tensor:
        """<phi_n, phi_t> for all items n, (R, N); rows int64 (R,)."""
        if len(rows) > 1 and all(phi is self.phi[0] for phi in self.phi):
            y = self.phi[0].rows(rows, plain=True)
            return torch.cat([y @ x.T for _, x in self.phi[0].blocks()], 1)
        found = []
        for phi, row in zip(self.phi, rows.split(1), strict=True):
            y = phi.rows(row, plain=True)[0]
            found.append(torch.cat([torch.mv(x, y) for _, x in phi.blocks()]))
        return torch.stack(found)


def inner(x: Tensor, y: Tensor) -> Tensor:
    """<x_rt, y_r>: (R, T, D), (R, D) -> (R, T); of one replicate the product it has alone."""
    return torch.mv(x[0], y[0])[None] if len(x) == 1 else (x @ y[:, :, None])[:, :, 0]


def accepted(x: Gradients, uniform: Tensor, budget: int, rate: float | None, ridge: float) -> list[Tensor]:
    """Places in the streams that are accepted, R times int64 (at most budget,), ascending. uniform: (R, T) in [0, 1).

    Between two acceptances S does not change, so the next accepted place is found in one vectorised step. Where
    looking costs a wait nobody asks whether there is one: what follows the last changes nothing.
    """
    (R, T), device = uniform.shape, uniform.device
    place = torch.arange(T, device=device)
    leverage = x.sq_norms / ridge  # x^T S^-1 x
    residuals = torch.zeros(R, budget, T, dtype=torch.float64, device=device)
    taken = torch.full((R, budget), T, dtype=torch.int64, device=device)
    last, slot = place.new_full((R, 1), -1), place.new_zeros(1)

    def step(before: int) -> bool:
        """Whether there may have been one to accept. before: at least as many residuals as there are."""
        trace = running_sums(leverage) / (place + 1)
        # nothing but zero gradients so far: all items are alike
        share = torch.where(trace > 0, leverage / trace, 1.0)
        wanted = rate if rate is not None else (budget - slot) / (T - place)
        hit = (uniform < wanted * share) & (place > last)
        if surely_empty(hit):
            return False
        pick = hit.to(torch.uint8).argmax(1, keepdim=True)  # the first of equals
        last.copy_(torch.where(hit.any(1, keepdim=True), pick, T))
        taken.index_copy_(1, slot, last)
        # Cholesky column: what of x_s along x_t is not explained by the items accepted before
        scale = (ridge * (1 + leverage.gather(1, pick))).sqrt()
        known = residuals[:, :before]
        own = known.gather(2, pick[:, None].expand(-1, before, -1))[:, :, 0]
        column = (x.products(pick) - inner(known.mT, own)) / scale
        residuals.index_copy_(1, slot, column[:, None])
        leverage.copy_((leverage - column.square() / ridge).clamp_min_(0))
        slot.add_(1)
        return True

    def enqueue() -> None:
        step(budget)

    if not devices.of(device).looks_are_free:
        greedy.repeat(enqueue, [leverage, residuals, taken, last, slot], budget)
    else:
        for b in range(budget):
            if not step(b):
                break
    counts = (taken < T).sum(1).tolist()
    return [own[:count] for own, count in zip(taken, counts, strict=True)]
