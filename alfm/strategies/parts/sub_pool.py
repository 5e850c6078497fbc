"""Strategies whose work grows with N^2, on pools where that no longer answers: exact on a random part of the pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from alfm.errors import UserError
from alfm.features.features import Features
from alfm.options import Count, checked
from alfm.strategies.base import Need, Strategy
from alfm.strategies.query import Query, stack_picks
from alfm.streams import stream


def part_of(whole: Features, items: Tensor) -> Features:
    """Some rows of a pool, int64 (m,), as a pool of their own."""
    return Features(whole.gather(items), whole.device, views=whole.views_of(items), part_of=whole, finite=True)


def about(
    query: Query, which: Sequence[int], items: Tensor, pool: Features, seeds: Sequence[int], carry: dict[str, Any]
) -> Query:
    """The query of consecutive replicates as it looks on a part of the pool, `pool`: rows int64 (m,), ascending, all
    that one of them has labelled too.

    seeds: of the part's random draws. carry: what the strategy that is asked keeps about this part.
    """
    most = max(query.counts[r] for r in which)
    labelled, targets = (query.some(own, which)[:, :most] for own in (query.rows, query.targets))
    head = None if query.head is None else query.head.part(slice(which[0], which[-1] + 1)).among(items)
    asked = Query(
        pool=pool,
        rows=torch.searchsorted(items, labelled).where(labelled >= 0, -1),
        targets=targets,
        available=query.some(query.available, which).index_select(1, items),
        num_classes=query.num_classes,
        seeds=seeds,
        round=query.round,
        head=head,
        classifier=query.classifier,
        carry=carry,
    )
    asked.counts = [query.counts[r] for r in which]  # known already
    return asked


@dataclass(eq=False)
@checked
class Subsampled(Strategy):
    """`strategy`, asked about `sample` random items of the pool and what is labelled, whatever strategy it is.

    Both candidates and targets come from that part, which a replicate's own stream draws once per run, so that what the
    strategy keeps between rounds stays right and a resumed run sees the same part. At least 20 x budget items are
    drawn when there are as many. Cost: that of the strategy on so many items; memory O(sample D) for each replicate.
    """

    strategy: Strategy
    sample: Count = 50_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strategy.oracle or self.strategy.lists_rows:
            why = "sees hidden labels of the whole pool" if self.strategy.oracle else "was given rows of the whole pool"
            raise UserError(f"{self.strategy.name} {why} and cannot be asked about a part: ask it about all of it.")

    @property
    def needs_head(self) -> bool:  # type: ignore[override]
        return self.strategy.needs_head

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return True

    @property
    def needs(self) -> Sequence[Need] | None:  # type: ignore[override]
        return self.strategy.needs

    @property
    def measures(self) -> Sequence[Literal["raw", "unit", "head"]]:  # type: ignore[override]
        return self.strategy.measures

    @property
    def repairs_near(self) -> bool:  # type: ignore[override]
        return self.strategy.repairs_near

    def clusters_part(self, items: int) -> bool:
        return self.strategy.clusters_part(min(items, self.sample))

    @property
    def refits(self) -> bool:  # type: ignore[override]
        return self.strategy.refits

    def select(self, query: Query, budget: int) -> Tensor:
        # of this round alone, or a resumed run with growing batches saw another part
        size = max(self.sample, 20 * budget)
        picks = []
        for r in range(query.R):
            part = self._part(query, r, size)
            asked = part.query(query, r)
            own = self.strategy.select(asked, min(budget, int(asked.available.sum())))[0]
            picks.append(part.items[own[own >= 0]])
        return stack_picks(picks, budget, query.pool.device)

    def _part(self, query: Query, r: int, size: int) -> _Part:
        labelled = query.labelled(r)

        def fits(part: _Part) -> bool:
            return part.size == size and bool(torch.isin(labelled, part.items).all())

        return query.kept(f"{self.strategy.name} on a part", r, lambda: _Part(query, r, size), fits)


class _Part:
    """A part of the pool: `size` random items and what was labelled by then; items: pool rows int64 (m,), ascending.

    added: labelled rows, all of them among the items. carry: what the strategy keeps about this part.
    """

    def __init__(self, query: Query, r: int, size: int) -> None:
        whole = query.pool
        rows = stream(query.seeds[r], 0, "sample").choice(whole.N, min(size, whole.N), replace=False)
        self.size, self.added = size, query.labelled(r)
        self.items = torch.cat([torch.from_numpy(rows).to(whole.device), self.added]).unique()
        self.pool = part_of(whole, self.items)
        self.carry: dict[str, Any] = {}

    def add(self, rows: Tensor) -> None:
        """Labelled since."""
        self.added = torch.cat([self.added, rows])

    def query(self, query: Query, r: int) -> Query:
        """Replicate r's query as it looks on this part."""
        return about(query, [r], self.items, self.pool, [query.seeds[r]], self.carry)
