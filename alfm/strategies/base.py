"""What a query strategy is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from torch import Tensor

from alfm.errors import UserError
from alfm.strategies.query import Query

if TYPE_CHECKING:
    from alfm.results.row_numbers import RowNumbers

Need = Literal["features", "embedding", "labels", "probabilities", "draws", "head"]
"""What picks are made from. features: the pool's, wherever they come from; embedding: what the model's last layer sees;
labels: at least one; probabilities: the model's, of every item; draws: of M models; head: its weights, or refits."""


class Strategy(ABC):
    """A query strategy. Subclass it anywhere and name it by `_target_` in a config.

    Say what its options may be in their annotations and decorate it with `alfm.options.checked`; or check nothing.

    name: what a user types to get it: the config's name where it was built from one, otherwise the class's; no option.
    needs_head: wants a fitted head, so it cannot be a cold start. stochastic: other seeds give other picks. oracle:
    sees hidden labels (a ceiling for benchmarks, never a method). refits: fits heads of its own with the query's
    classifier (as does one whose `posterior` says so). measures: the spaces in which it takes distances by
    `Features.points`; repairs_near: takes those of near pairs from differences (see `Simulation.behaviour`).
    """

    name: str
    needs_head: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False
    oracle: ClassVar[bool] = False
    measures: ClassVar[Sequence[Literal["raw", "unit", "head"]]] = ()
    repairs_near: ClassVar[bool] = False
    refits: ClassVar[bool] = False
    needs: ClassVar[Sequence[Need] | None] = None
    """All that it works from, so that a model from elsewhere can serve (`alfm.select_batch`). None: nobody has said."""

    row_options: ClassVar[tuple[str, ...]] = ()
    """Options that list row numbers. A strategy with some has an option `rows`: what they count, see `in_pool`."""

    limits: ClassVar[dict[str, tuple[float, float]]] = {}
    """Lowest and highest values of numeric options, for classes from before `checked`; None passes."""

    def __init_subclass__(cls) -> None:
        """A class that does not say its `name` is called as it is written, in small letters; one that picks otherwise
        than what it inherits from says for itself whether it `joins_parts`."""
        super().__init_subclass__()
        first = {name: i for i, one in reversed([*enumerate(cls.__mro__)]) for name in vars(one)}  # who defines it
        if min(first["select"], first.get("score", first["select"])) < first["joins_parts"]:
            cls.joins_parts = Strategy.joins_parts  # type: ignore[method-assign]
        if "name" not in vars(cls) and isinstance(getattr(cls, "name", ""), str):
            cls.name = cls.__name__.lower()

    def __post_init__(self) -> None:
        """Refuses a number outside `limits`; UserError."""
        for option, (low, high) in self.limits.items():
            value = getattr(self, option)
            if value is not None and not low <= value <= high:
                raise UserError(f"{self.name} {option}={value}: must lie between {low:g} and {high:g}.")

    def clusters_part(self, items: int) -> bool:
        """On a pool of so many items, does its k-means learn from a part of its candidates, or does it look for near
        pairs in a part? It may; few candidates are all seen."""
        most: int | None = getattr(self, "cluster_up_to", None)
        return most is not None and items > most

    def joins_parts(self, items: int) -> bool:
        """Where replicates have other parts of a pool (`Query.members`), so many items together: may it be asked about
        all of them at once? It then looks at no other items and heeds `Query.budgets`, or its picks stand in an order
        that does not depend on how many are wanted."""
        return False

    @property
    def lists_rows(self) -> bool:
        """Was it given row numbers?"""
        return any(self._rows_of(option) for option in self.row_options)

    def in_pool(self, numbers: RowNumbers) -> Strategy:
        """The strategy with the row numbers that it was given as rows of the pool, which are all that `select` knows.

        Itself where there are none. Raises UserError for rows that are not in the pool, and where it is not said
        whether they count the cache's rows or the pool's and this makes a difference.
        """
        if not self.lists_rows:
            return self
        turned: dict[str, Any] = {"rows": "pool"}
        for option in self.row_options:
            what, given = f"query_strategy.{option}", self._rows_of(option)
            own = numbers.listed(given, getattr(self, "rows", None), what, "query_strategy.rows")
            if (own < 0).any():
                raise numbers.not_in_pool(what, given[int((own < 0).argmax())])
            turned[option] = own.tolist()
        return self.varied(**turned)

    def varied(self, **options: Any) -> Self:
        """The same strategy, a dataclass, with other options, under the same name."""
        other = replace(self, **options)  # type: ignore[type-var]  # one with options is a dataclass
        other.name = self.name
        return other

    def _rows_of(self, option: str) -> list[int]:
        given = getattr(self, option)
        return [] if given is None else list(given)

    @abstractmethod
    def select(self, query: Query, budget: int) -> Tensor:
        """Up to `budget` available items per replicate in the order preferred: int64 (R, budget), -1 = none.

        `budget` never exceeds the number of available items. The caller completes what is -1 at random and counts it.
        """
