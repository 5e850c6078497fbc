"""DropQuery: changed labels under the same masks, the falling threshold, one item per cluster of the candidates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.centroid import inertia
from reference.dropquery import changes, dropquery
from reference.uncertainty import ranked, uncertainty
from sklearn.cluster import KMeans
from strategies.factory import SITUATIONS, assert_replicates_independent, clusters, make_query, picks_in, seen

from alfm.config.parts import from_config
from alfm.features.features import Features
from alfm.geometry.kmeans import kmeans_each
from alfm.posteriors import DropoutPosterior
from alfm.strategies.ask import ask
from alfm.strategies.dropquery import DropQuery
from alfm.strategies.parts import candidates as batch
from alfm.strategies.query import Query


def counted(query: Query, strategy: DropQuery, r: int = 0) -> np.ndarray:
    """The reference's counts with the strategy's own masks."""
    head = query.head
    assert head is not None
    draws = query.draws(DropoutPosterior(strategy.p, strategy.passes))
    rows = torch.arange(query.pool.N)
    masks = np.stack([draws.masks(rows, m, r).numpy() for m in range(strategy.passes)])
    assert abs(masks.mean() - (1 - strategy.p)) < 0.05
    return changes(
        query.pool.features.numpy(),
        masks,
        strategy.p,
        lambda h: head.forward(torch.from_numpy(h), r).argmax(1).numpy(),
    )


@pytest.mark.parametrize("strategy", [DropQuery(), DropQuery(passes=6, p=0.5)])
def test_changes_are_counted_on_raw_features_before_the_scaling(strategy: DropQuery) -> None:
    query = make_query(seeds=(1, 2), block_rows=50)
    found = strategy.changes(query)
    for r in (0, 1):
        expected = counted(query, strategy, r)
        assert found[r].tolist() == expected.tolist()
        assert len(set(expected.tolist())) > 2
    assert found[0].tolist() != found[1].tolist()


def test_masks_belong_to_the_item_not_to_the_block_or_the_neighbours() -> None:
    one, two = (DropQuery().changes(make_query(block_rows=size)) for size in (7, 1000))
    assert torch.equal(one, two)


def candidates_of(strategy: DropQuery, query: Query, budget: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the strategy clusters."""
    kept = []

    def spy(query, candidates, budget, embedding=None, up_to=0):
        kept.append(candidates[0].tolist())
        return batch.clustered(query, candidates, budget, embedding, up_to=up_to)

    monkeypatch.setattr("alfm.strategies.dropquery.clustered", spy)
    strategy.select(query, budget)
    return kept[0]


@pytest.mark.parametrize("passes", [3, 5])
@pytest.mark.parametrize("budget, enough", [(1, 1), (4, 5), (2, 25), (30, 25), (5, 0)])
def test_candidates(passes: int, budget: int, enough: int, monkeypatch: pytest.MonkeyPatch) -> None:
    query = make_query()
    strategy = DropQuery(passes, enough=enough)
    expected = dropquery(counted(query, strategy), seen(query).free, budget, passes, enough)
    assert len(expected) > 0
    assert candidates_of(strategy, query, budget, monkeypatch) == expected


def test_the_threshold_falls_by_one_and_stops_at_one_change(monkeypatch: pytest.MonkeyPatch) -> None:
    query = make_query(N=60, n=4, rows=[[0, 1, 2, 3]])
    count = torch.zeros(1, 60, dtype=torch.int64)
    count[0, 4:10], count[0, 10:20], count[0, 20:35] = 5, 2, 1
    count[0, :4] = 5  # labelled
    monkeypatch.setattr(DropQuery, "changes", lambda self, query: count)
    sizes = [
        len(candidates_of(DropQuery(5, enough=enough), query, 2, monkeypatch)) for enough in (1, 3, 4, 8, 9, 15, 16, 99)
    ]
    assert sizes == [6, 6, 16, 16, 31, 31, 31, 31]  # never those that did not change at all
    assert dropquery(count[0].numpy(), seen(query).free, 2, 5, 4) == list(range(4, 20))


