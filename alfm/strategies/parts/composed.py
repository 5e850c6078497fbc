"""What strategies that ask other strategies have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

from alfm.errors import UserError
from alfm.strategies.base import Need, Strategy


class Composed(Strategy):
    """A strategy that asks others: what they need, measure and fit, it does.

    Raises UserError for one that was given row numbers (`epig` its targets): they are translated where a strategy
    stands alone.
    """

    @property
    @abstractmethod
    def asks(self) -> Sequence[Strategy]:
        """The strategies that it may ask."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for one in self.asks:
            if one.lists_rows:
                raise UserError(f"{self.name} asks {one.name}, which was given row numbers: give it none.")

    @property
    def needs_head(self) -> bool:  # type: ignore[override]
        return any(one.needs_head for one in self.asks)

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return any(one.stochastic for one in self.asks)

    @property
    def oracle(self) -> bool:  # type: ignore[override]
        return any(one.oracle for one in self.asks)

    @property
    def needs(self) -> Sequence[Need] | None:  # type: ignore[override]
        found: list[Need] = []
        for one in self.asks:
            if one.needs is None:
                return None
            found += [need for need in one.needs if need not in found]
        return found

    @property
    def measures(self) -> Sequence[Literal["raw", "unit", "head"]]:  # type: ignore[override]
        return sorted({space for one in self.asks for space in one.measures})

    @property
    def repairs_near(self) -> bool:  # type: ignore[override]
        return any(one.repairs_near for one in self.asks)

    def clusters_part(self, items: int) -> bool:
        return any(one.clusters_part(items) for one in self.asks)

    @property
    def refits(self) -> bool:  # type: ignore[override]
        return any(one.refits or getattr(getattr(one, "posterior", None), "refits", False) for one in self.asks)
