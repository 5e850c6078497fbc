"""CLUE: weights and space of its k-means, the items it returns, hard situations."""

from __future__ import annotations

import numpy as np
import pytest
from reference.clue import clue_objective, entropy
from sklearn.cluster import KMeans
from strategies.factory import SITUATIONS, assert_replicates_independent, make_query, picks_in, seen

from alfm.geometry.kmeans import kmeans_each
from alfm.strategies.clue import Clue


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_clusters_are_of_the_embeddings_weighted_by_entropy(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = make_query(N=200, block_rows=50)
    calls = []

    def spy(x, k, rng, weight, **options):
        found = kmeans_each(x, k, rng, weight, **options)
        calls.append((x[0], k[0], weight[0], found[0]))
        return found

    monkeypatch.setattr("alfm.strategies.parts.candidates.kmeans_each", spy)
    picks = Clue(temperature).select(query, 6)[0].numpy()
    view = seen(query)
    z = view.logits / temperature
    p = np.exp(z - z.max(1, keepdims=True))
    weight = entropy(p / p.sum(1, keepdims=True))[view.free]
    (x, k, given, found), phi = calls[0], view.phi[view.free]
    np.testing.assert_allclose(given.numpy(), weight, rtol=1e-9)
    np.testing.assert_allclose(x.numpy(), phi, rtol=1e-12)
    # the inertia is of the last assignment, and the centroids are its means; another assignment could only lower it
    centroids, assignment = found.centroids.numpy(), found.assignment.numpy()
    means = [np.average(phi[assignment == j], axis=0, weights=weight[assignment == j]) for j in range(k)]
    np.testing.assert_allclose(centroids, means, rtol=1e-9, atol=1e-12)
    assert found.inertia == pytest.approx((weight * ((phi - centroids[assignment]) ** 2).sum(1)).sum(), rel=1e-9)
    assert clue_objective(phi, weight, centroids) <= found.inertia * (1 + 1e-9)
    # one start comes near the best of twenty of another implementation
    best = KMeans(k, n_init=20, random_state=0).fit(phi, sample_weight=weight).cluster_centers_
    assert clue_objective(phi, weight, found.centroids.numpy()) <= 1.15 * clue_objective(phi, weight, best)
    # each pick is the nearest item to its centroid, where no other centroid wants that item
    rows = np.flatnonzero(view.free)
    wanted = [rows[((phi - c) ** 2).sum(1).argmin()] for c in found.centroids.numpy()]
    alone = [w for w in wanted if wanted.count(w) == 1]
    assert len(alone) > 0 and set(alone) <= set(picks.tolist())


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    assert picks_in(Clue(), situation)[1] == 0


def test_replicates_and_seeds() -> None:
    assert_replicates_independent(Clue)
    one, two = (Clue().select(make_query(seeds=(s,), rows=[list(range(12))]), 10)[0].tolist() for s in (1, 2))
    assert one != two
