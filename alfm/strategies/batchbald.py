"""BatchBALD: Kirsch, van Amersfoort & Gal 2019 (1906.08158), algorithm 1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm import devices
from alfm.acquisition import bald, block_numbers
from alfm.errors import UserError
from alfm.fused.joint_gains import joint_gains
from alfm.geometry import greedy
from alfm.heads.passes import draws_at, together, walk_draws
from alfm.options import Count, checked
from alfm.posteriors import Laplace, Posterior
from alfm.strategies.base import Strategy
from alfm.strategies.parts.candidates import highest
from alfm.strategies.query import Query, stack_picks
from alfm.threads import side_by_side

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
        size = devices.of(score).at_once(query.R, draws.passes * draws.C * max(map(len, candidates)), 1)
        groups = together(query.R, size if len({len(own) for own in candidates}) == 1 else 1)

        def chosen(which: slice) -> Tensor:
            rows, rngs = torch.stack(candidates[which]), [query.rng(r, "batchbald") for r in range(query.R)[which]]
            log_p = torch.log_softmax(draws_at(query.pool, draws, rows, which), 3)
            return rows.gather(1, batchbald_each(log_p, budget, rngs, self.max_samples))

        found = side_by_side([partial(chosen, which) for which in groups], score.device)
        return stack_picks([own for some in found for own in some], budget, score.device)


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
    multiply-adds and C K logarithms, K configurations in doubt, in blocks of bounded size; one kernel on a card.
    """
    return batchbald_each(log_probs[None], budget, [rng], max_samples)[0]


def batchbald_each(log_probs: Tensor, budget: int, rngs: Sequence[np.random.Generator], max_samples: int) -> Tensor:
    """`batchbald` of R replicates, log_probs (R, M, n, C) -> picks int64 (R, min(budget, n)).

    R is 1 where stopping early costs nothing. Elsewhere a pick from sampled configurations is a step without a
    question, and a graph.
    """
    R, M, n, C = log_probs.shape
    lazy, most = devices.of(log_probs).looks_are_free, min(budget, n)
    log_probs = log_probs.clamp_min(-1e4)  # e^-1e4 is 0, and sums of many stay finite
    p = log_probs.exp()
    within = -(p * log_probs).sum(-1).mT.contiguous()  # (R, n, M)
    by_item = p.permute(0, 2, 3, 1).clamp_min(1e-30)  # (R, n, C, M), so that mixtures have a logarithm
    gain = within.new_full((R, n), torch.inf)  # the latest known of every candidate, -inf once picked
    each = C * max(max_samples, M)  # numbers for one candidate
    scratch = None  # once: new memory costs as much as the sums
    if lazy:
        scratch = p.new_empty(2, min(max(block_numbers(p), each), n * each))
    batch = _Labels(log_probs, p, rngs, max_samples, most)

    def look() -> None:
        if scratch is not None:
            _look(gain, n - batch.count, within, by_item, *batch.in_doubt(lazy), scratch)
        else:
            value = joint_gains(by_item, within, *batch.in_doubt(lazy))
            gain.copy_(value.where(gain > -torch.inf, -torch.inf))
        batch.pick.copy_(gain.argmax(1, keepdim=True))
        gain.scatter_(1, batch.pick, -torch.inf)

    look()
    while batch.count + 1 < most:
        if lazy or batch.source is None:
            batch.add()
            look()
            continue
        many, at = batch.next_uniforms(most - batch.count - 1), batch.place.new_zeros(1)

        def step() -> None:
            batch.draw_next(many.index_select(0, at)[0])  # noqa: B023
            look()
            at.add_(1)  # noqa: B023

        greedy.repeat(step, [gain, *batch.state, at], len(many))
        batch.count += len(many)
    batch.picks.scatter_(1, batch.place.expand(R, 1), batch.pick)
    return batch.picks


