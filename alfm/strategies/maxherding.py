"""MaxHerding: Bae et al. 2024, "Generalized coverage for more robust low-budget active learning" (2407.12212)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor

from alfm.geometry.herding import prepare
from alfm.geometry.kernels import rbf
from alfm.options import Count, Whole, checked
from alfm.strategies.base import Strategy
from alfm.strategies.parts.herding import herders, near_pairs
from alfm.strategies.parts.sub_pool import Subsampled
from alfm.strategies.query import Query


@dataclass(eq=False)
@checked
class MaxHerding(Strategy):
    """Greedily maximises the generalised coverage mean_n max_s k(u_n, u_s), s labelled or picked (eq. 3, algorithm 1).

    k = exp(-(d / width)^2) on unit features. Lazy greedy is exact, since the coverage is submodular. Needs no label, so
    it is a cold start too. Kept between rounds: per replicate the list of pairs (item, target) that can still gain,
    about N^2 / (n + 1) of 8 bytes (at most 96 MiB, on CPU; of 12 on a GPU with room for them), or, where that is too
    long, every target's coverage and every item's last gain.
    Cost: once O(N^2 D), then O(N^2 / n); memory O(N^2 / n).
    Pools above `exact_up_to` items: candidates and targets are `sample` random items of the replicate's own stream.
    """

    needs = ("features",)
    needs_head = False
    measures = ("unit",)
    width: Annotated[float, Ge(1e-6), Le(1e6)] = 1.0
    exact_up_to: Whole = 200_000
    sample: Count = 50_000

    def select(self, query: Query, budget: int) -> Tensor:
        if query.pool.N > self.exact_up_to:
            return Subsampled(self.varied(exact_up_to=query.pool.N), self.sample).select(query, budget)
        unit = query.pool.points()
        kernel, every = rbf(unit, self.width), range(query.R)
        pairs = near_pairs(query, self.name, unit, every)
        if pairs is None:
            states = herders(query, self.name, unit, kernel, every)
            return query.greedily(states.__getitem__, budget)
        made = prepare(unit, kernel, [query.labelled(r) for r in every], pairs=pairs)
        return query.greedily(made.__getitem__, budget)
