"""What is said of runs that repeat another's picks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_runs import noisy, runs

from alfm.results.replays import Replayed, beside_original, replayed


def test_which_run_it_repeats():
    node = {"_target_": "x", "rows": None, "of": {"dataset": "digits", "model": "a", "run": "margins-1", "more": {}}}
    assert replayed(json.dumps(node)) == Replayed("digits", "a", "margins-1")
    for other in (
        "",
        "{}",
        json.dumps({"_target_": "x"}),
        json.dumps({"of": "me"}),
        json.dumps({"of": {"model": "a"}}),
    ):
        assert replayed(other) is None


def test_it_stands_beside_its_original_at_each_quarter():
    first, again = noisy(0.0, 1, n=12, rounds=8), noisy(-0.05, 2, n=12, rounds=8)
    table = beside_original(runs("margins", first, draw=""), runs("replay", again[:10], draw=""), "accuracy")
    assert list(table["labels"]) == [20, 40, 60, 80] and (table["seeds"] == 10).all()
    gap = 100 * (again[:10, 3] - first[:10, 3])
    row = table.iloc[1]
    assert row["original"] == pytest.approx(first[:10, 3].mean())
    assert row["difference"] == pytest.approx(gap.mean()) and row["low"] < gap.mean() < row["high"] < 0
    worse = beside_original(runs("margins", first, draw=""), runs("replay", again, draw=""), "nll")
    assert worse["difference"].iloc[1] > 0  # less of it is better
    strangers = runs("replay", again, draw="")
    assert not len(
        beside_original(runs("margins", first, draw=""), strangers.assign(seed=strangers["seed"] + 99), "nll")
    )
    assert np.isfinite(table[["low", "high"]]).all(axis=None)
