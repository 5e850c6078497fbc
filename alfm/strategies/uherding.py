"""UHerding: Bae et al. 2025, "Uncertainty herding: one active learning method for all label budgets" (2412.20644)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alfm import devices
from alfm.acquisition import margin_uncertainty
from alfm.features.features import Vectors
from alfm.geometry.greedy import Alone
from alfm.geometry.herding import Herding, prepare
from alfm.geometry.herding_lists import make_lists
from alfm.geometry.kernels import RBF, filled, rbf
from alfm.geometry.pairs import smallest_distance, smallest_distances
from alfm.host_ops import widened
from alfm.metrics import ECE_BINS, calibration_error
from alfm.options import Count, Whole, checked
from alfm.strategies.base import Strategy
from alfm.strategies.parts.herding import near_pairs
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
    neither weights nor widths, so they are listed once per run, as for MaxHerding; on a GPU in its own memory, where
    there is room.
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

    def joins_parts(self, items: int) -> bool:
        return items <= self.exact_up_to

    def select(self, query: Query, budget: int) -> Tensor:
        if query.pool.N > self.exact_up_to:
            return Subsampled(self.varied(exact_up_to=query.pool.N), self.sample).select(query, budget)
        unit = query.pool.points()
        labelled = [query.labelled(r) for r in range(query.R)]
        weight = torch.ones(query.R, query.pool.N, dtype=query.pool.dtype, device=query.pool.device)
        if query.head is not None:
            temperature = self._temperatures(query)[:, None, None].to(weight.dtype)
            weight = query.walk(lambda seen: margin_uncertainty(seen.logits / temperature[seen.replicates]))
        if query.members is not None:
            known = torch.zeros_like(weight)
            for own, rows in zip(known, query.members, strict=True):
                own.index_fill_(0, rows, 1.0)
            weight.mul_(known)
        for r, rows in enumerate(labelled):
            weight[r].index_fill_(0, rows, 0.0)
        kernels = [rbf(unit, width) for width in self._widths(unit, labelled)]
        lists = query.kept_of(
            self.name, range(query.R), lambda missing: make_lists(unit, RBF(), [labelled[r] for r in missing])
        )
        rest = [r for r, one in enumerate(lists) if one is None]
        others: dict[int, Herding] = {}
        if rest:
            pairs = near_pairs(query, self.name, unit, rest)
            made = prepare(unit, [kernels[r] for r in rest], [labelled[r] for r in rest], weight[rest], pairs=pairs)
            others |= zip(rest, made, strict=True)

        def state(r: int) -> Alone:
            own = lists[r]
            if own is None:
                return others[r]
            own.prune(1.0)
            return own.at(kernels[r], weight[r])

        return query.greedily(state, budget)

    @staticmethod
    def _widths(unit: Vectors, labelled: Sequence[Tensor]) -> list[float]:
        """Each replicate's kernel width."""
        if not unit.pool.joins_replicates or not all(map(len, labelled)):
            return [smallest_distance(unit.rows(rows), unit.level) for rows in labelled]
        rows = filled(labelled)
        found: list[float] = smallest_distances(unit.rows(rows.flatten()).unflatten(0, rows.shape), unit.level).tolist()
        return found

    def _temperatures(self, query: Query) -> Tensor:
        """The temperature (R,) of smallest calibration error on held-out labels, by each replicate's own split."""
        device, found = query.pool.device, torch.ones(query.R, dtype=query.pool.dtype, device=query.pool.device)
        splits = self._splits(query)
        if query.classifier is None or not splits:
            return found
        rows = _stacked([one.rest for one in splits], device)
        labels = _stacked([one.rest_labels for one in splits], device)
        seeds = [query.seeds[one.r] for one in splits]
        head = query.classifier.fit(query.pool, rows, labels, query.num_classes, seeds, query.round)

        def best(places: Sequence[int]) -> None:
            """Of replicates with as many held-out items: the first temperature of smallest error."""
            held = torch.stack([splits[i].held for i in places]).to(device)
            logits = torch.stack(
                [
                    head.logits(query.pool.vectors(head.spaces[i]).rows(own), i)
                    for i, own in zip(places, held, strict=True)
                ]
            )
            labels = torch.stack([splits[i].held_labels for i in places]).to(device)
            hit = (logits.argmax(2) == labels).to(widened(logits).device)
            temperatures = torch.arange(10, 201, dtype=logits.dtype, device=logits.device) / 10
            errors = torch.cat(
                [
                    calibration_error(widened(torch.softmax(logits / some[:, None, None, None], 3).amax(3)), hit)
                    for some in temperatures.split(max(1, BLOCK // (held.numel() * ECE_BINS)))
                ]
            )
            least = temperatures.index_select(0, errors.argmin(0).to(device))  # argmin: the first of equals
            for i, own in zip(places, least, strict=True):
                found[splits[i].r] = own

        lengths: dict[int, list[int]] = {}
        for i, one in enumerate(splits):
            lengths.setdefault(len(one.held) if query.pool.joins_replicates else -i, []).append(i)
        side_by_side([partial(best, places) for places in lengths.values()], device)
        return found

    def _splits(self, query: Query) -> list[_Split]:
        """Of the replicates of whose classes none that has labels has fewer than two, made on the host."""
        splits = []
        for r, (rows, labels) in enumerate(zip(query.rows.cpu(), query.targets.cpu(), strict=True)):
            labels, rows = labels[rows >= 0], rows[rows >= 0]
            counts = torch.bincount(labels, minlength=query.num_classes)
            if len(rows) and int(counts[counts > 0].min()) >= 2:
                order = torch.from_numpy(query.rng(r, "calibration").permutation(len(rows)))
                held, rest = order.tensor_split([max(1, round(self.held_out * len(rows)))])
                splits.append(_Split(r, rows[held], labels[held], rows[rest], labels[rest]))
        return splits


class _Split(NamedTuple):
    """Replicate r's labels, int64 on the host: held out, and the rest."""

    r: int
    held: Tensor
    held_labels: Tensor
    rest: Tensor
    rest_labels: Tensor


def _stacked(own: Sequence[Tensor], device: torch.device) -> Tensor:
    """int64 (R, n), padded with -1."""
    return devices.of(device).sent(pad_sequence(list(own), batch_first=True, padding_value=-1))
