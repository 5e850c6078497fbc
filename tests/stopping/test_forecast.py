"""What more labels would bring: PALM curves, their interval, and what is not said."""

from __future__ import annotations

import numpy as np
import pytest

from alfm import stopping
from alfm.errors import UserError
from alfm.stopping.palm import Palm, fit_palm

B = np.arange(1, 13.0)


def audited(curve: Palm, rounds: int, items: int, step: int = 20, steady: bool = True):
    """(labels, right): item i is predicted rightly once the curve is above its own difficulty; so pairs are close."""
    level = curve(np.arange(1, rounds + 1.0))
    difficulty = (np.arange(items) + 0.5) / items
    rng = np.random.default_rng(1)
    noise = 0.0 if steady else rng.normal(0, 0.05, (rounds, items))
    right = difficulty[rng.permutation(items)] + noise < level[:, None]
    return np.arange(1, rounds + 1) * step, right.astype(float)


@pytest.mark.parametrize(
    "four", [(0.9, 0.3, 0.5, 0.8), (0.75, 0.1, 2.0, 1.0), (0.95, 0.5, 0.0, 0.4), (0.8, 0.05, 0.2, 1.5)]
)
def test_a_curve_is_found_again_and_foretells_itself(four):
    true = Palm.of(*four)
    assert true(3.0) == pytest.approx(four[0] * (1 - (1 - four[1]) ** ((3 + four[2]) ** four[3])))
    found = fit_palm(B[:8], true(B[:8])[None])
    assert found(40.0)[0] == pytest.approx(float(true(40.0)), abs=1e-6)
    assert found.top[0] == pytest.approx(four[0], abs=1e-6)
    target = float(true(25.0))
    assert found.reach(target)[0] == pytest.approx(25.0, abs=1e-3)
    assert found.reach(four[0] + 0.01)[0] == np.inf


def test_noise_flat_and_falling_curves_give_numbers():
    rng = np.random.default_rng(0)
    for level in (np.full(12, 0.7), np.linspace(0.8, 0.6, 12), np.zeros(12), np.ones(12), rng.random(12)):
        found = fit_palm(B, level[None])
        assert np.isfinite(found(B)).all() and np.isfinite(found(1000.0)).all()
        assert 0 <= found.top[0] <= 1
        assert ((found(B) - level) ** 2).sum() <= ((level - level.mean()) ** 2).sum() + 1e-3
    together = fit_palm(B, np.stack([Palm.of(0.9, 0.3, 0.5, 0.8)(B), rng.random(12)]))
    assert together(20.0)[0] == pytest.approx(float(Palm.of(0.9, 0.3, 0.5, 0.8)(20.0)), abs=1e-6)  # each by itself


def test_below_six_points_nothing_is_said():
    labels, right = audited(Palm.of(0.9, 0.3, 0.5, 0.8), 5, 100)
    told = stopping.outlook(labels, right, 100)
    assert told.text == "not yet: 5 of 6 models that a forecast needs" and np.isnan(told.gain)
    assert told.reach(0.8) is None


def test_the_interval_decides_whether_something_is_said():
    curve = Palm.of(0.9, 0.15, 0.5, 0.9)
    labels, right = audited(curve, 8, 1000)
    told = stopping.outlook(labels, right, 60)
    true = float(curve(11.0) - curve(8.0))
    assert told.not_yet is None and told.low < true < told.high and told.high - told.low < told.gain
    assert told.text.startswith("60 more labels: +") and " points (" in told.text
    few = stopping.outlook(*audited(curve, 8, 40, steady=False), 60)
    assert few.text.startswith("not yet: the forecast gain of") and few.high - few.low > few.gain


def test_labels_until_a_target_or_not_reachable():
    curve = Palm.of(0.8, 0.15, 0.5, 0.9)
    told = stopping.outlook(*audited(curve, 10, 1000), 60)
    found, low, high = told.reach(0.75)
    true = 20 * float(curve.reach(0.75))
    assert low < found < high and found == pytest.approx(true, rel=0.15)
    assert told.reach(0.99) is None


def test_items_trained_on_meanwhile_leave_every_point():
    labels, right = audited(Palm.of(0.9, 0.3, 0.5, 0.8), 8, 100)
    gone = right.copy()
    gone[5:, :30] = np.nan
    assert stopping.outlook(labels, gone, 60) == stopping.outlook(labels, right[:, 30:], 60)
    gone[7, 1:] = np.nan
    assert stopping.outlook(labels, gone, 60).text == "not yet: no two audited items are left"


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="must ascend"):
        stopping.outlook([10, 10, 20], np.ones((3, 5)), 10)
    with pytest.raises(UserError, match="a row of right="):
        stopping.outlook([10, 20], np.ones((3, 5)), 10)


def test_the_rule_stops_when_even_the_upper_end_is_small():
    """Accuracy is flat from round 4 on (0.80 of 100 items, the same ones): stops at the sixth point, not before."""
    flat = np.arange(100) < 80
    rounds = [np.arange(100) < level for level in (50, 70, 78)] + [flat] * 5
    rule = stopping.Forecast(ahead=2)
    said = [rule.update(answers=[0] * 10, audit=right) for right in rounds]
    assert [why is not None for why in said] == [False] * 5 + [True] * 3
    assert said[5].startswith("20 more labels would bring ") and said[5].endswith(" points at most, below 1")
    steep = stopping.Forecast(ahead=2)
    rising = [np.arange(100) < 30 + 6 * t for t in range(8)]
    assert [steep.update(answers=[0] * 10, audit=right) for right in rising] == [None] * 8
