"""ParBaLS-EPIG: Hu & Mussmann 2025, "Batch Bayesian active learning with partial batch label sampling" (2510.09877)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from alfm.errors import UserError
from alfm.geometry.topk import top
from alfm.options import Count, Fits, checked
from alfm.posteriors import Laplace, Posterior
from alfm.posteriors.laplace import LaplaceDraws
from alfm.strategies.base import Strategy
from alfm.strategies.parts.pseudo_labels import BLOCK, PseudoLabelled, explained, relative_deviations
from alfm.strategies.query import Query


@dataclass(eq=False)
@checked
class ParbalsEpig(Strategy):
    """EPIG about a target sample, one pick after the other, each pick answered by pseudo-labels (algorithm 1).

    Each of `labellings` posterior draws says what it takes every item's label to be. For each of them a head of its own
    and the posterior around it are updated after every pick, on the labels and that draw's pseudo-labels, and the next
    pick has the largest sum of EPIG over them. Targets: `num_targets` unlabelled items; candidates: `candidates` of the
    unlabelled ones, drawn at random, or all.

    The Laplace posterior's draws stand in for the paper's NUTS. It has one covariance for all classes, so a
    pseudo-label y of a pick changes every head and draw along u = Sigma phi alone (Huseljic et al. 2022, 2210.06112).
    With q = p1 (1 - p1) of that pick and s = phi^T u, the head gains (e_y - p) u / (1 + q s), and what lies along u in
    the draws' deviations shrinks by 1 / sqrt(1 + q s), which gives them the covariance Sigma - q u u^T / (1 + q s).

    exact: EPIG itself (Bickford Smith et al. 2023, 2304.08151, equation 5), T C^2 M operations for each candidate,
    pick and labelling. Otherwise to second order in the dependence of the two labels, half the chi-square of their
    joint distribution and the product of its margins: sum_mm' A_i B / (2 M^2), where A_i (M, M) are products of the
    draws' deviations from the item's mean prediction p, divided by p, and B is the targets' mean of the same: M^2 C.
    oversample: after the first pick only the oversample x budget candidates of largest information before it are
    looked at (None: all).
    Cost: O(M N D C + B K M C (M m + T)) for K labellings, m candidates, T targets; memory O(N + K M (m + T) C).
    """

    name = "parbals_epig"
    needs = ("head", "labels")
    stochastic = True
    posterior: Posterior = field(default_factory=Laplace)
    labellings: Fits = 10
    num_targets: Count = 1000
    candidates: Count | None = 10_000
    oversample: Count | None = 10
    exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.posterior, Laplace):
            raise UserError(f"{self.name} updates draws by rank-one steps: choose query_strategy/posterior=laplace.")
        if self.labellings > self.posterior.passes:
            raise UserError(
                f"{self.name} labellings={self.labellings}: each is one of the posterior's draws, so set "
                f"query_strategy.posterior.passes to {self.labellings} or more."
            )

    def select(self, query: Query, budget: int) -> Tensor:
        draws = query.draws(self.posterior)
        assert isinstance(draws, LaplaceDraws)
        return query.each(lambda r: self._select_one(query, draws, r, budget), budget)

    def _select_one(self, query: Query, draws: LaplaceDraws, r: int, budget: int) -> Tensor:
        target = self._drawn(query, r, "epig targets", self.num_targets)
        rows = self._drawn(
            query, r, "epig candidates", None if self.candidates is None else max(self.candidates, budget)
        )
        if self.oversample is not None and len(rows) > self.oversample * budget:
            every = torch.ones_like(rows, dtype=torch.bool)
            rows = rows[top(self._before(query, draws, r, rows, target), every, self.oversample * budget).sort().values]
        state = PseudoLabelled(query, draws, r, rows, target, self.labellings)
        open_ = torch.ones_like(rows, dtype=torch.bool)
        picks: list[int] = []
        while len(picks) < budget:
            if picks:
                state.learn(picks[-1])
            picks.append(int(top(state.information(self.exact), open_, 1)))
            open_[picks[-1]] = False
        return rows[picks]

    def _drawn(self, query: Query, r: int, purpose: str, count: int | None) -> Tensor:
        """`count` of the available items at random, or all (None, or where there are no more): rows, ascending."""
        free = query.available[r].nonzero()[:, 0]
        if count is None or count >= len(free):
            return free
        drawn = np.sort(query.rng(r, purpose).choice(len(free), count, replace=False))
        return free[torch.from_numpy(drawn).to(free.device)]

    def _before(self, query: Query, draws: LaplaceDraws, r: int, rows: Tensor, target: Tensor) -> Tensor:
        """Information of each of some rows before anything is picked, to second order; (m,)."""

        def parts(of: Tensor) -> Iterator[Tensor]:
            for some in of.split(BLOCK):
                yield relative_deviations(draws.logits(some, query.pool.gather(some), r).transpose(0, 1))

        products = torch.stack([torch.bmm(d, d.mT).sum(0) for d in parts(target)]).sum(0) / len(target)
        return torch.cat([explained(d, products) for d in parts(rows)])
