"""Every strategy picks on the device what it picks on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from device.budgets import BUDGETS, OTHER_PICKS
from device.rounds import third_round


@pytest.mark.parametrize("name", BUDGETS)
def test_picks_are_those_of_the_cpu(name: str) -> None:
    """Features in float64, the third round of two replicates."""
    (found, _), (expected, _) = (third_round(name, device, [1, 2], "float64") for device in ("cuda", "cpu"))
    same = np.array_equal(found.picks, expected.picks)
    assert same or name in OTHER_PICKS
    if same:
        for ours, theirs in zip(found.metrics, expected.metrics, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)