@pytest.mark.parametrize("cluster_head", [False, True])
def test_the_batch_is_one_item_per_cluster(cluster_head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    query = make_query(N=300)
    calls = []

    def spy(x, k, rng, *rest, **options):
        found = kmeans_each(x, k, rng, *rest, **options)
        calls.append((x[0].numpy(), k[0], found[0].centroids.numpy()))
        return found

    monkeypatch.setattr("alfm.strategies.parts.candidates.kmeans_each", spy)
    strategy = DropQuery(cluster_head=cluster_head)
    picks = strategy.select(query, 6)[0].numpy()
    view = seen(query)
    (x, k, centroids) = calls[0]
    rows = np.array(dropquery(counted(query, strategy), view.free, 6))
    base = view.phi if cluster_head else query.pool.features.numpy()
    unit = (base / np.linalg.norm(base, axis=1, keepdims=True))[rows]
    np.testing.assert_allclose(x, unit, atol=1e-12)
    assert k == 6 and len(set(picks)) == 6
    wanted = [int(rows[np.linalg.norm(unit - c, axis=1).argmin()]) for c in centroids]
    assert set(picks) >= {w for w in wanted if wanted.count(w) == 1}
    best = KMeans(6, n_init=20, random_state=0).fit(unit).cluster_centers_
    assert inertia(unit, centroids) <= 1.1 * inertia(unit, best)


def test_shortage_is_completed_by_the_caller_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    query = make_query(N=60, n=4)
    free = np.flatnonzero(seen(query).free)
    count = torch.zeros(1, 60, dtype=torch.int64)
    count[0, free[:3]] = 1
    monkeypatch.setattr(DropQuery, "changes", lambda self, query: count)
    picks, filled = ask(DropQuery(), query, 10)
    assert filled == [7]
    assert sorted(picks[0, :3].tolist()) == free[:3].tolist()


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    picks_in(DropQuery(), situation)  # filled at random where few labels change under dropout


def test_replicates_and_seeds() -> None:
    assert_replicates_independent(DropQuery)
    x, y = clusters(300, 8, 4)
    one, two = (
        DropQuery().select(make_query(x=x, y=y, seeds=(s,), rows=[list(range(12))]), 6)[0].tolist() for s in (1, 2)
    )
    assert one != two


def test_a_shortage_filled_by_margins_is_the_strategys_own(monkeypatch: pytest.MonkeyPatch) -> None:
    query = make_query(N=60, n=4)
    view = seen(query)
    free = np.flatnonzero(view.free)
    count = torch.zeros(1, 60, dtype=torch.int64)
    count[0, free[:3]] = 1
    monkeypatch.setattr(DropQuery, "changes", lambda self, query: count)
    picks, filled = ask(DropQuery(fill="margins"), query, 10)
    rest = view.free.copy()
    rest[free[:3]] = False
    assert filled == [0] and picks[0, 3:].tolist() == ranked(uncertainty(view.p, "margins"), rest, 7)
    assert sorted(picks[0, :3].tolist()) == free[:3].tolist()


@pytest.mark.parametrize("name", ["dropquery", "clue"])
def test_many_candidates_are_never_gathered(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """k-means learns from some; no more than a block of the others is gathered, and each replicate is as if alone."""
    monkeypatch.setattr("alfm.geometry.kmeans_on_part._EACH", 1)
    monkeypatch.setattr("alfm.devices.Device.block_rows", lambda self, dim: 40)
    query = make_query(N=500, n=12, seeds=(1, 2))
    built = from_config("query_strategy", name, cluster_up_to=60)
    picks = built.select(query, 4)
    query.pool = Features(query.pool.features, memory="host", block_rows=33)
    gathered: list[int] = []
    real = Features.gather
    monkeypatch.setattr(Features, "gather", lambda pool, rows, *a: gathered.append(len(rows)) or real(pool, rows, *a))
    assert built.select(query, 4).tolist() == picks.tolist()
    assert max(gathered) == 60
    assert built.clusters_part(61) and not built.clusters_part(60)
