"""What a query strategy sees: one round's question, and the coordinates of its heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.features.features import Features, Vectors
from alfm.features.spaces import RAW, UNIT, unit_rows
from alfm.geometry import greedy
from alfm.heads.base import Classifier
from alfm.heads.linear import LinearHead
from alfm.heads.passes import Draws, Seen, walk
from alfm.posteriors.base import Posterior
from alfm.streams import integer, stream
from alfm.threads import side_by_side


class Oracle(Protocol):
    """What only a simulation knows: every item's label, and the test split. For strategies marked `oracle`, no other.

    labels (N,) and test_labels (T,): int64 on the pool's device.
    """

    labels: Tensor
    test: Features
    test_labels: Tensor

    def test_logits(self, head: LinearHead) -> Iterator[Tensor]:
        """Logits (T, C) of one replicate after the other."""
        ...


class Growing(Protocol):
    """A state that pool rows are added to, and that knows which."""

    @property
    def added(self) -> Tensor:
        """All rows added, int64 (n,), in order; picks that it added itself count."""
        ...

    def add(self, rows: Tensor) -> None:
        """Adds rows, int64 (m,)."""
        ...


S = TypeVar("S", bound=Growing)
T = TypeVar("T")


@dataclass
class Query:
    """One round's question, for R replicates.

    pool: the features. rows (R, n) int64: labelled pool rows in the order picked, padded with -1; targets (R, n)
    int64: their classes (padding -1). available (R, N) bool: may be picked. head: fitted on rows, or None at a cold
    start; classifier: how heads are fitted, on all augmented views where there are some. seeds: one per replicate;
    round: 1 is the cold start's. carry: what a strategy keeps from round to round (see `kept`). It must be a pure
    function of pool and picks: after a resume it starts empty and is rebuilt. oracle: hidden labels and the test
    split, for strategies marked `oracle` only.

    members and wanted: where every replicate has a part of the pool of its own, its items, ascending, those that are
    labelled included, R times int64 (m,), and how many picks it asks for; only strategies that say so
    (`Strategy.joins_parts`) see them.
    """

    pool: Features
    rows: Tensor
    targets: Tensor
    available: Tensor
    num_classes: int
    seeds: Sequence[int]
    round: int
    head: LinearHead | None = None
    classifier: Classifier | None = None
    carry: dict[str, Any] = field(default_factory=dict)
    oracle: Oracle | None = None
    members: Sequence[Tensor] | None = None
    wanted: Sequence[int] | None = None

    @property
    def R(self) -> int:
        return len(self.seeds)

    @cached_property
    def counts(self) -> list[int]:
        """How many rows are labelled in each replicate."""
        counts: list[int] = (self.rows >= 0).sum(1).tolist()
        return counts

    def labelled(self, r: int) -> Tensor:
        """Rows labelled in replicate r, (n,) int64, in the order picked."""
        return self.rows[r, : self.counts[r]]

    def labels_of(self, r: int) -> Tensor:
        """Classes of `labelled(r)`, (n,) int64."""
        return self.targets[r, : self.counts[r]]

    def budgets(self, budget: int) -> list[int]:
        """How many picks each replicate asks for, `budget` at most."""
        return [budget] * self.R if self.wanted is None else list(self.wanted)

    def some(self, state: Tensor, replicates: Sequence[int]) -> Tensor:
        """What (R, ...) holds of consecutive replicates."""
        return state[replicates[0] : replicates[-1] + 1]

    def rng(self, r: int, purpose: str) -> np.random.Generator:
        """Replicate r's random stream of this round for one purpose."""
        return stream(self.seeds[r], self.round, purpose)

    def key(self, r: int, purpose: str) -> int:
        """An integer addressed the same way, for counter hashes and libraries that take a seed."""
        return integer(self.seeds[r], self.round, purpose)

    def kept(self, name: str, r: int, make: Callable[[], S], fits: Callable[[S], bool] = lambda state: True) -> S:
        """What a strategy keeps of replicate r under a name, with everything labelled added to it.

        The state of the round before goes on if it `fits` and what was added to it comes first among the labels, in
        their order; else a new one is made, as after a resume. So a state may add its picks while it makes them: it
        stands as long as they become the next labels.
        """
        states = self.carry.setdefault(name, {})
        old, rows = states.get(r), self.labelled(r)
        state = _with(old, rows) if old is not None and fits(old) else None
        states[r] = _with(make(), rows) if state is None else state
        return states[r]

    def kept_of(
        self,
        name: str,
        replicates: Sequence[int],
        make: Callable[[list[int]], Sequence[S | None]],
        fits: Callable[[S], bool] = lambda state: True,
    ) -> list[S | None]:
        """The same for some replicates whose new states are made together; of others nothing is kept under this name.

        make(those that have none) -> their states, None where there is none to be had.
        """
        old = self.carry.get(name, {})
        states = {r: _with(old[r], self.labelled(r)) if r in old and fits(old[r]) else None for r in replicates}
        missing = [r for r, one in states.items() if one is None]
        for r, one in zip(missing, make(missing) if missing else (), strict=True):
            if one is not None and len(one.added) < self.counts[r]:
                one.add(self.labelled(r)[len(one.added) :])
            states[r] = one
        self.carry[name] = {r: one for r, one in states.items() if one is not None}
        return list(states.values())

    def of(self, replicates: Sequence[int], carry: dict[str, Any]) -> Query:
        """The same question for some of the replicates, ascending, in which a strategy keeps things in `carry`."""
        if len(replicates) == self.R:
            return replace(self, carry=carry)
        index = devices.of(self.rows).sent(torch.tensor(replicates))
        return replace(
            self,
            rows=self.rows[index],
            targets=self.targets[index],
            available=self.available[index],
            seeds=[self.seeds[r] for r in replicates],
            head=None if self.head is None else self.head.of(replicates),
            carry=carry,
        )

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

    def greedily(self, state: Callable[[int], greedy.Alone], budget: int) -> Tensor:
        """Greedy picks of state(r) for every replicate, int64 (R, budget), padded with -1; see `greedy.of_all`.

        `state` shares nothing but what it reads, and its own keeping: on CPU replicates run side by side.
        """
        make = [partial(state, r) for r in range(self.R)]
        return stack_picks(greedy.of_all(make, self.available, budget), budget, self.pool.device)

    def score(self, acquisition: Callable[[Tensor], Tensor]) -> Tensor:
        """One pool pass: acquisition(logits (b, C)) -> (b,) for every replicate; returns (R, N)."""
        assert self.head is not None
        return self.pool.map(lambda phi, logits, rows, r: acquisition(logits), self.head)

    def walk(self, fn: Callable[[Seen], Tensor | tuple[Tensor, ...]]) -> Any:
        """One pool pass with a function of several replicates' logits, (R', b, C); see `alfm.heads.passes.walk`."""
        assert self.head is not None
        return walk(self.pool, self.head, fn)


