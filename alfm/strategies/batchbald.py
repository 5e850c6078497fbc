"""BatchBALD: Kirsch, van Amersfoort & Gal 2019 (1906.08158), algorithm 1."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm import devices, host_ops
from alfm.acquisition import bald, block_numbers
from alfm.errors import UserError
from alfm.heads.passes import walk_draws
from alfm.options import Count, checked
from alfm.posteriors import Laplace, Posterior
from alfm.strategies.base import Strategy
from alfm.strategies.parts.candidates import highest
from alfm.strategies.query import Query

UNIFORMS = 1 << 18  # drawn at once
RESOLVED = 1e-6, 1e-3  # what `batchbald` may leave out: nats while exact, then a share of the doubt about the draw


@dataclass(eq=False)
@checked
class BatchBald(Strategy):
    """Greedy batch of largest joint mutual information between its labels and the weights.

    Needs joint draws (one weight setting shared by all items): `laplace`, `ensemble`, or dropout with one mask per
    pass, which serves a head badly that was not trained with it. The batch is chosen among the `oversample` x budget
    items of highest BALD score (the paper considers the whole pool; an item's joint gain never exceeds its BALD score).
    Gains are exact while C^picks is at most `max_samples`, then estimated from as many sampled configurations. A
    candidate whose earlier gain is below the best present one is not looked at: exact, up to the noise of the
    estimates. M draws hold no more than log M nats: once a batch tells them apart, the rest follow by BALD score; a
    larger `posterior.passes` moves that point.
    Cost: O(M N D C + B m C M S) for S label configurations; memory O(N + M (m C + S)).
    """

    needs = ("draws",)
    stochastic = True
    posterior: Posterior = field(default_factory=Laplace)
    oversample: Count = 10
    max_samples: Annotated[int, Ge(1), Le(10**6)] = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.posterior.joint:
            raise UserError(
                f"{self.name} needs joint draws: choose query_strategy/posterior=dropout_joint, laplace or ensemble."
            )

    def select(self, query: Query, budget: int) -> Tensor:
        draws = query.draws(self.posterior)
        score = walk_draws(query.pool, draws, lambda seen: bald(seen.logits), joined=True)
        candidates = highest(query, score, self.oversample * budget)

        def greedy(r: int) -> Tensor:
            rows = candidates[r]
            log_p = torch.log_softmax(draws.logits(rows, query.pool.gather(rows), r), 2)
            return rows[batchbald(log_p, budget, query.rng(r, "batchbald"), self.max_samples)]

        return query.each(greedy, budget)


# -- the search ------------------------------------------------------------------------------------------------------


def batchbald(log_probs: Tensor, budget: int, rng: np.random.Generator, max_samples: int = 4096) -> Tensor:
    """Greedy batch of largest joint mutual information, log_probs (M, n, C) of joint draws -> picks int64 (budget,).

    An item's gain is the entropy of its label given the batch's labels, averaged over their configurations, less its
    entropy given the weights. All C^picks configurations are listed while they are at most `max_samples`; from then on
    as many are sampled, stratified over the M draws, and `rng` extends them by one label per pick. Returns
    min(budget, n) distinct candidates in the order picked; ties to the lower index. Kirsch et al. 2019 (arXiv
    1906.08158), eqs. 12 and 14.

    Lazy (Minoux 1978): joint information is submodular, so a gain computed for a smaller batch bounds the present one,
    and candidates are looked at in the order of that bound until none left can be the best. With listed configurations
    the picks are those of the plain greedy; with sampled ones a bound is an estimate like the gain itself, and the
    pick is the best up to that noise. On a GPU every candidate is looked at, because stopping would need the host.
    M draws cannot tell more than log M nats: configurations that leave no doubt about their draw are left out, and when
    none is in doubt the lower index, that is the order of the candidates, decides. Cost per candidate looked at: C K M
    multiply-adds and C K logarithms, K configurations in doubt, in blocks of bounded size.
    """
    M, n, C = log_probs.shape
    lazy = devices.of(log_probs).looks_are_free
    log_probs = log_probs.clamp_min(-1e4)  # e^-1e4 is 0, and sums of many stay finite
    p = log_probs.exp()
    within = -(p * log_probs).sum(-1).T.contiguous()  # (n, M)
    by_item = p.permute(1, 2, 0).clamp_min(1e-30)  # (n, C, M), so that mixtures have a logarithm
    gain = within.new_full((n,), torch.inf)  # the latest known of every candidate, -inf once picked
    most = C * max(max_samples, M)  # numbers for one candidate
    scratch = p.new_empty(2, min(max(block_numbers(p), most), n * most))  # once: new memory costs as much as the sums
    batch = _Labels(log_probs, p, rng, max_samples, min(budget, n))
    while True:
        left = n - len(batch.picks)
        pick = _best(gain, left, within, by_item, *batch.in_doubt(lazy), scratch, lazy)
        if left == 1 or len(batch.picks) + 1 == budget:
            return torch.cat([*batch.picks, pick])
        gain.index_fill_(0, pick, -torch.inf)
        batch.add(pick)


class _Labels:
    """The labels that a batch may have: all configurations while they are few, then sampled ones.

    log_joint (K, M): log probability of a configuration under each draw, of sampled ones up to a constant; source (K,):
    the draw that a sampled configuration came from, None while all are listed.
    """

    def __init__(self, log_probs: Tensor, p: Tensor, rng: np.random.Generator, max_samples: int, most: int) -> None:
        """most: picks that may be added."""
        self.log_probs, self.p, self.rng, self.max_samples, self.most = log_probs, p, rng, max_samples, most
        self.log_joint = p.new_zeros(1, len(p))
        self.source: Tensor | None = None
        self.picks: list[Tensor] = []
        self.uniforms = self._uniforms()

    def add(self, pick: Tensor) -> None:
        """One more candidate, int64 (1,), whose label is listed or drawn."""
        M, _, C = self.p.shape
        self.picks.append(pick)
        if self.source is None and len(self.log_joint) * C > self.max_samples:
            self.source = torch.arange(max(self.max_samples, M), device=self.p.device) % M
            self.log_joint = self.p.new_zeros(len(self.source), M)
            for item in self.picks:
                self._draw(item, self.source)
        elif self.source is None:
            self.log_joint = (self.log_joint[:, None] + self._given(pick)).flatten(0, 1)
        else:
            self._draw(pick, self.source)

    def _given(self, item: Tensor) -> Tensor:
        """Log probabilities of the item's labels under each draw, (C, M)."""
        return self.log_probs.index_select(1, item)[:, 0].T

    def _uniforms(self) -> Iterator[Tensor]:
        """One for each sampled configuration, (K,), again for every draw; many are made at once, since the host waits
        for each copy."""
        count = max(self.max_samples, len(self.p))
        while True:
            many = self.rng.random((max(1, min(self.most, UNIFORMS // count)), count))
            yield from torch.from_numpy(many).to(self.p)

    def _draw(self, item: Tensor, source: Tensor) -> None:
        u = next(self.uniforms)
        steps = self.p.index_select(1, item)[:, 0].cumsum(1)
        label = (steps[source] < u[:, None]).sum(1).clamp_max_(steps.shape[1] - 1)
        self.log_joint = self.log_joint + self._given(item)[label]
        self.log_joint -= self.log_joint.amax(1, keepdim=True)  # long batches neither underflow nor lose digits

    def in_doubt(self, lazy: bool) -> tuple[Tensor, Tensor]:
        """The draws' probabilities (K', M) given a configuration, and its share (K',), of those that matter.

        A configuration that leaves no doubt about its draw adds nothing: at most its share of the draws' entropy. What
        is left out could add 1e-6 nats in all, of sampled ones a thousandth of the whole doubt, far below their noise.
        Unless `lazy` nothing is left out, because counting would need the host.
        """
        log_joint, listed = self.log_joint, self.source is None
        share = torch.softmax(log_joint.logsumexp(1) if listed else log_joint.new_zeros(len(log_joint)), 0)
        log_posterior = torch.log_softmax(log_joint, 1)
        posterior = log_posterior.exp()
        if not lazy:
            return posterior, share
        doubt = share * -(posterior * log_posterior.clamp_min(-1e4)).sum(1)
        most = RESOLVED[0] if listed else RESOLVED[1] * doubt.sum()
        kept = (doubt > most / len(share)).nonzero()[:, 0]
        return posterior[kept], share[kept]


def _best(
    gain: Tensor, left: int, within: Tensor, p: Tensor, posterior: Tensor, share: Tensor, scratch: Tensor, lazy: bool
) -> Tensor:
    """The candidate of largest gain, int64 (1,); updates `gain` (n,) of those it looks at.

    left: how many candidates are not picked; within (n, M): entropies of their labels given a draw; p (n, C, M) > 0;
    posterior (K, M): of the draws given a configuration; share (K,): of a configuration; scratch (2, at least C K):
    memory to work in; lazy: end where no bound is as large. The entropy given a draw is averaged over the same
    configurations, not over all: the same on average, and every configuration's term is then at least 0.
    """
    C, K = p.shape[1], len(posterior)
    size = max(1, min(block_numbers(p), scratch.shape[1]) // max(C * K, 1))
    bound, order = gain.sort(descending=True, stable=True)
    average = share @ posterior  # (M,)
    best = -math.inf
    for start in range(0, left, size):
        if lazy and float(bound[start]) + 1e-5 < best:  # rounding in either
            break
        rows = order[start : min(start + size, left)]
        mixture, log = scratch[:, : len(rows) * C * K].view(2, len(rows) * C, K)
        torch.mm(p.index_select(0, rows).flatten(0, 1), posterior.T, out=mixture)
        negentropy = torch.mv(host_ops.log(mixture, log).mul_(mixture), share)
        value = -negentropy.view(len(rows), C).sum(1) - within.index_select(0, rows) @ average
        gain[rows] = value
        best = max(best, float(value.max())) if lazy else best
    return gain.argmax(0, keepdim=True)
