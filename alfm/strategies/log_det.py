"""Log-determinant, plain and about a query set: Kothawade et al. 2021, SIMILAR (2107.00717), table 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor

from alfm.geometry import greedy
from alfm.geometry.kernels import Dot
from alfm.geometry.submodular import Volume, determinant_information
from alfm.options import Rows, Share, checked
from alfm.results.row_numbers import Counted
from alfm.strategies.base import Strategy
from alfm.strategies.parts.cosines import cosines
from alfm.strategies.parts.query_set import QuerySet
from alfm.strategies.query import Query


@dataclass(eq=False)
@checked
class LogDet(Strategy):
    """Greedily maximises log det(S_A + ridge I) of the cosine similarities of everything labelled or picked.

    With a query set (see `FacilityLocation`) the batch maximises LOGDETMI, its mutual information with the set.
    Cost: O(N D n + B N (D + n + B)) at most; memory O(N + (n + B)^2).
    """

    needs = ("features",)
    name = "log_det"
    needs_head = False
    row_options = ("query_rows",)
    query_rows: Rows = ()
    query_classes: Rows = ()
    ridge: Annotated[float, Ge(1e-6), Le(1e6)] = 0.01
    eta: Share = 1.0
    rows: Counted | None = None

    def select(self, query: Query, budget: int) -> Tensor:
        unit, shown = cosines(query.pool, self.name), QuerySet(self.query_rows, self.query_classes)
        sets = shown.of_each(query)
        volumes = Volume.each(unit, Dot(), self.ridge, [query.labelled(r) for r in range(query.R)])
        if not any(map(len, sets)):
            return query.greedily(lambda r: volumes[r](), budget)

        def select(r: int) -> Tensor:
            free = query.available[r]
            if len(sets[r]):
                return determinant_information(unit, Dot(), sets[r], free, budget, self.eta, self.ridge)
            return greedy.of_one(volumes[r](), free, budget)

        return query.each(select, budget)
