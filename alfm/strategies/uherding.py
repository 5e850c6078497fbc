"""UHerding: Bae et al. 2025, "Uncertainty herding: one active learning method for all label budgets" (2412.20644)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm.acquisition import margin_uncertainty
from alfm.geometry.herding import Herding, prepare
from alfm.geometry.herding_lists import make_lists
from alfm.geometry.kernels import RBF, rbf
from alfm.geometry.pairs import smallest_distance
from alfm.host_ops import widened
from alfm.metrics import ECE_BINS, calibration_error
from alfm.options import Count, Whole, checked
from alfm.strategies.base import Strategy
from alfm.strategies.parts.sub_pool import Subsampled
from alfm.strategies.query import Query
from alfm.threads import side_by_side

BLOCK = 1 << 20  # numbers held at once while temperatures are compared


@dataclass(eq=False)
@checked
class UHerding(Strategy):
    """MaxHerding with each target weighted by its uncertainty 1 - (p1 - p2) (section 3).

    Two parameters adapt to the budget (section 3.3). Temperature: the one in 1.0, 1.1, ... 20 with the smallest
    expected calibration error of a head fitted on 70 % of the labels and measured on the others; 1 while a labelled
    class has fewer than two (classes never seen are left out), and for a model from elsewhere, which nobody refits.
    Kernel width: the smallest positive distance between labelled items, 1 if there is none.
    Labelled targets weigh 0; with no labels it is MaxHerding. Which pairs (item, target) can still gain depends on
    neither weights nor widths, so they are listed once per run, as for MaxHerding.
    Cost: two fits, once O(N^2 D), then O(N^2 / n); memory O(N^2 / n).
    Pools above `exact_up_to` items: candidates and targets are `sample` random items of the replicate's own stream.
    """

    needs = ("features", "probabilities")
    needs_head = False
    stochastic = True
    measures = ("unit",)
    refits = True
    held_out: Annotated[float, Ge(0), Le(0.9)] = 0.3
    exact_up_to: Whole = 200_000
    sample: Count = 50_000

    def select(self, query: Query, budget: int) -> Tensor:
        if query.pool.N > self.exact_up_to:
            return Subsampled(self.varied(exact_up_to=query.pool.N), self.sample).select(query, budget)
        unit = query.pool.points()
        labelled = [query.labelled(r) for r in range(query.R)]
        weight = torch.ones(query.R, query.pool.N, dtype=query.pool.dtype, device=query.pool.device)
        if query.head is not None:
            own = [partial(self._temperature, query, r) for r in range(query.R)]
            temperature = weight.new_tensor(side_by_side(own, query.pool.device))[:, None, None]
            weight = query.walk(lambda seen: margin_uncertainty(seen.logits / temperature[seen.replicates]))
        for r, rows in enumerate(labelled):
            weight[r, rows] = 0
        kernels = [rbf(unit, smallest_distance(unit.rows(rows), unit.level)) for rows in labelled]
        lists = query.kept_of(
            self.name, range(query.R), lambda missing: make_lists(unit, RBF(), [labelled[r] for r in missing])
        )
        rest = [r for r, one in enumerate(lists) if one is None]
        others: dict[int, Herding] = {}
        if rest:
            made = prepare(unit, [kernels[r] for r in rest], [labelled[r] for r in rest], weight[rest])
            others |= zip(rest, made, strict=True)

        def select(r: int) -> Tensor:
            own = lists[r]
            if own is None:
                return others[r].select(query.available[r], budget)
            own.prune(1.0)
            return own.at(kernels[r], weight[r]).select(query.available[r], budget)

        return query.each(select, budget)

    def _temperature(self, query: Query, r: int) -> float:
        """The temperature of smallest calibration error on held-out labels, by replicate r's own split."""
        rows, labels = query.labelled(r), query.labels_of(r)
        counts = torch.bincount(labels, minlength=query.num_classes)
        if query.classifier is None or not len(rows) or int(counts[counts > 0].min()) < 2:
            return 1.0
        order = torch.from_numpy(query.rng(r, "calibration").permutation(len(rows))).to(rows.device)
        held = order[: max(1, round(self.held_out * len(rows)))]
        rest = order[len(held) :]
        assert query.classifier is not None
        head = query.classifier.fit(
            query.pool, rows[rest][None], labels[rest][None], query.num_classes, query.seeds[r : r + 1], query.round
        )
        logits = head.logits(query.pool.vectors(head.spaces[0]).rows(rows[held]), 0)
        hit = (logits.argmax(1) == labels[held]).to(widened(logits).device)
        temperatures = torch.arange(10, 201, dtype=logits.dtype, device=logits.device) / 10
        errors = torch.cat(
            [
                calibration_error(widened(torch.softmax(logits / some[:, None, None], 2).amax(2)), hit)
                for some in temperatures.split(max(1, BLOCK // (len(held) * ECE_BINS)))
            ]
        )
        return float(temperatures[errors.argmin()])  # argmin: the first of equals
