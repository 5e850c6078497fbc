"""When `switched` goes over to its second strategy: from what a round's query shows, of which nothing is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

from annotated_types import Ge, Le

from alfm.options import Whole, checked
from alfm.strategies.query import Query


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
