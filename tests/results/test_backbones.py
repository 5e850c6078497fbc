"""Backbones beside one another, held against what is written out here."""

from __future__ import annotations

import numpy as np
import pytest
from made_runs import noisy, runs

from alfm.results.backbones import backbones, between_backbones
from alfm.results.same_items import Begun


def begun(n: int, also: str = "") -> Begun:
    return {("", seed): frozenset({f"item {seed}", "every", also}) for seed in range(n)}


def frame(model: str, values: np.ndarray, strategy: str = "margins"):
    return runs(strategy, values, model=model, draw="", path=model).assign(strategy=strategy)


def test_each_backbone_with_its_area_its_end_and_its_ceiling():
    low, high = np.array([[0.2, 0.4, 0.6], [0.4, 0.6, 0.8]]), np.array([[0.5, 0.7, 0.9]])
    table = backbones({"low": frame("low", low), "high": frame("high", high, "badge")}, "accuracy", {"low": 0.525})
    assert list(table["backbone"]) == ["high", "low"] and list(table["strategy"]) == ["badge", "margins"]
    first, second = table.to_dict("records")
    assert (first["area"], first["final"], first["seeds"]) == (pytest.approx(0.7), pytest.approx(0.9), 1)
    assert np.isnan([first["ceiling"], first["share"], first["near"]]).all()
    assert (second["area"], second["final"]) == (pytest.approx(0.5), pytest.approx(0.7))
    assert second["share"] == pytest.approx(0.7 / 0.525)
    assert second["near"] == 20 and second["labels"] == 30  # the mean curve is 0.3, 0.5, 0.7; 95 % are 0.499
    assert np.isnan(backbones({"low": frame("low", low)}, "accuracy", {"low": 0.9})["near"]).all()
    lower = backbones({"low": frame("low", low), "high": frame("high", high)}, "nll", {"low": 0.5})
    assert list(lower["backbone"]) == ["low", "high"] and lower["share"].isna().all()


def test_seeds_that_began_with_the_same_items_are_paired():
    a, b = noisy(0.02, 1), noisy(0.0, 2)
    both = {"a": frame("a", a), "b": frame("b", b)}
    table = between_backbones(both, "accuracy", {"a": begun(12), "b": begun(12)})
    gap = 100 * np.mean([(one[1:] + one[:-1]).mean() / 2 for one in a - b])
    row = table.query("a == 'a'").iloc[0]
    assert row["paired"] and row["units"] == 12 and row["wins"] == 12
    assert row["difference"] == pytest.approx(gap) and row["low"] < gap < row["high"] and row["p"] < 0.05
    back = table.query("a == 'b'").iloc[0]
    assert back["difference"] == pytest.approx(-gap) and back["losses"] == 12


@pytest.mark.parametrize("other", [None, begun(12, "another")])
def test_other_beginnings_leave_a_difference_of_means(other):
    both = {"a": frame("a", noisy(0.02, 1)), "b": frame("b", noisy(0.0, 2))}
    paired = between_backbones(both, "accuracy", {"a": begun(12), "b": begun(12)})
    table = between_backbones(both, "accuracy", {"a": begun(12), "b": other})
    assert not table["paired"].any() and table[["low", "high", "p"]].isna().all(axis=None)
    assert table["difference"].tolist() == pytest.approx(paired["difference"].tolist())
    assert (table["units"] == 0).all()
    nll = between_backbones(both, "nll", {"a": None, "b": other})
    assert nll["difference"].tolist() == pytest.approx([-v for v in paired["difference"]])  # less is better