class _Labels:
    """The labels that R batches may have: all configurations while they are few, then sampled ones.

    log_joint (R, K, M): log probability of a configuration under each draw, of sampled ones up to a constant; source
    (K,): the draw that a sampled configuration came from, None while all are listed; pick int64 (R, 1): the next item.
    """

    def __init__(
        self, log_probs: Tensor, p: Tensor, rngs: Sequence[np.random.Generator], max_samples: int, most: int
    ) -> None:
        """most: picks that may be added."""
        self.log_probs, self.p, self.rngs, self.max_samples, self.most = log_probs, p, rngs, max_samples, most
        R, M, _, _ = p.shape
        self.log_joint, self.size = p.new_zeros(R, 1, M), max(max_samples, M)
        self.source: Tensor | None = None
        self.every = torch.arange(R, device=p.device)
        self.pick = self.every.new_zeros(R, 1)
        self.picks, self.place, self.count = self.every.new_zeros(R, most), self.every.new_zeros(1, 1), 0
        self.uniforms = self._uniforms()

    @property
    def state(self) -> list[Tensor]:
        """What `draw_next`, and whoever sets `pick`, change in place."""
        return [self.log_joint, self.pick, self.picks, self.place]

    def add(self) -> None:
        """`pick` joins, whose label is listed or drawn."""
        _, M, _, C = self.p.shape
        if self.source is not None:
            return self.draw_next(next(self.uniforms), 1)
        self._append(1)
        if self.log_joint.shape[1] * C <= self.max_samples:
            self.log_joint = (self.log_joint[:, :, None] + self._given(self.pick)[:, None]).flatten(1, 2)
            return None
        self.source = torch.arange(self.size, device=self.p.device) % M
        self.log_joint = self.p.new_zeros(len(self.p), len(self.source), M)
        for item in self.picks[:, : self.count].split(1, 1):
            self._draw(item, next(self.uniforms))
        return None

    def draw_next(self, u: Tensor, count: int = 0) -> None:
        """`pick` joins, whose label is drawn with u (R, K). count: how many have, where the host counts."""
        self._append(count)
        self._draw(self.pick, u)

    def _append(self, count: int) -> None:
        self.picks.scatter_(1, self.place.expand_as(self.pick), self.pick)
        self.place.add_(1)
        self.count += count

    def _given(self, item: Tensor) -> Tensor:
        """Log probabilities of the items' (R, 1) labels under each draw, (R, C, M)."""
        return self.log_probs[self.every, :, item[:, 0]].mT

    def _uniforms(self) -> Iterator[Tensor]:
        """One for each sampled configuration, (R, K), again for every draw; many are made at once, since the host
        waits for each copy."""
        while True:
            many = [rng.random((max(1, min(self.most, UNIFORMS // self.size)), self.size)) for rng in self.rngs]
            yield from torch.from_numpy(np.stack(many, 1)).to(self.p)

    def next_uniforms(self, most: int) -> Tensor:
        """Those of the next draws, (<= most, R, K), as many as are made at once."""
        return torch.stack(list(islice(self.uniforms, max(1, min(most, UNIFORMS // self.size)))))

    def _draw(self, item: Tensor, u: Tensor) -> None:
        steps = self.p[self.every, :, item[:, 0]].cumsum(2)
        label = (steps[:, self.source] < u[..., None]).sum(2).clamp_max_(steps.shape[2] - 1)
        self.log_joint += self._given(item)[self.every[:, None], label]
        self.log_joint -= self.log_joint.amax(2, keepdim=True)  # long batches neither underflow nor lose digits

    def in_doubt(self, lazy: bool) -> tuple[Tensor, Tensor]:
        """The draws' probabilities (R, K', M) given a configuration, and its share (R, K'), of those that matter.

        A configuration that leaves no doubt about its draw adds nothing: at most its share of the draws' entropy. What
        is left out could add 1e-6 nats in all, of sampled ones a thousandth of the whole doubt, far below their noise.
        Unless `lazy`, when R is 1, nothing is left out, because counting would need the host.
        """
        log_joint, listed = self.log_joint, self.source is None
        share = torch.softmax(log_joint.logsumexp(2) if listed else torch.zeros_like(log_joint[..., 0]), 1)
        log_posterior = torch.log_softmax(log_joint, 2)
        posterior = log_posterior.exp()
        if not lazy:
            return posterior, share
        doubt = share * -(posterior * log_posterior.clamp_min(-1e4)).sum(2)
        most = RESOLVED[0] if listed else RESOLVED[1] * doubt.sum()
        kept = (doubt[0] > most / share.shape[1]).nonzero()[:, 0]
        return posterior[:, kept], share[:, kept]


def _look(
    gain: Tensor, left: int, within: Tensor, p: Tensor, posterior: Tensor, share: Tensor, scratch: Tensor
) -> None:
    """Updates `gain` (1, n), the largest bounds first, until no other bound is as large as the best gain.

    left: how many candidates are not picked; others as in `joint_gains`. The entropy given a draw is averaged over the
    same configurations, not over all: the same on average, and every configuration's term is then at least 0.
    """
    size = max(1, min(block_numbers(p), scratch.shape[1]) // max(p.shape[2] * posterior.shape[1], 1))
    bound, order = gain[0].sort(descending=True, stable=True)
    best = -math.inf
    for start in range(0, left, size):
        if float(bound[start]) + 1e-5 < best:  # rounding in either
            break
        rows = order[start : min(start + size, left)]
        own = p[0].index_select(0, rows)[None], within[0].index_select(0, rows)[None]
        value = joint_gains(*own, posterior, share, scratch)
        gain[:, rows] = value
        best = max(best, float(value.max()))
