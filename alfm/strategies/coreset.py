"""Core-set selection by k-center: Sener & Savarese 2018 (1708.00489), algorithms 1 and 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le, Lt
from torch import Tensor

from alfm.errors import UserError
from alfm.features.features import Vectors
from alfm.features.spaces import RAW, UNIT, Space, unit_rows
from alfm.geometry.kcenter import FarthestFirst
from alfm.geometry.robust_kcenter import robust_k_center
from alfm.options import Count, checked
from alfm.strategies.base import Need, Strategy
from alfm.strategies.query import Query


@dataclass(eq=False)
@checked
class Coreset(Strategy):
    """Repeatedly the available item farthest from everything labelled or picked.

    space: `raw` features or the `head`'s embedding phi; metric: `l2` or `cosine`. The distances found so far are kept
    between rounds (in raw space they never change). robust: None, or the share of the pool that may stay uncovered:
    the mixed-integer form (algorithm 2), for pools of at most `most` items; a batch that needs fewer centres is
    completed by the greedy rule.
    Cost: O(N D (n + B)) at most, a small part of it after the first query; memory O(N), robust O(N^2).
    """

    space: Literal["raw", "head"] = "raw"
    metric: Literal["l2", "cosine"] = "l2"
    robust: Annotated[float, Ge(0), Lt(1)] | None = None
    most: Count = 2000
    seconds: Annotated[float, Ge(0.01), Le(1e6)] = 10.0

    @property
    def needs_head(self) -> bool:  # type: ignore[override]
        return self.space == "head"

    @property
    def needs(self) -> Sequence[Need]:  # type: ignore[override]
        return ("embedding",) if self.space == "head" else ("features",)

    @property
    def measures(self) -> Sequence[Literal["raw", "head"]]:  # type: ignore[override]
        return (self.space,)

    def select(self, query: Query, budget: int) -> Tensor:
        vectors, metric = zip(*(self._points(query, r) for r in range(query.R)), strict=True)

        def state(r: int) -> FarthestFirst:
            def fits(old: FarthestFirst) -> bool:
                return old.vectors is vectors[r] and old.metric == metric[r]

            return query.kept(self.name, r, lambda: FarthestFirst(vectors[r], metric[r]), fits)

        picks = query.greedily(state, budget)
        if self.robust is not None:
            kept = query.carry[self.name]

            def robust(r: int) -> Tensor:
                return self._robust(kept[r], query.labelled(r), query.available[r], picks[r][picks[r] >= 0])

            return query.each(robust, budget)
        return picks

    def _robust(self, state: FarthestFirst, labelled: Tensor, available: Tensor, found: Tensor) -> Tensor:
        """The mixed-integer batch; the greedy one completes it where it needs fewer centres."""
        assert self.robust is not None
        N = state.vectors.N
        if N > self.most or not 0 <= self.robust < 1:
            raise UserError(
                f"{self.name} robust={self.robust} needs a share in [0, 1) and a pool of at most {self.most} items "
                f"({N} here, {8 * N * N / 2**30:.1f} GiB of distances): use robust=null, or a smaller pool."
            )
        x = torch.cat([block for _, block in state.vectors.blocks()]).double()
        x = unit_rows(x) if state.metric == "cosine" else x
        distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").cpu().numpy()
        picks, _ = robust_k_center(
            distance,
            labelled.cpu().numpy(),
            available.cpu().numpy(),
            found.cpu().numpy(),
            int(self.robust * N),
            self.seconds,
        )
        chosen = torch.from_numpy(picks).to(found.device)
        rest = FarthestFirst(state.vectors, state.metric)
        rest.add(torch.cat([labelled, chosen]))
        free = available.clone()
        free[chosen] = False
        return torch.cat([chosen, rest.select(free, len(found) - len(chosen))])

    def _points(self, query: Query, r: int) -> tuple[Vectors, Literal["l2", "cosine"]]:
        """Where distances are taken for replicate r, and which."""
        space: Space = RAW
        if self.space == "head":
            assert query.head is not None
            space = query.head.spaces[r]
        if self.metric == "cosine" and space is RAW and query.pool.offset:
            return query.pool.points(UNIT), "l2"  # whose coordinates keep their digits
        return query.pool.points(space), self.metric
