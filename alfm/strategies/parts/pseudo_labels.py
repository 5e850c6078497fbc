"""Posteriors that learn pseudo-labels one by one, and what a label would tell about the labels of targets."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from alfm.acquisition import epig
from alfm.heads.passes import draws_at, together
from alfm.heads.products import mv
from alfm.host_ops import widened
from alfm.posteriors.laplace import LaplaceDraws, in_spaces
from alfm.strategies.query import Query

BLOCK = 64
"""Items whose draws are visited together: their logits stay near the caches."""


class PseudoLabelled:
    """K Laplace posteriors of each of some replicates, P in all, each on the labels and pseudo-labels of its own, seen
    at n = m + T items of the replicate.

    The first m items are candidates, rows int64 (R, m), the others targets, int64 (R, T). labels (P, n) int64: what
    each of the first K of the M draws takes their label to be. logits (P, n, M, C) of the M draws of each posterior,
    heads (P, n, C) of its mean. Before anything is learnt all K are the same and only one is held.

    together: how many posteriors are visited at once. Where these are several all items are too, and a step is of
    fixed shapes and asks for nothing.
    """

    def __init__(
        self,
        query: Query,
        draws: LaplaceDraws,
        which: slice,
        rows: Tensor,
        target: Tensor,
        labellings: int,
        budget: int,
        together: int,
    ) -> None:
        """which: of the replicates; budget: picks that may be learnt."""
        assert query.head is not None
        items = torch.cat([rows, target], 1)
        (self.R, n), self.m, self.K, self.together = items.shape, rows.shape[1], labellings, together
        self.fixed, self.block = together > 1, n if together > 1 else BLOCK
        x = query.pool.gather(items.flatten(), plain=True).view(self.R, n, -1)
        head = query.head.part(which)
        phi = in_spaces(head, x)
        self.heads = head.logits(phi)
        factor = torch.stack(list(draws.factors[which]))
        # phi^T Sigma phi' = w^T w' with w = L^-1 phi
        self.white = torch.linalg.solve_triangular(factor, widened(phi).to(factor).mT, upper=False)
        blocks = [draws_at(query.pool, draws, some, which).transpose(1, 2) for some in items.split(self.block, 1)]
        self.logits = torch.cat(blocks, 1)
        self.labels = self.logits[:, :, :labellings].argmax(-1).mT.reshape(-1, n)
        # what each update took from the covariances: its columns, one by one, or all places with 0 in those to come
        self.learnt: list[Tensor] = []
        self.taken = self.white.new_zeros(len(self.labels), budget if self.fixed else 0, n)
        self.count = items.new_zeros(1)
        self.change: tuple[Tensor, Tensor] | None = None

    def begin(self) -> None:
        """Before anything is learnt: a posterior for every labelling."""
        self.logits, self.heads = (x.repeat_interleave(self.K, 0) for x in (self.logits, self.heads))

    @property
    def state(self) -> list[Tensor]:
        """What `learn` and `information` change, in place."""
        return [self.logits, self.heads, self.taken, self.count]

    def learn(self, place: Tensor) -> None:
        """Each posterior learns its own pseudo-label of its replicate's candidate number `place`, int64 (R, 1), by one
        rank-one step."""
        self._settle()
        P, n, M, C = self.logits.shape
        at = place.repeat_interleave(self.K, 0)
        own = self.white.gather(2, place[:, None].expand(-1, self.white.shape[1], 1))[..., 0]
        along = mv(self.white.mT, own).repeat_interleave(self.K, 0)  # phi_i^T Sigma phi of the pick
        if self.fixed:
            there = self.taken.gather(2, at[:, None].expand(-1, self.taken.shape[1], 1))
            along = along - (there.mT @ self.taken)[:, 0]
        for column in self.learnt:
            along = along - column * column.gather(1, at)
        s = along.gather(1, at)[:, 0].clamp_min(0)
        head = self.heads.gather(1, at[..., None].expand(-1, 1, C))
        p = torch.softmax(widened(head[:, 0]), 1).to(s)
        rest = p.scatter(1, p.argmax(1, keepdim=True), 0.0).sum(1)
        q = rest * (1 - rest)
        growth = 1 + q * s
        column = along * (q / growth).sqrt()[:, None]
        if self.fixed:
            self.taken.index_copy_(1, self.count, column[:, None])
            self.count.add_(1)
        else:
            self.learnt.append(column)
        gained = (torch.zeros_like(p).scatter_(1, self.labels.gather(1, at), 1.0) - p) / growth[:, None]
        # (1 - 1 / sqrt(growth)) / s, also where s is 0
        shrink = q / (growth + growth.sqrt())
        deviation = widened(self.logits.gather(1, at[..., None, None].expand(-1, 1, M, C))[:, 0] - head).to(s)
        change = gained[:, None] - shrink[:, None, None] * deviation
        narrow = along.to(self.logits.device, self.logits.dtype)
        self.heads += narrow[:, :, None] * gained.to(narrow)[:, None]
        self.change = narrow, change.to(narrow)

    def information(self, exact: bool = False) -> Tensor:
        """Of each candidate about the targets, summed over the posteriors, in nats; (R, m)."""
        if exact:
            self._settle()
        groups = together(len(self.logits), self.together)
        found = torch.cat([(self._exact if exact else self._second_order)(which) for which in groups])
        self.change = None  # every item was visited
        return found.view(self.R, -1, self.m).sum(1)

    def _exact(self, which: slice) -> Tensor:
        own = self.logits[which].transpose(1, 2)
        return epig(own[:, :, : self.m], own[:, :, self.m :])

    def _second_order(self, which: slice) -> Tensor:
        n = self.logits.shape[1]
        products = torch.stack([own_products(d) for d in self._deviations(which, self.m, n)])
        mean = products.sum(0) / (n - self.m)
        return torch.cat([explained(d, mean) for d in self._deviations(which, 0, self.m)], 1)

    def _deviations(self, which: slice, first: int, end: int) -> Iterator[Tensor]:
        """`relative_deviations` of items from `first` to `end`, block by block, after what was learnt last."""
        for start in range(first, end, self.block):
            own = slice(start, min(start + self.block, end))
            logits = self.logits[which, own]
            if self.change is not None:
                along, change = self.change
                logits.addcmul_(along[which, own, None, None], change[which, None])
            yield relative_deviations(logits)

    def _settle(self) -> None:
        """What was learnt last, into the logits."""
        if self.change is not None:
            along, change = self.change
            for which in together(len(self.logits), self.together):
                self.logits[which].addcmul_(along[which, :, None, None], change[which, None])
            self.change = None


def relative_deviations(logits: Tensor) -> Tensor:
    """(p_m - p) / sqrt(p), p the mean of the M draws' probabilities p_m: logits (.., b, M, C) -> (.., b, M, C)."""
    p = torch.softmax(logits, -1)
    mean = p.mean(-2, keepdim=True)
    return p.sub_(mean).div_(mean.sqrt_().clamp_min_(torch.finfo(p.dtype).tiny))


def own_products(deviations: Tensor) -> Tensor:
    """The sum of items' A_i, their own products: (P, b, M, C) -> (P, M, M)."""
    return torch.matmul(deviations, deviations.mT).sum(1)


def explained(deviations: Tensor, products: Tensor) -> Tensor:
    """sum_mm' A_i B / (2 M^2): deviations (P, b, M, C), whose A_i are their own products, and B (P, M, M) -> (P, b)."""
    M = deviations.shape[2]
    own = products[0] if len(products) == 1 else products[:, None]
    seen = torch.matmul(own, deviations[0])[None] if len(products) == 1 else torch.matmul(own, deviations)
    return (seen * deviations).sum((2, 3)) / (2 * M * M)
