"""ParBaLS-EPIG: Hu & Mussmann 2025, "Batch Bayesian active learning with partial batch label sampling" (2510.09877)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.errors import UserError
from alfm.geometry import greedy
from alfm.geometry.topk import top_each
from alfm.heads.passes import draws_at, together
from alfm.options import Count, Fits, checked
from alfm.posteriors import Laplace, Posterior
from alfm.posteriors.laplace import LaplaceDraws
from alfm.strategies.base import Strategy
from alfm.strategies.parts.pseudo_labels import BLOCK, PseudoLabelled, explained, own_products, relative_deviations
from alfm.strategies.query import Query
from alfm.threads import side_by_side


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
        targets = [self._drawn(query, r, "epig targets", self.num_targets) for r in range(query.R)]
        count = None if self.candidates is None else max(self.candidates, budget)
        rows = [self._drawn(query, r, "epig candidates", count) for r in range(query.R)]
        items = max(map(len, targets)) + max(map(len, rows))
        if self.oversample is not None:
            items = min(items, max(map(len, targets)) + self.oversample * budget)
        numbers, device = items * draws.passes * draws.C, query.pool.device
        size = devices.of(device).at_once(query.R * self.labellings, numbers, 1)  # posteriors
        alike = len({(len(own), len(target)) for own, target in zip(rows, targets, strict=True)}) == 1
        groups = together(query.R, max(1, size // self.labellings) if alike else 1)

        def chosen(which: slice) -> Tensor:
            given = torch.stack(rows[which]), torch.stack(targets[which])
            return self._select_some(query, draws, which, *given, budget, size)

        return torch.cat(side_by_side([partial(chosen, which) for which in groups], device))

    def _select_some(
        self, query: Query, draws: LaplaceDraws, which: slice, rows: Tensor, target: Tensor, budget: int, size: int
    ) -> Tensor:
        """Picks of some replicates, (R, budget), from candidates `rows` (R, m) about targets (R, T); size: posteriors
        that are visited at once."""
        if self.oversample is not None and rows.shape[1] > self.oversample * budget:
            score = self._before(query, draws, which, rows, target, size)
            best = top_each(score, torch.ones_like(score, dtype=torch.bool), self.oversample * budget)
            rows = rows.gather(1, best.sort(1).values)
        state = PseudoLabelled(query, draws, which, rows, target, self.labellings, budget, size)
        open_ = torch.ones_like(rows, dtype=torch.bool)
        picks, made = torch.zeros_like(rows[:, :budget]), rows.new_zeros(1)
        place = rows.new_zeros(len(rows), 1)

        def pick() -> None:
            place.copy_(state.information(self.exact).where(open_, -torch.inf).argmax(1, keepdim=True))
            open_.scatter_(1, place, False)
            picks.index_copy_(1, made, place)
            made.add_(1)

        def step() -> None:
            state.learn(place)
            pick()

        pick()
        state.begin()
        if state.fixed:
            greedy.repeat(step, [open_, picks, made, place, *state.state], budget - 1)
        else:
            for _ in range(budget - 1):
                step()
        return rows.gather(1, picks)

    def _drawn(self, query: Query, r: int, purpose: str, count: int | None) -> Tensor:
        """`count` of the available items at random, or all (None, or where there are no more): rows, ascending."""
        free = query.available[r].nonzero()[:, 0]
        if count is None or count >= len(free):
            return free
        drawn = np.sort(query.rng(r, purpose).choice(len(free), count, replace=False))
        return free[torch.from_numpy(drawn).to(free.device)]

    def _before(
        self, query: Query, draws: LaplaceDraws, which: slice, rows: Tensor, target: Tensor, size: int
    ) -> Tensor:
        """Information of each of some rows (R, m) before anything is picked, to second order; (R, m)."""
        block = BLOCK * (max(1, size // len(rows)) if size > 1 else 1)

        def parts(of: Tensor) -> Iterator[Tensor]:
            for some in of.split(block, 1):
                yield relative_deviations(draws_at(query.pool, draws, some, which).transpose(1, 2))

        products = torch.stack([own_products(d) for d in parts(target)]).sum(0) / target.shape[1]
        return torch.cat([explained(d, products) for d in parts(rows)], 1)
