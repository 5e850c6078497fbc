"""When `switched` goes over to its second strategy: from what a round's query shows, of which nothing is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm.options import Share, Whole, checked
from alfm.strategies.base import Need
from alfm.strategies.query import Query, per_replicate


@runtime_checkable
class SwitchRule(Protocol):
    """What `after=` names."""

    def ready(self, query: Query) -> list[bool]:
        """Of each replicate: is it the second strategy's turn? A pure function of the query, whose heads are fitted."""
        ...


@dataclass(eq=False)
@checked
class AfterRounds:
    """The first `rounds` queries after the initial set are the first strategy's."""

    rounds: Whole = 3

    def ready(self, query: Query) -> list[bool]:
        """See `SwitchRule`."""
        return [query.round - 1 > self.rounds] * query.R


@dataclass(eq=False)
@checked
class AfterLabels:
    """From `per_class` labels for each class on, those without a label counted too."""

    per_class: Annotated[float, Ge(0), Le(1e6)] = 3.0

    def ready(self, query: Query) -> list[bool]:
        """See `SwitchRule`."""
        return [len(query.labelled(r)) >= self.per_class * query.num_classes for r in range(query.R)]


@dataclass(eq=False)
@checked
class AfterAgreement:
    """Once the head can be believed: on at least `share` of the items without a label it predicts the class of the
    nearest labelled item, and there are `per_class` labels for each class.

    While classes are still being found, or lie across the clusters that coverage follows, head and neighbour contradict
    each other, and a strategy that works from predictions is misled. Nearest by unit features, of equals the lower row.
    Where share comes from, and on which data it did what: benchmarks/README.md.
    Cost: O(N D (C + n)); memory O(N).
    """

    needs: ClassVar[Sequence[Need]] = ("features", "probabilities", "labels")
    share: Share = 0.7
    per_class: Annotated[float, Ge(0), Le(1e6)] = 2.0

    def ready(self, query: Query) -> list[bool]:
        """See `SwitchRule`."""
        enough = AfterLabels(self.per_class).ready(query)
        if not any(enough):
            return enough
        predicted = query.walk(lambda seen: seen.logits.argmax(-1))
        nearest = per_replicate(query, lambda r: nearest_label(query, r))
        agree = [float((predicted[r] == near)[query.available[r]].double().mean()) for r, near in enumerate(nearest)]
        return [ready and value >= self.share for ready, value in zip(enough, agree, strict=True)]


def nearest_label(query: Query, r: int) -> Tensor:
    """The class of the labelled item nearest to each item of the pool, by replicate r's labels; int64 (N,)."""
    unit = query.pool.points()
    rows, order = query.labelled(r).sort()
    known, labels = unit.rows(rows), query.labels_of(r)[order]
    half = -0.5 * torch.linalg.vecdot(known, known)
    return labels[torch.cat([torch.addmm(half, x, known.T).argmax(1) for _, x in unit.blocks()])]
