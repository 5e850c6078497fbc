"""Ask and tell: what R learners on one pool know, and nothing about where labels come from.

    learner = Learner(pool, seeds=[1, 10], query_strategy=..., init_strategy=..., classifier=...)
    rows = learner.ask(20)  # (2, 20) pool rows
    learner.tell(rows, labels)  # (2, 20) classes, from whoever knows them
    learner.fit()  # heads of what is labelled by now

A simulation looks the labels up, a person types them in: both drive this class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.devices import full_precision
from alfm.errors import UserError
from alfm.features.features import Features
from alfm.heads.base import Chooses, Classifier
from alfm.heads.linear import LinearHead
from alfm.heads.views import on_all_views
from alfm.strategies.ask import ask_on_host
from alfm.strategies.base import Strategy
from alfm.strategies.query import Oracle, Query

Numbers = Tensor | np.ndarray | Sequence[Sequence[int]]


class Learner:
    """R replicates, one per seed: what is labelled in each, its head, what its strategy keeps, and why it ended.

    rows, targets (R, n) int64: labelled pool rows in the order told, and their classes, padded with -1; counts and
    left: how many are labelled in each replicate, and how many may be asked for. available (R, N) bool: which.
    num_classes: at least 2; a larger label makes more. round: which question is next, 1 for the first.
    head: a head for every replicate in `fitted`, or None. ended: why a replicate is neither asked nor fitted any more,
    None while it goes on. filled: how many of each replicate's last picks its strategy left open, drawn at random.
    """

    def __init__(
        self,
        pool: Features,
        *,
        seeds: Sequence[int],
        query_strategy: Strategy,
        init_strategy: Strategy,
        classifier: Classifier,
        num_classes: int = 0,
        warm_start: bool = True,
        oracle: Oracle | None = None,
    ) -> None:
        """num_classes: those known beforehand. warm_start: a fit begins at the head before. oracle: hidden labels.

        Raises UserError for a strategy marked `oracle` where there are none; others do not see them.
        """
        for strategy in (init_strategy, query_strategy):
            if strategy.oracle and oracle is None:
                raise UserError(f"{strategy.name} looks at hidden labels, which only a simulation has; choose another.")
        R, device = len(seeds), pool.device
        self.pool, self.seeds, self.num_classes = pool, list(seeds), max(num_classes, 2)
        self.query_strategy, self.init_strategy = query_strategy, init_strategy
        self.classifier, self.warm_start, self.oracle = on_all_views(classifier, pool), warm_start, oracle
        self.rows = torch.empty(R, 0, dtype=torch.int64, device=device)
        self.targets = torch.empty_like(self.rows)
        self.available = torch.ones(R, pool.N, dtype=torch.bool, device=device)
        self.counts, self.left, self.filled = [0] * R, [pool.N] * R, [0] * R
        self.round = 1
        self.head: LinearHead | None = None
        self.fitted: list[int] = []
        self.ended: list[str | None] = [None] * R
        self._free = self.available.cpu()  # what is told is checked here: no device is waited for
        self._carry: dict[tuple[int, ...], dict[str, Any]] = {}
        self._told = self._more_classes = False
        self._new: set[int] = set()
        self._seen: list[set[int]] = [set() for _ in seeds]

    @property
    def R(self) -> int:
        return len(self.seeds)

    @property
    def going(self) -> list[int]:
        """Replicates that have not ended."""
        return [r for r, why in enumerate(self.ended) if why is None]

    def classes(self, r: int) -> int:
        """How many classes replicate r has at least one label of."""
        return len(self._seen[r])

    def ask(self, budget: int) -> Tensor:
        """What to label next, the most wanted first: int64 (R, B) on the host, B at most `budget`.

        -1 for replicates that have ended, and behind the last items of a pool. A pure function of what was told, in
        which rounds, and of the seeds: until more is told the answer stays the same. Without a label in a replicate
        `init_strategy` answers for it. Fits first where labels were told since. Raises what `strategies.ask` raises.
        """
        if budget < 1:
            raise UserError(f"ask({budget}): ask for one item or more.")
        self.fit()
        groups: dict[tuple[bool, int, str], list[int]] = {}  # a replicate's answer does not depend on its company
        for r in self.going:
            if self.left[r]:
                key = (r in self.fitted, min(budget, self.left[r]), self._options(r))
                groups.setdefault(key, []).append(r)
        picks = torch.full((self.R, max((own for _, own, _ in groups), default=0)), -1)
        self.filled, kept, self._carry = [0] * self.R, self._carry, {}
        for (warm, own, _), group in groups.items():
            strategy, head, carry = self.init_strategy, None, {}
            if warm:
                strategy, head = self.query_strategy, self._heads(group)
                carry = self._carry[tuple(group)] = kept.get(tuple(group), {})  # it counts replicates
            picks[group, :own], filled = ask_on_host(strategy, self._query(strategy, group, head, carry), own)
            for r, count in zip(group, filled, strict=True):
                self.filled[r] = count
        return picks

    def tell(self, rows: Numbers, labels: Numbers) -> None:
        """What was found out about pool rows: both int64 (R, B); a row -1 says nothing, a label -1: nobody knew.

        What nobody knew is not asked for again and not learnt from. Heads stay as they are until `fit`. Raises
        UserError for rows that the pool does not have or that were told before, ValueError for what is no row or label.
        """
        rows, labels = _whole(rows), _whole(labels)
        if rows.ndim != 2 or rows.shape != labels.shape or len(rows) != self.R:
            raise ValueError(f"rows {tuple(rows.shape)} and labels {tuple(labels.shape)}: both must be ({self.R}, B)")
        if not rows.numel():
            return
        if rows.numel() and min(int(rows.min()), int(labels.min())) < -1:
            raise ValueError("rows and labels are numbers from 0 on, or -1")
        said = rows >= 0
        self._check(rows)
        known = said & (labels >= 0)
        for r, (asked, answered) in enumerate(zip(said.sum(1).tolist(), known.sum(1).tolist(), strict=True)):
            self.left[r] -= asked
            self.counts[r] += answered
            self._told |= asked > 0
            if answered:
                self._new.add(r)
                self._seen[r].update(labels[r, known[r]].tolist())
        self._store(rows, labels, said, known)
        most = int(labels.where(known, -1).max())
        if most >= self.num_classes:
            self.num_classes, self._more_classes = most + 1, True

    @full_precision()
    def fit(self) -> None:
        """Heads of what is labelled by now, where that is news; what was told since the last fit was one round.

        With more classes than before all heads are made anew, and none begins at the one before.
        """
        if not self._told:
            return
        going = [r for r in self.going if self.counts[r]]
        before = [] if self._more_classes else self.fitted
        kept = [r for r in going if r in before and r not in self._new]
        renewed = [r for r in going if r in before and r in self._new]
        first = [r for r in going if r not in before]
        parts = []
        if kept:
            parts.append((kept, self._heads(kept)))
        if renewed:
            parts.append((renewed, self._fit(renewed, self._heads(renewed) if self.warm_start else None)))
        if first:
            parts.append((first, self._fit(first, None)))
        self.fitted, self.head = _joined(parts)
        self.round += 1
        self._told, self._more_classes, self._new = False, False, set()

    def stand(
        self,
        rows: Tensor,
        targets: Tensor,
        *,
        round: int,
        num_classes: int,
        head: LinearHead | None,
        closed: Sequence[Sequence[int]] = (),
    ) -> None:
        """Stand before a question with another past: these labels instead of what was told.

        rows, targets (R, n) int64: all that is labelled, in training order; head: fitted on it, None where n is 0.
        closed: for each replicate, further rows that are not asked for. What strategies keep of rows goes on as far as
        these are the same, and a fit begins at `head` where heads start warm. Raises as `tell` does.
        """
        self.rows = torch.empty(self.R, 0, dtype=torch.int64, device=self.pool.device)
        self.targets = torch.empty_like(self.rows)
        self._free.fill_(True)
        self.available.fill_(True)
        self.counts, self.left, self.num_classes = [0] * self.R, [self.pool.N] * self.R, max(num_classes, 2)
        self._seen = [set() for _ in self.seeds]
        self.tell(rows, targets)
        for r, own in enumerate(closed):
            shut = torch.tensor(own, dtype=torch.int64)
            self._free[r, shut] = False
            self.left[r] = int(self._free[r].sum())
        self.available.copy_(self._free)
        self.round, self.head, self.fitted = round, head, [] if head is None else list(range(self.R))
        self._told, self._more_classes, self._new = False, False, set()

    def hold_out(self, rows: Tensor, labels: Tensor) -> None:
        """Pool rows int64 (R, V) on the host that are neither asked for nor trained on, and their classes.

        A head whose options are chosen is judged on them, as far as somebody knew their labels. Raises as `tell` does.
        """
        self._check(rows)
        self._free.scatter_(1, rows, False)
        self.available.copy_(self._free)
        self.left = self._free.sum(1).tolist()
        if isinstance(self.classifier, Chooses):
            for seed, own, said in zip(self.seeds, rows, labels, strict=True):
                self.classifier.judge_on(seed, own[said >= 0], said[said >= 0])

    def end(self, r: int, why: str) -> None:
        """Replicate r is asked and fitted no more."""
        self.ended[r] = why

    def _check(self, rows: Tensor) -> None:
        """Refuses rows that replicates cannot be told about."""
        last = self.pool.N - 1
        if int(rows.max()) > last:
            raise UserError(f"Row {int(rows.max())} was told, but the pool's rows are 0 to {last}: leave it out.")
        ordered = rows.sort(1).values
        again = ~self._free.gather(1, ordered.clamp_min(0))
        again[:, 1:] |= ordered[:, 1:] == ordered[:, :-1]
        again &= ordered >= 0
        if bool(again.any()):
            row, r = int(ordered[again][0]), int(again.nonzero()[0, 0])
            raise UserError(f"Row {row} was told before (replicate {r}): tell each row once.")

    def _store(self, rows: Tensor, labels: Tensor, said: Tensor, known: Tensor) -> None:
        """Appends what is known, each replicate's rows side by side; all (R, B) on the host."""
        pool = devices.of(self.pool.device)
        there = pool.sent(rows)
        if bool(said.all()):
            self._free.scatter_(1, rows, False)
            self.available.scatter_(1, there, False)
        else:
            self._free[said.nonzero()[:, 0], rows[said]] = False
            self.available.copy_(self._free)
        if not bool(known.all()):
            there, labels = pool.sent(rows.where(known, -1)), labels.where(known, -1)
        self.rows = torch.cat([self.rows, there], 1)
        self.targets = torch.cat([self.targets, pool.sent(labels)], 1)
        if min(self.counts) < self.rows.shape[1]:
            order = (self.rows < 0).byte().argsort(dim=1, stable=True)[:, : max(self.counts)]
            self.rows, self.targets = self.rows.gather(1, order), self.targets.gather(1, order)

    def _query(self, strategy: Strategy, group: list[int], head: LinearHead | None, carry: dict[str, Any]) -> Query:
        return Query(
            self.pool, *self._labelled(group), self._of(group, self.available), self.num_classes,
            [self.seeds[r] for r in group], self.round, head, self._classifier(group[0]), carry,
            self.oracle if strategy.oracle else None,
        )  # fmt: skip

    def _options(self, r: int) -> str:
        return repr(self.classifier.chosen(self.seeds[r])) if isinstance(self.classifier, Chooses) else ""

    def _classifier(self, r: int) -> Classifier:
        """How replicate r's head was fitted: strategies that fit heads themselves fit such ones."""
        if isinstance(self.classifier, Chooses):
            return on_all_views(self.classifier.chosen(self.seeds[r]), self.pool)
        return self.classifier

    def _fit(self, group: list[int], previous: LinearHead | None) -> LinearHead:
        seeds = [self.seeds[r] for r in group]
        return self.classifier.fit(
            self.pool, *self._labelled(group), self.num_classes, seeds, self.round, previous=previous
        )

    def _labelled(self, group: list[int]) -> tuple[Tensor, Tensor]:
        """Rows and targets of some replicates, as wide as the longest of them."""
        longest = max(self.counts[r] for r in group)
        return self._of(group, self.rows)[:, :longest], self._of(group, self.targets)[:, :longest]

    def _of(self, group: list[int], state: Tensor) -> Tensor:
        """What (R, ...) holds of some replicates; itself for all of them."""
        return state if len(group) == self.R else state[devices.of(state).sent(torch.tensor(group))]

    def _heads(self, group: list[int]) -> LinearHead:
        assert self.head is not None
        return self.head if group == self.fitted else self.head.of([self.fitted.index(r) for r in group])


def _whole(given: Numbers) -> Tensor:
    """int64, on the host, in memory of its own."""
    numbers = given.detach().cpu() if isinstance(given, Tensor) else torch.from_numpy(np.array(given, ndmin=2))
    if numbers.numel() and (numbers.is_floating_point() or numbers.is_complex()):
        raise ValueError(f"rows and labels are whole numbers, not {numbers.dtype}")
    return numbers.to(torch.int64)


def _joined(parts: list[tuple[list[int], LinearHead]]) -> tuple[list[int], LinearHead | None]:
    """Replicates and their heads in ascending order."""
    if len(parts) < 2:
        return parts[0] if parts else ([], None)
    replicates = [r for group, _ in parts for r in group]
    every = LinearHead.joined([head for _, head in parts])
    return sorted(replicates), every.of(sorted(range(len(replicates)), key=replicates.__getitem__))
