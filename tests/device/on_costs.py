"""Every strategy keeps to its budget of launches and waits, and its sums have a promised order."""

from __future__ import annotations

import pytest
from device import start
from device.budgets import BUDGETS, UNORDERED, WAITS
from device.rounds import STRATEGIES, VARIANTS, third_round

SEEDS = [1, 2, 3, 4, 5]
LONG = {"batchbald", "boss", "filtered", "parbals_epig", "vaal"}
"""Half a minute together: by hand, `-m slow`."""


def test_every_strategy_has_a_budget() -> None:
    assert list(BUDGETS) == STRATEGIES


@pytest.mark.skipif(start.REAL, reason="only a simulated device counts")
@pytest.mark.parametrize("name", [pytest.param(one, marks=pytest.mark.slow if one in LONG else ()) for one in BUDGETS])
def test_a_round_costs_what_it_may(name: str) -> None:
    """Launches with one replicate and with five, waits with five: the third round with its fit and its measures."""
    (_, one), (_, five) = (third_round(name, "cuda", seeds) for seeds in (SEEDS[:1], SEEDS))
    cost = (one.launches, five.launches, five.syncs)
    where = five.launch_sites.most_common(12), five.sync_sites.most_common(12)
    assert all(c <= b for c, b in zip(cost, BUDGETS[name], strict=True)), f"{cost} > {BUDGETS[name]}: {where}"


@pytest.mark.skipif(start.REAL, reason="only a simulated device counts")
@pytest.mark.parametrize("name", VARIANTS)
def test_other_forms_wait_as_rarely(name: str) -> None:
    """The third round of one replicate: 20 picks."""
    _, cost = third_round(name, "cuda", SEEDS[:1])
    assert cost.syncs <= WAITS, cost.sync_sites.most_common(12)


@pytest.mark.skipif(start.REAL, reason="only a simulated device tells")
def test_every_float_sum_has_an_order_and_nothing_else_is_wrong() -> None:
    """Of all that ran above."""
    assert {place for _, place in start.simulated.S.atomic} <= set(UNORDERED)
    assert not start.simulated.S.problems
