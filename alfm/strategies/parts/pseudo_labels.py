"""Posteriors that learn pseudo-labels one by one, and what a label would tell about the labels of targets."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from alfm.acquisition import epig
from alfm.host_ops import widened
from alfm.posteriors.laplace import LaplaceDraws
from alfm.strategies.query import Query

BLOCK = 64
"""Items whose draws are visited together: their logits stay near the caches."""


class PseudoLabelled:
    """K Laplace posteriors of replicate r, each on the labels and pseudo-labels of its own, seen at n = m + T items.

    The first m items are candidates, rows int64 (m,), the others targets, int64 (T,). labels (K, n) int64: what each of
    the first K of the M draws takes their label to be. logits (K, n, M, C) of the M draws of each posterior, heads
    (K, n, C) of its mean. Before anything is learnt all K are the same and only one is held.
    """

    def __init__(
        self, query: Query, draws: LaplaceDraws, r: int, rows: Tensor, target: Tensor, labellings: int
    ) -> None:
        assert query.head is not None
        items = torch.cat([rows, target])
        self.m = len(rows)
        phi = query.head.spaces[r](query.pool.gather(items))
        self.heads = query.head.logits(phi, r)[None]
        factor = draws.factors[r]
        # phi^T Sigma phi' = w^T w' with w = L^-1 phi
        self.white = torch.linalg.solve_triangular(factor, widened(phi).to(factor).T, upper=False)
        blocks = [draws.logits(some, query.pool.gather(some), r).transpose(0, 1) for some in items.split(BLOCK)]
        self.logits = torch.cat(blocks)[None]
        self.labels = self.logits[0, :, :labellings].argmax(-1).T
        self.learnt: list[Tensor] = []  # what each update took from the covariances: its columns (K, n)
        self.change: tuple[Tensor, Tensor] | None = None

    def learn(self, place: int) -> None:
        """Each posterior learns its own pseudo-label of candidate number `place`, by one rank-one step."""
        K = len(self.labels)
        if len(self.logits) < K:
            self.logits = self.logits.expand(K, -1, -1, -1).clone()
            self.heads = self.heads.expand(K, -1, -1).clone()
        self._settle()
        along = (self.white.T @ self.white[:, place]).expand(K, -1)  # phi_i^T Sigma phi of the pick
        for column in self.learnt:
            along = along - column * column[:, place, None]
        s = along[:, place].clamp_min(0)
        p = torch.softmax(widened(self.heads[:, place]), 1).to(s)
        label = self.labels[:, place, None]
        rest = p.scatter(1, p.argmax(1, keepdim=True), 0.0).sum(1)
        q = rest * (1 - rest)
        growth = 1 + q * s
        self.learnt.append(along * (q / growth).sqrt()[:, None])
        gained = (torch.zeros_like(p).scatter_(1, label, 1.0) - p) / growth[:, None]
        # (1 - 1 / sqrt(growth)) / s, also where s is 0
        shrink = q / (growth + growth.sqrt())
        deviation = widened(self.logits[:, place] - self.heads[:, place, None]).to(s)
        change = gained[:, None] - shrink[:, None, None] * deviation
        dtype = self.logits.dtype
        narrow = along.to(self.logits.device, dtype)
        self.heads += narrow[:, :, None] * gained.to(narrow)[:, None]
        self.change = narrow, change.to(narrow)

    def information(self, exact: bool = False) -> Tensor:
        """Of each candidate about the targets, summed over the posteriors, in nats; (m,)."""
        if exact:
            self._settle()
        total = torch.stack([(self._exact if exact else self._second_order)(k) for k in range(len(self.logits))]).sum(0)
        self.change = None  # every item was visited
        return total

    def _exact(self, k: int) -> Tensor:
        own = self.logits[k].transpose(0, 1)
        return epig(own[:, : self.m], own[:, self.m :])

    def _second_order(self, k: int) -> Tensor:
        products = torch.stack([torch.bmm(d, d.mT).sum(0) for d in self._deviations(k, self.m, self.logits.shape[1])])
        mean = products.sum(0) / (self.logits.shape[1] - self.m)
        return torch.cat([explained(d, mean) for d in self._deviations(k, 0, self.m)])

    def _deviations(self, k: int, first: int, end: int) -> Iterator[Tensor]:
        """`relative_deviations` of items from `first` to `end`, block by block, after what was learnt last."""
        for start in range(first, end, BLOCK):
            own = slice(start, min(start + BLOCK, end))
            logits = self.logits[k, own]
            if self.change is not None:
                along, change = self.change
                logits.addcmul_(along[k, own, None, None], change[k])
            yield relative_deviations(logits)

    def _settle(self) -> None:
        """What was learnt last, into the logits."""
        if self.change is not None:
            along, change = self.change
            for own, g, by in zip(self.logits, along, change, strict=True):
                own.addcmul_(g[:, None, None], by)
            self.change = None


def relative_deviations(logits: Tensor) -> Tensor:
    """(p_m - p) / sqrt(p), p the mean of the M draws' probabilities p_m: logits (b, M, C) -> (b, M, C)."""
    p = torch.softmax(logits, 2)
    mean = p.mean(1, keepdim=True)
    return p.sub_(mean).div_(mean.sqrt_().clamp_min_(torch.finfo(p.dtype).tiny))


def explained(deviations: Tensor, products: Tensor) -> Tensor:
    """sum_mm' A_i B / (2 M^2): deviations (b, M, C), whose A_i are their own products, and B (M, M) -> (b,)."""
    M = deviations.shape[1]
    return (torch.matmul(products, deviations) * deviations).sum((1, 2)) / (2 * M * M)
