"""Robust k-center against all subsets."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from strategies.factory import make_query

from alfm.errors import UserError
from alfm.geometry.robust_kcenter import robust_k_center
from alfm.strategies.ask import ask
from alfm.strategies.coreset import Coreset


def radius(distance: np.ndarray, centres: list[int], outliers: int) -> float:
    """The radius that covers all but the farthest `outliers` items."""
    return float(np.sort(distance[:, centres].min(1))[len(distance) - 1 - outliers])


@pytest.mark.parametrize("outliers", [0, 2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_best_of_all_subsets(outliers: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(16, 2))
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    old, budget = np.array([3]), 3
    allowed = np.ones(16, dtype=bool)
    allowed[old] = False
    greedy: list[int] = []
    for _ in range(budget):
        greedy.append(int(distance[:, [*old, *greedy]].min(1).argmax()))
    picks, reached = robust_k_center(distance, old, allowed, np.array(greedy), outliers, 10.0)
    best = min(radius(distance, [3, *some], outliers) for some in combinations(np.flatnonzero(allowed), budget))
    assert reached == pytest.approx(best)
    assert radius(distance, [3, *picks], outliers) == pytest.approx(best)
    assert best <= radius(distance, [3, *greedy], outliers)


def test_as_an_option_of_coreset_it_ignores_outliers() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(30, 2)), rng.normal(size=(30, 2)) + [12, 0], [[200.0, 0], [0, 200.0]]])
    y = np.repeat([0, 1, 0], [30, 30, 2])
    query = make_query(x=x, y=y, C=2, rows=[[0, 30]])
    plain, _ = ask(Coreset(), query, 2)
    assert set(plain[0].tolist()) == {60, 61}
    query.carry.clear()
    picks, filled = ask(Coreset(robust=0.04), query, 2)
    assert not set(picks[0].tolist()) & {60, 61} and filled == [0]
    everything, _ = ask(Coreset(robust=0.04), query, 60)
    assert len(set(everything[0].tolist())) == 60


def test_a_large_pool_is_refused_with_the_bytes() -> None:
    query = make_query(N=60)
    with pytest.raises(UserError, match="at most 50 items"):
        ask(Coreset(robust=0.1, most=50), query, 2)