def stack_picks(picks: Sequence[Tensor], budget: int, device: torch.device) -> Tensor:
    """R vectors of at most `budget` rows -> int64 (R, budget), padded with -1."""
    if all(len(own) == budget for own in picks):
        return torch.stack(list(picks)).to(device, torch.int64)
    out = torch.full((len(picks), budget), -1, dtype=torch.int64, device=device)
    for r, own in enumerate(picks):
        out[r, : len(own)] = own
    return out


def _with(state: S, rows: Tensor) -> S | None:
    """The state with all of rows int64 (n,) added; None unless what it holds comes first among them."""
    added = state.added
    if len(added) and not torch.equal(added, rows[: len(added)].to(added.device)):
        return None
    if len(added) < len(rows):
        state.add(rows[len(added) :])
    return state


def embedding(query: Query, r: int) -> Vectors:
    """phi of replicate r: `rows`, `blocks`, and `matrix` (N, D') where the pool keeps coordinates resident.

    Coordinates of a head with its own scaling per replicate are computed once here instead of at every visit, and
    live as long as the caller holds them: N D' numbers. Not of large pools.
    """
    assert query.head is not None
    vectors = query.pool.vectors(query.head.spaces[r])
    if vectors.matrix is None and query.pool.resident and not query.pool.large:
        vectors.matrix = query.pool.materialise(vectors.space)
    return vectors


@dataclass(frozen=True)
class Embedded:
    """Where a replicate's distances are taken: coordinates of a space, scaled to length 1 where `unit`."""

    vectors: Vectors
    unit: bool = False

    def rows(self, index: Tensor) -> Tensor:
        """Pool rows int64 (m,) -> (m, D')."""
        return self._scaled(self.vectors.rows(index))

    def at(self, rows: slice) -> Tensor:
        """Consecutive pool rows -> (b, D')."""
        return self._scaled(self.vectors.at(rows))

    def _scaled(self, x: Tensor) -> Tensor:
        return unit_rows(x) if self.unit else x


def unit_embedded(query: Query, r: int) -> Embedded:
    """phi / |phi| of replicate r, for distances: see `Features.points`."""
    assert query.head is not None
    space, pool = query.head.spaces[r], query.pool
    if space is RAW and pool.offset:
        return Embedded(pool.points(UNIT))
    return Embedded(pool.vectors(space), unit=True)


def unit_embedding(query: Query, r: int, rows: Tensor) -> Tensor:
    """phi / |phi| of pool rows, int64 (m,) -> (m, D'), for distances."""
    return unit_embedded(query, r).rows(rows)


def per_replicate(query: Query, job: Callable[[int], T]) -> list[T]:
    """job(r) for every replicate, side by side on the CPU's cores with one thread each; results in order."""
    if query.head is not None and query.head.shared:
        query.pool.vectors(query.head.spaces[0])  # made once, before the jobs that share it
    return side_by_side([partial(job, r) for r in range(query.R)], query.pool.device)
