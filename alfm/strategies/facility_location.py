"""Facility location, plain and about a query set: Kothawade et al. 2021, SIMILAR (2107.00717), table 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le
from torch import Tensor

from alfm.geometry.kernels import Dot
from alfm.geometry.submodular import location_information, query_location
from alfm.options import Rows, checked
from alfm.results.row_numbers import Counted
from alfm.strategies.base import Strategy
from alfm.strategies.parts.cosines import cosines
from alfm.strategies.parts.herding import herders
from alfm.strategies.parts.query_set import QuerySet
from alfm.strategies.query import Query


@dataclass(eq=False)
@checked
class FacilityLocation(Strategy):
    """Every item of the pool should have something similar (cosine, negative counts as 0) labelled or picked.

    query_rows, query_classes: examples of what is looked for (rows, or whatever is labelled with these classes). The
    batch then maximises their mutual information. form `flvmi`: every item of the pool counts, up to `eta` times its
    similarity to the query set; `flqmi`: the set's own coverage, plus `eta` times each pick's similarity to the set.
    While the set is empty the plain function is used. Lazy greedy is exact.
    Cost: once O(N^2 D), then O(N^2 / n); memory O(N^2 / n).
    """

    needs = ("features",)
    name = "facility_location"
    needs_head = False
    row_options = ("query_rows",)
    query_rows: Rows = ()
    query_classes: Rows = ()
    eta: Annotated[float, Ge(0), Le(1e6)] = 1.0
    form: Literal["flvmi", "flqmi"] = "flvmi"
    rows: Counted | None = None

    def select(self, query: Query, budget: int) -> Tensor:
        unit, shown = cosines(query.pool, self.name), QuerySet(self.query_rows, self.query_classes)
        sets = shown.of_each(query)
        plain = [r for r in range(query.R) if not len(sets[r])]
        about = [r for r in range(query.R) if len(sets[r])]
        made = herders(query, self.name, unit, Dot(), plain)
        if about:
            # what is labelled is not there to represent the query set: it is the query set, in part
            chosen = [query.rows[r, :0] for r in about]
            shown_to = [sets[r] for r in about]
            if self.form == "flvmi":
                found = location_information(unit, Dot(), chosen, shown_to, self.eta)
            else:
                pairs = zip(chosen, shown_to, strict=True)
                found = [query_location(unit, Dot(), none, some, self.eta) for none, some in pairs]
            made = made | dict(zip(about, found, strict=True))
        return query.greedily(made.__getitem__, budget)
