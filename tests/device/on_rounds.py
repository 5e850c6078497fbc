"""Every strategy picks on the device what it picks on the CPU, keeps to its budget, and sums in a promised order."""

from __future__ import annotations

import numpy as np
import pytest
from device import start
from device.budgets import BUDGETS, OTHER_PICKS, UNORDERED, WAITS
from device.rounds import STRATEGIES, VARIANTS, third_round

SEEDS = [1, 2, 3, 4, 5]
LONG = {"batchbald", "boss", "filtered", "parbals_epig", "vaal"}
"""Counted by hand, `-m slow`: half a minute together. Two replicates of each show their picks."""
COUNTED = [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in BUDGETS]
counts = pytest.mark.skipif(start.REAL, reason="only a simulated device counts")


def test_every_strategy_has_a_budget() -> None:
    assert list(BUDGETS) == STRATEGIES


def picked(name: str, seeds: list[int]):
    """What the third round cost; its picks are those of the CPU with features in float64."""
    (found, cost), (expected, _) = (third_round(name, device, seeds, "float64") for device in ("cuda", "cpu"))
    same = np.array_equal(found.picks, expected.picks)
    assert same or name in OTHER_PICKS
    if same:
        for ours, theirs in zip(found.metrics, expected.metrics, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)
    return cost


@pytest.mark.parametrize("name", [name for name in BUDGETS if name in LONG])
def test_picks_of_two_are_those_of_the_cpu(name: str) -> None:
    picked(name, SEEDS[:2])


@pytest.mark.parametrize("name", COUNTED)
def test_five_pick_as_on_the_cpu_and_cost_what_they_may(name: str) -> None:
    """Launches and waits: the third round with its fit and its measures."""
    five = picked(name, SEEDS)
    if not start.REAL:
        cost, (_, *allowed) = (five.launches, five.syncs), BUDGETS[name]
        where = five.launch_sites.most_common(12), five.sync_sites.most_common(12)
        assert all(c <= b for c, b in zip(cost, allowed, strict=True)), f"{cost} > {allowed}: {where}"


@counts
@pytest.mark.parametrize("name", COUNTED)
def test_one_costs_what_it_may(name: str) -> None:
    _, one = third_round(name, "cuda", SEEDS[:1])
    assert one.launches <= BUDGETS[name][0], one.launch_sites.most_common(12)


@counts
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
