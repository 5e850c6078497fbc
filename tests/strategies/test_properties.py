"""Every strategy keeps the promises of `alfm.testing`: a new config in conf/query_strategy is tested by being there."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from alfm.config.parts import from_config
from alfm.config.paths import conf_dir
from alfm.strategies.ask import ask
from alfm.strategies.query import Query
from alfm.testing import Check, easy, query_of, strategy_checks

QUERIES = sorted(path.stem for path in (conf_dir() / "query_strategy").glob("*.yaml") if path.stem != "replay")
STARTS = sorted(path.stem for path in (conf_dir() / "init_strategy").glob("*.yaml") if path.stem != "index_file")
# These may leave a part of the batch to chance: few labels change under dropout or mixing, and a stream may end before
# the budget is spent.
MAY_FILL = {"dropquery", "alfamix", "vessal"}
# Costly ones at a size that a grid of tests can afford, and `switched` before its turn; everything else as configured.
SMALL = {
    "boss": {"batches": 6, "sub_pool": 60},
    "parbals_epig": {"num_targets": 50},
    "switched": {"after": {"per_class": 100}},
}
# Its radius comes from a k-means whose seeding is drawn by row; see test_probcover_permutes_with_a_given_radius.
BY_ROW = {"probcover"}
EASY, LABELLED = easy()[:2], easy()[2]


@functools.cache
def strategy(group: str, name: str):
    return from_config(group, name, **SMALL.get(name, {}))


def promises(names: list[str], cold: bool) -> list:
    return [
        pytest.param(name, check, id=f"{name}-{check}")
        for name in names
        for check in strategy_checks(cold=cold, may_fill=name in MAY_FILL, permutes=name not in BY_ROW)
    ]


@pytest.mark.parametrize(("name", "check"), promises(QUERIES, cold=False))
def test_a_query_strategy_keeps(name: str, check: Check) -> None:
    check(strategy("query_strategy", name))


@pytest.mark.parametrize(("name", "check"), promises(STARTS, cold=True))
def test_a_cold_start_keeps(name: str, check: Check) -> None:
    check(strategy("init_strategy", name))


def ordered(group: str, name: str, query: Query, budget: int = 8) -> list[list[int]]:
    return ask(strategy(group, name), query, budget)[0].tolist()


def test_probcover_permutes_with_a_given_radius():
    x, y = EASY
    order = np.random.default_rng(5).permutation(len(x))
    place = np.argsort(order)
    cover = from_config("query_strategy", "probcover", delta=0.7)
    picks = ask(cover, query_of(x, y, 6, LABELLED, (1,)), 4)[0][0]
    moved = ask(cover, query_of(x[order], y[order], 6, [int(place[i]) for i in LABELLED], (1,)), 4)[0][0]
    # degrees are integers and tie: the covered count must agree, pick by pick
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    near = np.linalg.norm(unit[:, None] - unit[None], axis=2) < 0.7

    def covered(rows: list[int]) -> list[int]:
        return [int(near[LABELLED + rows[: k + 1]].any(0).sum()) for k in range(len(rows))]

    assert covered(picks.tolist()) == covered([int(order[i]) for i in moved])


@pytest.mark.parametrize(
    "name", [name for name in ("typiclust", "probcover", "maxherding", "centroid") if name in STARTS]
)
def test_scaling_features_changes_nothing_on_the_sphere(name):
    x, y = EASY
    one = ordered("init_strategy", name, query_of(x, y, 6, cold=True))
    assert ordered("init_strategy", name, query_of(x * 8, y, 6, cold=True)) == one  # a power of two: exact


ON_THE_SPHERE = {
    "typiclust": {},
    "probcover": {},
    "maxherding": {},
    "facility_location": {},
    "graph_cut": {},
    "log_det": {},
    "coreset": {"metric": "cosine"},
}


@pytest.mark.parametrize("name", ON_THE_SPHERE)
def test_queries_on_unit_features_do_not_see_the_scale(name):
    x, y = EASY[0].astype(np.float64), EASY[1]
    built = from_config("query_strategy", name, **ON_THE_SPHERE[name])
    one = ask(built, query_of(x, y, 6, LABELLED), 8)[0]
    assert torch.equal(ask(built, query_of(x * 3, y, 6, LABELLED), 8)[0], one)
