"""TypiClust: whole sequences for given clusters, exactly B when clusters run dry, clusters of the run's own seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from reference.typiclust import typicality, typiclust
from strategies.factory import SITUATIONS, assert_replicates_independent, clusters, make_query, picks_in, seen

from alfm import devices
from alfm.features.features import Features
from alfm.geometry import typicality as module
from alfm.geometry.typicality import most_typical, most_typical_each
from alfm.strategies.ask import ask
from alfm.strategies.typiclust import TypiClust, cluster_pool

PLAIN = "donot_use_mm_for_euclid_dist"


def test_sequence_with_its_own_clusters() -> None:
    query = make_query(N=200)
    view = seen(query)
    found = cluster_pool(query, [12 + 30])[0].numpy()
    expected = typiclust(query.pool.features.numpy(), found, view.labelled, view.free, 30)
    assert TypiClust().select(query, 30)[0].tolist() == expected


def looks_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: a look at a value is a wait."""
    other = replace(devices.of("cpu"), looks_are_free=False)
    monkeypatch.setattr(devices, "of", lambda x: other)


def given(monkeypatch: pytest.MonkeyPatch, assignment: np.ndarray) -> None:
    monkeypatch.setattr(
        "alfm.strategies.typiclust.cluster_pool", lambda query, counts, up_to: [torch.from_numpy(assignment)]
    )


@pytest.mark.parametrize("budget, neighbours", [(5, 20), (60, 20), (108, 3)])
def test_sequence_with_given_clusters(budget: int, neighbours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters of very unequal size, an empty one between them: those used up are passed over, ids stay aligned."""
    rng = np.random.default_rng(2)
    assignment = rng.choice([0, 1, 3, 4, 5, 6, 9], 120, p=[0.45, 0.25, 0.1, 0.1, 0.05, 0.03, 0.02])
    sizes = np.bincount(assignment, minlength=10)
    assert (sizes == 0).any() and ((sizes > 0) & (sizes <= 5)).any()
    query = make_query()
    view = seen(query)
    given(monkeypatch, assignment)
    expected = typiclust(query.pool.features.numpy(), assignment, view.labelled, view.free, budget, neighbours)
    assert len(set(expected)) == budget
    assert TypiClust(neighbours=neighbours).select(query, budget)[0].tolist() == expected


def test_order_of_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewest labels first, then the largest; small clusters come last, however few labels they hold."""
    assignment = np.repeat([0, 1, 2, 3, 4], [50, 30, 25, 10, 5])
    query = make_query(rows=[[0, 51, 52]])  # one label in the largest, two in the second
    given(monkeypatch, assignment)
    picks = TypiClust().select(query, 5)[0].numpy()
    assert assignment[picks].tolist() == [2, 3, 0, 1, 2]
    everything = TypiClust().select(query, 117)[0].numpy()
    assert (assignment[everything[-5:]] == 4).all()


def test_most_typical_is_the_definition() -> None:
    h = clusters(50, 5, 3)[0]
    u = h / np.linalg.norm(h, axis=1, keepdims=True)
    for size in (1, 2, 3, 7, 50):
        for k in (3, 20):
            d = np.linalg.norm(u[:, None] - u[None], axis=2)
            expected = int(typicality(d, list(range(size)), k).argmax())
            assert most_typical(torch.from_numpy(u[:size]), k) == expected


def test_a_large_cluster_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where no search is made: the blocks' diagonals are their own."""
    u = torch.from_numpy(clusters(700, 5, 3)[0])
    u = u / u.norm(dim=1, keepdim=True)
    d = torch.cdist(u, u).numpy()
    expected = int(typicality(d, list(range(700)), 20).argmax())
    assert most_typical(u, 20).tolist() == [expected]  # by search
    monkeypatch.setattr(module, "_BLOCK", 1)
    monkeypatch.setattr(module, "_SEARCH", 300)
    monkeypatch.setattr(module, "knn", None)
    assert most_typical(u[:300], 20).tolist() == [int(typicality(d, list(range(300)), 20).argmax())]
    monkeypatch.setattr(module, "_SEARCH", 10**6)
    monkeypatch.setattr(module, "_rows_at_once", lambda m: 128)
    assert most_typical(u, 20).tolist() == [expected]


def test_how_many_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "alfm.strategies.typiclust.cluster_pool",
        lambda q, k, up_to: (asked.extend(k), [torch.arange(q.pool.N) % k[0]])[1],
    )
    TypiClust().select(make_query(n=12), 9)
    TypiClust(max_clusters=15).select(make_query(n=12), 9)
    TypiClust().select(make_query(N=30, n=12), 18)
    assert asked == [21, 15, 30]


def test_clusters_are_those_of_the_seed_and_round() -> None:
    """A fixed seed would give 'independent' runs the same clusters, hence false significance."""
    together = make_query(seeds=(1, 2), rows=[list(range(12))] * 2)
    one, two = cluster_pool(together, [20, 20])
    assert not torch.equal(one, two)
    assert torch.equal(one, cluster_pool(make_query(seeds=(1,)), [20])[0])
    assert not torch.equal(one, cluster_pool(make_query(seeds=(1,), round=3), [20])[0])


def test_fewer_distinct_items_than_clusters() -> None:
    """Clusters stay empty then: no error, and exactly B."""
    x = np.repeat(clusters(4, 3, 2)[0], 10, 0)
    query = make_query(x=x, y=np.arange(40) % 2, C=2, rows=[[0, 11]])
    for budget in (6, 38):
        assert ask(TypiClust(), query, budget)[1] == [0]


