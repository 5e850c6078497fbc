"""What a query strategy sees and returns, and the one place where a batch is checked and completed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from alfm.errors import UserError
from alfm.heads.base import Classifier, LinearHead
from alfm.pool import Pool
from alfm.posteriors.base import Draws, Posterior
from alfm.streams import integer, stream
from alfm.threads import side_by_side

if TYPE_CHECKING:
    from alfm.loop import Task
    from alfm.row_numbers import RowNumbers

Counted = Literal["cache", "pool"]
"""What a list of row numbers counts: the cache's rows, or the pool's, which leaves out items without a label."""


@dataclass
class Query:
    """One round's question, for R replicates.

    pool: the features. rows (R, n) int64: labelled pool rows in the order picked, padded with -1; targets (R, n)
    int64: their classes (padding -1). available (R, N) bool: may be picked. head: fitted on rows, or None at a cold
    start; classifier: how heads are fitted, on all augmented views where there are some. seeds: one per replicate;
    round: 1 is the cold start's. carry: what a strategy keeps from round to round (distances so far, covered flags).
    It must be a pure function of pool and picks: after a resume it starts empty and is rebuilt. oracle: the task with
    its hidden labels and its test split, for `oracle` strategies only.
    """

    pool: Pool
    rows: Tensor
    targets: Tensor
    available: Tensor
    num_classes: int
    seeds: Sequence[int]
    round: int
    head: LinearHead | None = None
    classifier: Classifier | None = None
    carry: dict[str, Any] = field(default_factory=dict)
    oracle: Task | None = None

    @property
    def R(self) -> int:
        return len(self.seeds)

    def labelled(self, r: int) -> Tensor:
        """Rows labelled in replicate r, (n,) int64, in the order picked."""
        return self.rows[r][self.rows[r] >= 0]

    def labels_of(self, r: int) -> Tensor:
        """Classes of `labelled(r)`, (n,) int64."""
        return self.targets[r][self.rows[r] >= 0]

    def rng(self, r: int, purpose: str) -> np.random.Generator:
        """Replicate r's random stream of this round for one purpose."""
        return stream(self.seeds[r], self.round, purpose)

    def key(self, r: int, purpose: str) -> int:
        """An integer addressed the same way, for counter hashes and libraries that take a seed."""
        return integer(self.seeds[r], self.round, purpose)

    def draws(self, posterior: Posterior) -> Draws:
        """The posterior's draws around this round's heads."""
        assert self.head is not None and self.classifier is not None
        return posterior.bind(self.pool, self.head, self.classifier, self.rows, self.targets, self.seeds, self.round)

    def each(self, select: Callable[[int], Tensor], budget: int) -> Tensor:
        """select(r) -> at most `budget` rows, for every replicate: int64 (R, budget), padded with -1.

        On CPU replicates run side by side, one thread each, so `select` must share nothing but what it reads.
        """
        picks = side_by_side([partial(select, r) for r in range(self.R)], self.pool.device)
        return stack_picks(picks, budget, self.pool.device)

    def score(self, acquisition: Callable[[Tensor], Tensor]) -> Tensor:
        """One pool pass: acquisition(logits (b, C)) -> (b,) for every replicate; returns (R, N)."""
        assert self.head is not None
        return self.pool.map(lambda phi, logits, rows, r: acquisition(logits), self.head)


