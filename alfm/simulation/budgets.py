"""How many labels each round of a simulation asks for, in whichever unit they are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import MinLen

from alfm.errors import UserError
from alfm.options import Labels, Rounds, checked, shown
from alfm.simulation.loop import schedule

Unit = Literal["class", "labels", "share"]
"""What a number of labels counts: labels per class, labels, or a share of the pool."""
Listed = Annotated[Sequence[Labels], MinLen(1)]
_ROUNDS = 20
"""Of conf/al_train.yaml, where nobody has said how many."""


@dataclass(frozen=True)
@checked
class Budget:
    """`budget.`: labels of the first and of each later round, or of each round in a list.

    Raises UserError where unit and per_class contradict each other.
    """

    init: Labels
    step: Labels
    per_class: bool
    unit: Unit | None = None
    schedule: Listed | None = None

    def __post_init__(self) -> None:
        unit_of(self.per_class, self.unit)


def unit_of(per_class: bool, unit: Unit | None) -> Unit:
    """What is counted; UserError where the two contradict each other."""
    if unit == "class" and not per_class:
        raise UserError("budget.unit=class and budget.per_class=false contradict each other: leave one of them out.")
    return unit or ("class" if per_class else "labels")


def count(amount: float, unit: Unit, num_classes: int, items: int, what: str) -> int:
    """An amount in labels. items: of the pool. Raises UserError for a share above 1, naming `what` it is of."""
    if unit == "share" and amount > 1:
        raise UserError(f"{what}={amount:g} is a share of the pool and more than all of it: 0.05 stands for 5 %.")
    return round(amount * {"class": num_classes, "labels": 1, "share": items}[unit])


@checked
def budgets_of(
    num_classes: int,
    rounds: Rounds,
    init: Labels,
    step: Labels,
    per_class: bool = True,
    doubling: bool = False,
    unit: Unit | None = None,
    listed: Listed | None = None,
    items: int = 0,
) -> list[int]:
    """Labels per round; `init` and `step` count per class unless `per_class` is False or a `unit` says otherwise.

    listed: of each round, instead of init, step, rounds and doubling. items: of the pool, for shares of it. Raises
    UserError for less than one label in a round, and for a list beside what it contradicts.
    """
    unit = unit_of(per_class, unit)
    if listed is None:
        given = {"budget.init": init, "budget.step": step}
        first, each = (count(amount, unit, num_classes, items, name) for name, amount in given.items())
        if first < 1 or each < 1:
            raise UserError(f"budget.init={init:g} and budget.step={step:g} must give at least one label a round.")
        return schedule(rounds, first, each, doubling)
    name = "budget.schedule"
    if doubling:
        raise UserError(f"{name} says what each round asks for, and iterations.exp=true doubles it: leave one out.")
    if (init, step) != (1, 1):
        raise UserError(
            f"{name} says what each round asks for, the first included: leave budget.init and budget.step out."
        )
    if rounds not in (_ROUNDS, len(listed)):
        raise UserError(f"{name} has {len(listed)} rounds and iterations.n={rounds}: leave iterations.n out.")
    budgets = [count(amount, unit, num_classes, items, name) for amount in listed]
    if min(budgets) < 1:
        raise UserError(f"{name}={shown(list(listed))} must give at least one label a round.")
    return budgets
