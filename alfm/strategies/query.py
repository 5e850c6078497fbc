"""What a query strategy sees: one round's question, and the coordinates of its heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from alfm.features.features import Features, Vectors
from alfm.features.spaces import RAW, UNIT, unit_rows
from alfm.heads.base import Classifier
from alfm.heads.linear import LinearHead
from alfm.posteriors.base import Draws, Posterior
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


@dataclass
class Query:
    """One round's question, for R replicates.

    pool: the features. rows (R, n) int64: labelled pool rows in the order picked, padded with -1; targets (R, n)
    int64: their classes (padding -1). available (R, N) bool: may be picked. head: fitted on rows, or None at a cold
    start; classifier: how heads are fitted, on all augmented views where there are some. seeds: one per replicate;
    round: 1 is the cold start's. carry: what a strategy keeps from round to round (distances so far, covered flags).
    It must be a pure function of pool and picks: after a resume it starts empty and is rebuilt. oracle: hidden
    labels and the test split, for strategies marked `oracle` only.
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


def stack_picks(picks: Sequence[Tensor], budget: int, device: torch.device) -> Tensor:
    """R vectors of at most `budget` rows -> int64 (R, budget), padded with -1."""
    out = torch.full((len(picks), budget), -1, dtype=torch.int64, device=device)
    for r, own in enumerate(picks):
        out[r, : len(own)] = own
    return out


T = TypeVar("T")


def embedding(query: Query, r: int) -> Vectors:
    """phi of replicate r: `rows`, `blocks`, and `matrix` (N, D') where the pool keeps coordinates resident.

    Coordinates of a head with its own scaling per replicate are computed once here instead of at every visit, and
    live as long as the caller holds them: N D' numbers.
    """
    assert query.head is not None
    vectors = query.pool.vectors(query.head.spaces[r])
    if vectors.matrix is None and query.pool.resident:
        vectors.matrix = query.pool.materialise(vectors.space)
    return vectors


def unit_embedding(query: Query, r: int, rows: Tensor) -> Tensor:
    """phi / |phi| of pool rows, int64 (m,) -> (m, D'), for distances: see `Features.points`."""
    assert query.head is not None
    space, pool = query.head.spaces[r], query.pool
    if space is RAW and pool.offset:
        return pool.points(UNIT).rows(rows)
    return unit_rows(pool.vectors(space).rows(rows))


def per_replicate(query: Query, job: Callable[[int], T]) -> list[T]:
    """job(r) for every replicate, side by side on the CPU's cores with one thread each; results in order."""
    if query.head is not None and query.head.shared:
        query.pool.vectors(query.head.spaces[0])  # made once, before the jobs that share it
    return side_by_side([partial(job, r) for r in range(query.R)], query.pool.device)