class Strategy(ABC):
    """A query strategy. Subclass it anywhere and name it by `_target_` in a config.

    Say what its options may be in their annotations and decorate it with `alfm.options.checked`; or check nothing.

    needs_head: wants a fitted head, so it cannot be a cold start. stochastic: other seeds give other picks.
    oracle: sees hidden labels (a ceiling for benchmarks, never a method). refits: fits heads of its own with the
    query's classifier (as does one whose `posterior` says so). measures: the spaces in which it takes distances by
    `Pool.points`; repairs_near: takes those of near pairs from differences (see `Simulation.behaviour`).
    """

    needs_head: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False
    oracle: ClassVar[bool] = False
    measures: ClassVar[Sequence[Literal["raw", "unit", "head"]]] = ()
    repairs_near: ClassVar[bool] = False
    refits: ClassVar[bool] = False
    row_options: ClassVar[tuple[str, ...]] = ()
    """Options that list row numbers. A strategy with some has an option `rows`: what they count, see `in_pool`."""

    limits: ClassVar[dict[str, tuple[float, float]]] = {}
    """Lowest and highest values of numeric options, for classes from before `checked`; None passes."""

    def __post_init__(self) -> None:
        """Refuses a number outside `limits`; UserError."""
        for option, (low, high) in self.limits.items():
            value = getattr(self, option)
            if value is not None and not low <= value <= high:
                raise UserError(f"{self.name} {option}={value}: must lie between {low:g} and {high:g}.")

    @property
    def lists_rows(self) -> bool:
        """Was it given row numbers?"""
        return any(self._rows_of(option) for option in self.row_options)

    def in_pool(self, numbers: RowNumbers) -> Strategy:
        """The strategy with the row numbers that it was given as rows of the pool, which are all that `select` knows.

        Itself where there are none. Raises UserError for rows that are not in the pool, and where it is not said
        whether they count the cache's rows or the pool's and this makes a difference.
        """
        if not self.lists_rows:
            return self
        turned: dict[str, Any] = {"rows": "pool"}
        for option in self.row_options:
            what, given = f"query_strategy.{option}", self._rows_of(option)
            own = numbers.listed(given, getattr(self, "rows", None), what, "query_strategy.rows")
            if (own < 0).any():
                raise numbers.not_in_pool(what, given[int((own < 0).argmax())])
            turned[option] = own.tolist()
        return replace(self, **turned)

    def _rows_of(self, option: str) -> list[int]:
        given = getattr(self, option)
        return [] if given is None else list(given)

    @abstractmethod
    def select(self, query: Query, budget: int) -> Tensor:
        """Up to `budget` available items per replicate in the order preferred: int64 (R, budget), -1 = none.

        `budget` never exceeds the number of available items. The caller completes what is -1 at random and counts it.
        """

    @property
    def name(self) -> str:
        return type(self).__name__.lower()


def stack_picks(picks: Sequence[Tensor], budget: int, device: torch.device) -> Tensor:
    """R vectors of at most `budget` rows -> int64 (R, budget), padded with -1."""
    out = torch.full((len(picks), budget), -1, dtype=torch.int64, device=device)
    for r, own in enumerate(picks):
        out[r, : len(own)] = own
    return out


def ask(strategy: Strategy, query: Query, budget: int) -> tuple[Tensor, list[int]]:
    """Exactly min(budget, available) distinct available items per replicate: (R, B) int64, and how many were filled.

    Where replicates differ in what is left, B is what the poorest has.

    What the strategy left open is drawn uniformly from the remaining available items, never twice. Raises UserError
    when the strategy needs a head and there is none; RuntimeError when it returns an item that is not available or
    one item twice (a defect of the strategy: hiding it would bias every comparison).
    """
    if strategy.needs_head and query.head is None:
        raise UserError(
            f"Query strategy {strategy.name!r} needs a fitted head and cannot be a cold start; "
            "choose another init_strategy, for example random or centroid."
        )
    left = int(query.available.sum(1).min())
    budget = min(budget, left)
    picks = strategy.select(query, budget)
    if picks.shape != (query.R, budget):
        raise RuntimeError(f"{strategy.name} returned shape {tuple(picks.shape)}, wanted {(query.R, budget)}")
    filled = []
    host = picks.cpu()
    available = query.available.cpu()
    for r in range(query.R):
        own = host[r][host[r] >= 0]
        if len(own.unique()) != len(own) or not bool(available[r][own].all()):
            raise RuntimeError(f"{strategy.name} returned a repeated or unavailable item (replicate {r})")
        missing = budget - len(own)
        if missing:
            free = available[r].clone()
            free[own] = False
            rest = free.nonzero()[:, 0].numpy()
            drawn = query.rng(r, "complete the batch").choice(rest, missing, replace=False)
            own = torch.cat([own, torch.from_numpy(drawn)])
        host[r] = own
        filled.append(missing)
    return host.to(picks.device), filled
