"""Graph cut, plain and about a query set: Kothawade et al. 2021, SIMILAR (2107.00717), table 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm.features.features import Features
from alfm.geometry import greedy
from alfm.geometry.kernels import Dot
from alfm.geometry.submodular import Cut, cut_information, total_similarity
from alfm.geometry.topk import top
from alfm.options import Rows, checked
from alfm.results.row_numbers import Counted
from alfm.strategies.base import Strategy
from alfm.strategies.parts.cosines import cosines
from alfm.strategies.parts.query_set import QuerySet
from alfm.strategies.query import Query


@dataclass(eq=False)
@checked
class GraphCut(Strategy):
    """Similar to the whole pool, but not to what is labelled or picked: sum_n s_xn - trade (2 sum_A s_xa + s_xx).

    Cosine similarities, negative counts as 0. With a query set (see `FacilityLocation`) the batch is the B items most
    similar to it (GCMI, which is modular). Gains only fall, so those of earlier rounds are kept as bounds.
    Cost: once O(N^2 D), then O(B N D) at most; memory O(N + n D).
    """

    needs = ("features",)
    name = "graph_cut"
    needs_head = False
    row_options = ("query_rows",)
    query_rows: Rows = ()
    query_classes: Rows = ()
    trade: Annotated[float, Ge(0), Le(1e6)] = 0.5
    rows: Counted | None = None

    def select(self, query: Query, budget: int) -> Tensor:
        unit, shown = cosines(query.pool, self.name), QuerySet(self.query_rows, self.query_classes)
        sets = shown.of_each(query)
        if not all(map(len, sets)):
            total = query.pool.once("total similarity", lambda: _total(query.pool))

        def cut(r: int) -> Cut:
            return query.kept(self.name, r, lambda: Cut(unit, Dot(), total, self.trade))

        if not any(map(len, sets)):
            return query.greedily(cut, budget)

        def select(r: int) -> Tensor:
            if len(sets[r]):
                return top(cut_information(unit, Dot(), sets[r]), query.available[r], budget)
            return greedy.of_one(cut(r), query.available[r], budget)

        return query.each(select, budget)


def _total(pool: Features) -> Tensor:
    """Every item's similarity to the whole pool, (N,)."""
    found = pool.unit.arrays("total cosine", lambda: {"total": total_similarity(pool.unit, Dot()).cpu().numpy()})
    return torch.from_numpy(found["total"]).to(pool.device)
