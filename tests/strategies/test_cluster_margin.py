"""Cluster-Margin: candidates, linkage, turns, clusters made once."""

from __future__ import annotations

import numpy as np
import pytest
from reference.cluster_margin import average_linkage as plain_linkage
from reference.cluster_margin import margin_candidates, turns
from strategies.factory import SITUATIONS, assert_replicates_independent, make_query, picks_in, seen

from alfm.errors import UserError
from alfm.geometry.linkage import average_linkage
from alfm.strategies.cluster_margin import ClusterMargin, round_robin


def partition(label: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(label == c).tolist()) for c in set(label.tolist())}


@pytest.mark.parametrize("clusters", [1, 3, 8, 20])
def test_average_linkage(clusters: int) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    assert partition(average_linkage(x, clusters)) == partition(plain_linkage(x, clusters))


@pytest.mark.parametrize("budget", [4, 11, 25])
def test_candidates_and_turns(budget: int) -> None:
    strategy = ClusterMargin(oversample=3)
    query = make_query(N=150)
    view = seen(query)
    picks = strategy.select(query, budget)[0].tolist()
    candidates = margin_candidates(view.p, view.free, 3 * budget)
    assert set(picks) <= set(candidates)
    cluster = strategy.clusters(query, 0)
    expected = [c for turn in turns(candidates, cluster) for c in turn][:budget]
    assert [int(cluster[i]) for i in picks] == expected


def test_a_member_is_drawn_uniformly() -> None:
    cluster = np.array([0, 0, 0, 1, 1])
    first = [round_robin(cluster, np.random.default_rng(s))[:2] for s in range(600)]
    assert all(cluster[i] == 1 and cluster[j] == 0 for i, j in first)
    counts = np.bincount([j for _, j in first], minlength=3)
    assert (np.abs(counts - 200) < 4 * np.sqrt(600 * 2 / 9)).all()


def test_clusters_are_made_once_per_run_and_seeded_by_replicate() -> None:
    strategy = ClusterMargin(cluster_size=10, exact_up_to=60)
    query = make_query(N=200, seeds=(1, 2))
    ours, other = strategy.clusters(query, 0), strategy.clusters(query, 1)
    assert partition(ours) != partition(other)
    assert strategy.clusters(query, 0) is ours
    later = make_query(N=200, seeds=(1, 2), round=7)
    assert (strategy.clusters(later, 0) == ours).all()  # rebuilt after a resume, whatever the round
    assert 2 < len(set(ours.tolist())) <= 15
    exact = ClusterMargin()
    assert exact.clusters(query, 0) is exact.clusters(query, 1)


def test_sampled_clusters_are_compact() -> None:
    """Well separated groups come out whole when the linkage sees a sample only."""
    y = np.arange(300) % 5
    x = 20 * np.eye(5)[y] + 0.1 * np.random.default_rng(0).normal(size=(300, 5))
    label = ClusterMargin(cluster_size=60, exact_up_to=50).clusters(make_query(x=x, y=y, C=5), 0)
    assert partition(label) == partition(y)


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("exact_up_to", [2000, 12])
def test_hard_situations(situation: str, exact_up_to: int) -> None:
    assert picks_in(ClusterMargin(exact_up_to=exact_up_to), situation)[1] == 0


def test_replicates() -> None:
    assert_replicates_independent(ClusterMargin)
    assert_replicates_independent(lambda: ClusterMargin(exact_up_to=50))


def test_a_linkage_that_no_memory_holds_is_refused(monkeypatch):
    monkeypatch.setattr("alfm.strategies.cluster_margin.MOST", 50)
    query = make_query(N=60)
    with pytest.raises(UserError, match="exact_up_to to at most 50"):
        ClusterMargin(exact_up_to=10**6).clusters(query, 0)
    assert len(ClusterMargin(exact_up_to=50).clusters(query, 0)) == 60
