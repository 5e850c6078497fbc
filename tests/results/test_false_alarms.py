"""The report's tests neither cry wolf nor are they deaf: benchmarks/false_alarms.py on made curves, and quick."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from alfm.results.against_random import against_random
from alfm.results.matrix import comparison_matrix
from alfm.results.pairing import Curves
from alfm.results.power import smallest_effect
from alfm.results.statistics import better_in_bands

DRAWS, SEEDS, ROUNDS = 200, 20, 21
NAMES = ["random", *(f"strategy {i}" for i in range(1, 12))]
BOUND, FLOOR = 18, 2
"""Of 200 draws at 5 %: more than 18 or fewer than 2 find something in one of a hundred experiments."""


def alike(t: int, strategies: int = 12) -> Curves:
    """Curves as random has them: initial sets differ, rounds depend on those before, and nobody is better."""
    rng = np.random.default_rng(t)
    walk = np.cumsum(rng.normal(0, 0.01, (strategies, SEEDS, ROUNDS)), axis=2) / np.sqrt(np.arange(1, ROUNDS + 1))
    values = 0.5 + rng.normal(0, 0.05, (1, SEEDS, 1)) + walk - walk[:, :, :1]
    picked = np.arange(values.size).reshape(values.shape).astype(str).astype(object)
    initial = np.arange(SEEDS).astype(str).astype(object)
    return Curves(NAMES[:strategies], list(range(SEEDS)), np.arange(1, ROUNDS + 1), values, "accuracy", initial, picked)


def test_tests_find_nothing_where_there_is_nothing_as_often_as_they_say() -> None:
    found: dict[str, int] = {}
    for t in range(DRAWS):
        curves = alike(t)
        pair = replace(curves, strategies=NAMES[:2], values=curves.values[:2], picked=curves.picked[:2])
        verdicts, bands = against_random(curves), better_in_bands(pair).set_index("band")["p"]
        told = {
            "area": verdicts.set_index("strategy").loc[NAMES[1], "p"] < 0.05,
            "low": bands["low"] < 0.05,
            "high": bands["high"] < 0.05,
            "signed ranks": comparison_matrix(pair)["p"].iloc[0] < 0.05,
            "any of eleven": (verdicts["p_holm"] < 0.05).any(),
        }
        found = {name: found.get(name, 0) + bool(value) for name, value in told.items()}
    assert max(found.values()) <= BOUND, found
    assert min(found[name] for name in ("area", "low", "high", "signed ranks")) >= FLOOR, found


def test_what_the_design_says_that_it_finds_is_found() -> None:
    """Two points with a spread of two, and the smallest effect, in at least eight of ten, after Holm over eleven."""
    curves = [alike(t) for t in range(DRAWS // 2)]
    gaps = np.concatenate([100 * np.subtract(*one.areas()[[1, 0]]) for one in curves])
    found = {"two points": 0, "smallest": 0}
    for one in curves:
        for name, spread, gain in (
            ("two points", 2.0, 2.0),
            ("smallest", gaps.std(), smallest_effect(gaps.std(), SEEDS, 0.05 / 11)),
        ):
            values = one.values.copy()
            values[1] = values[0] + (spread / gaps.std()) * (values[1] - values[0]) + gain / 100
            verdicts = against_random(replace(one, values=values)).set_index("strategy")["verdict"]
            found[name] += verdicts[NAMES[1]] == "better"
    assert found["two points"] >= 0.8 * len(curves) and found["smallest"] >= 0.7 * len(curves), found