def test_without_a_head() -> None:
    query = make_query()
    query.head = None
    assert ask(TypiClust(), query, 8)[1] == [0]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    assert picks_in(TypiClust(), situation)[1] == 0


def test_replicates() -> None:
    assert_replicates_independent(TypiClust)


@pytest.mark.parametrize("size", [60, 256, 300])
@pytest.mark.parametrize("spread", [1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("waiting", [True, False])
def test_near_members_are_measured_by_their_differences(
    size: int, spread: float, waiting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products of unit vectors leave no digit of such distances; a quarter of the members are far away."""
    if not waiting:
        looks_cost(monkeypatch)
    rng = np.random.default_rng(0)
    h = rng.normal(size=64) + spread * rng.normal(size=(size, 64)) * rng.uniform(0.3, 2, (size, 1))
    h[::4] = rng.normal(size=(len(h[::4]), 64))
    u = torch.from_numpy(h.astype(np.float32))
    u /= u.norm(dim=1, keepdim=True)
    mean = 1 / typicality(torch.cdist(u.double(), u.double(), compute_mode=PLAIN).numpy(), list(range(size)))
    # on a GPU a large cluster's crowd is told apart only among the nearest that products find
    assert mean[most_typical(u, 20)] <= (1.01 if waiting or size <= 256 else 1.2) * mean.min()


def test_large_clusters_on_a_gpu_repair_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    looks_cost(monkeypatch)
    monkeypatch.setattr(module, "_SEARCH", 10**6)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 64))
    x[100:110] = x[99] * rng.uniform(0.5, 2, (10, 1)) + 1e-4 * rng.normal(size=(10, 64))
    u = torch.from_numpy(x.astype(np.float32))
    u /= u.norm(dim=1, keepdim=True)
    best = most_typical(u, 8)
    monkeypatch.setattr(module, "_SEARCH", 100)
    assert most_typical(u, 8).tolist() == best.tolist()
    assert 99 <= int(best) < 110


def test_equal_members_the_lower_index() -> None:
    rng = np.random.default_rng(2)
    for size in (40, 300):
        x = torch.from_numpy(rng.normal(size=(size, 33)).astype(np.float32))
        x[17] = x[5] = x[31] = x[29]
        assert most_typical(x / x.norm(dim=1, keepdim=True), 3).tolist() == [5]


def test_without_near_members_not_a_bit_changes() -> None:
    x = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    u = x / x.norm(dim=1, keepdim=True)
    sq = torch.linalg.vecdot(u, u)
    every = (sq[:, None] + sq - 2 * (u @ u.T)).clamp_min_(0).fill_diagonal_(torch.inf)
    before = every.topk(20, largest=False, sorted=False).values.sqrt_().mean(1)
    assert torch.equal(module._mean_distances(u, sq, slice(0, 200), 20, ask=True), before)


def test_a_large_pool_is_clustered_on_a_part() -> None:
    """Streamed or not, the same whole batches; below the limit nothing changes."""
    query = make_query(N=400, seeds=(1, 2))
    exact = TypiClust(cluster_up_to=400).select(query, 7)
    assert exact.tolist() == TypiClust().select(query, 7).tolist()
    part = TypiClust(cluster_up_to=150).select(query, 7)
    assert part.tolist() == TypiClust(cluster_up_to=150).select(query, 7).tolist()
    for r in range(2):
        assert len(part[r].unique()) == 7 and bool(query.available[r, part[r]].all())
    query.pool = Features(query.pool.features, memory="host", block_rows=33)
    assert TypiClust(cluster_up_to=150).select(query, 7).tolist() == part.tolist()
    alone = make_query(N=400, seeds=(2,), rows=[query.rows[1].tolist()])
    assert TypiClust(cluster_up_to=150).select(alone, 7)[0].tolist() == part[1].tolist()


def test_the_most_typical_of_a_part_is_among_the_most_typical(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART", 200)
    monkeypatch.setattr(module, "_WIDE", 3)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2000, 5)))
    found = module.most_typical_of_part(lambda rows: x[rows], 2000, 20, np.random.default_rng(1), x.device)
    mean = torch.cdist(x, x, compute_mode=PLAIN).topk(21, largest=False).values.mean(1)
    assert found.shape == (1,) and int((mean < mean[found]).sum()) < 100
    few = module.most_typical_of_part(lambda rows: x[rows], 150, 20, np.random.default_rng(1), x.device)
    assert torch.equal(few, most_typical(x[:150], 20))


def test_many_clusters_at_once_are_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one item, of two, equal items, more than some are found together, in several batches."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(400, 6)).astype(np.float32)
    x[50:60] = x[50]
    points = Features(x).points()
    groups = [torch.from_numpy(rng.choice(400, size, replace=False)) for size in [1, 2, 3, 80, 41, 40, 5] * 4]
    groups.append(torch.arange(45, 70))
    for neighbours in (1, 20):
        wanted = [int(most_typical(points.rows(rows), neighbours)) for rows in groups]
        for sides in ((2, 60), (1000,), (5, 70)):
            with monkeypatch.context() as patch:
                patch.setattr(module, "_SIDES", sides)
                looks_cost(patch)
                found = most_typical_each(points, torch.cat(groups), [len(own) for own in groups], neighbours)
                starts = np.cumsum([0, *map(len, groups[:-1])])
                assert (found.numpy() - starts).tolist() == wanted
