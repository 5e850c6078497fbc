"""The centroid cold start: the items nearest to the centroids of a good k-means, of the run's own seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.centroid import centroid, inertia
from sklearn.cluster import KMeans, kmeans_plusplus
from strategies.factory import SITUATIONS, assert_replicates_independent, clusters, make_query, picks_in

from alfm.geometry.kmeans import kmeans_each
from alfm.strategies.ask import ask
from alfm.strategies.centroid import Centroid
from alfm.strategies.query import Query


def cold(N: int = 150, seeds: tuple[int, ...] = (1,), x: np.ndarray | None = None, **options) -> Query:
    x = clusters(N, 8, 5)[0] if x is None else x
    query = make_query(x=x, y=np.arange(len(x)) % 4, C=4, rows=[[0]] * len(seeds), seeds=seeds, **options)
    query.rows, query.targets, query.head = query.rows[:, :0], query.targets[:, :0], None
    query.available[:] = True
    return query


@pytest.mark.parametrize("budget", [1, 5, 40])
def test_picks_for_its_clusters(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def spy(x, k, rng, *rest, **options):
        found = kmeans_each(x, k, rng, *rest, **options)
        calls.append((x[0].numpy(), k[0], found[0].centroids.numpy()))
        return found

    monkeypatch.setattr("alfm.strategies.parts.candidates.kmeans_each", spy)
    query = cold(block_rows=40)
    picks = Centroid().select(query, budget)[0].tolist()
    h = query.pool.features.numpy()
    u = h / np.linalg.norm(h, axis=1, keepdims=True)
    x, k, centroids = calls[0]
    np.testing.assert_allclose(x, u, atol=1e-12)
    assert k == budget
    expected = centroid(u, centroids)
    # both members of a pair are as far from its centroid: distances agree where items need not
    np.testing.assert_allclose(*(np.linalg.norm(u[rows] - centroids, axis=1) for rows in (picks, expected)), atol=1e-12)
    assert budget > 5 or picks == expected
    others = []
    for seed in range(10):  # the same seeding and passes in another implementation
        start = kmeans_plusplus(u, budget, n_local_trials=1, random_state=seed)[0]
        others.append(KMeans(budget, init=start, n_init=1, max_iter=10).fit(u).inertia_)
    assert inertia(u, centroids) <= 1.2 * np.mean(others)


def test_labelled_items_are_neither_clustered_nor_picked() -> None:
    query = make_query(n=30)
    picks = Centroid().select(query, 90)[0].tolist()
    assert sorted(picks) == np.flatnonzero(query.available[0].numpy()).tolist()


def test_clusters_are_those_of_the_seed() -> None:
    """A fixed seed would give 'independent' runs the same initial set, hence false significance."""
    together = Centroid().select(cold(seeds=(1, 2, 3)), 12)
    assert len({tuple(sorted(picks.tolist())) for picks in together}) == 3
    for r, seed in enumerate((1, 2, 3)):
        assert torch.equal(together[r], Centroid().select(cold(seeds=(seed,)), 12)[0])


def test_more_clusters_than_distinct_items() -> None:
    """Empty clusters raise nothing and lose no pick."""
    query = cold(x=np.repeat(clusters(4, 3, 2)[0], 10, 0))
    picks, filled = ask(Centroid(), query, 12)
    assert filled == [0]
    assert {int(i) // 10 for i in picks[0]} == {0, 1, 2, 3}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    assert picks_in(Centroid(), situation)[1] == 0


def test_replicates() -> None:
    assert_replicates_independent(Centroid)
