"""k-means against the definition, and its corner cases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from alfm import devices
from alfm.geometry.kmeans import kmeans, kmeans_each, nearest_items, nearest_items_each


def blobs(seed: int, n: int, k: int, d: int = 8) -> Tensor:
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((k, d)) * 6
    return torch.from_numpy(centre[rng.integers(k, size=n)] + rng.standard_normal((n, d)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_fixed_point_of_lloyd(weighted: bool, dtype: torch.dtype) -> None:
    x = blobs(0, 900, 7).to(dtype)
    w = torch.from_numpy(np.random.default_rng(1).random(900) ** 3).to(dtype) if weighted else None
    got = kmeans(x, 12, np.random.default_rng(3), w, iterations=300, tolerance=0.0)
    weight = torch.ones(900, dtype=dtype) if w is None else w
    for c in range(12):
        mine = got.assignment == c
        mean = (weight[mine, None] * x[mine]).sum(0) / weight[mine].sum()
        torch.testing.assert_close(got.centroids[c], mean)
    distance = (x[:, None] - got.centroids).square().sum(2)
    assert torch.equal(distance.argmin(1), got.assignment)
    assert got.inertia == pytest.approx(float((weight * distance.amin(1)).sum()), rel=1e-4)


def test_as_good_as_scikit_learn() -> None:
    x = blobs(4, 1500, 30)
    ours = np.mean([kmeans(x, 30, np.random.default_rng(s)).inertia for s in range(10)])
    reference = [KMeans(30, init="random", n_init=1, random_state=s).fit(x.numpy()).inertia_ for s in range(10)]
    theirs = np.mean(reference)
    assert ours < theirs


def plain_inertia(x: np.ndarray, centroids: np.ndarray, passes: int) -> float:
    """Lloyd's algorithm as it is written down: the inertia after so many passes."""
    for _ in range(passes):
        nearest = ((x[:, None] - centroids) ** 2).sum(2).argmin(1)
        centroids = np.stack([x[nearest == c].mean(0) for c in range(len(centroids))])
    return float(((x - centroids[nearest]) ** 2).sum())


def test_aiming_beyond_the_means_saves_a_pass() -> None:
    """Four passes end lower than five plain ones from the same seeds; the first is the plain one."""
    rng = np.random.default_rng(16)
    ratio = []
    for s in range(5):
        x = rng.standard_normal((1500, 6)) @ np.diag([4, 3, 2, 1, 1, 1])
        seeds = kmeans(torch.from_numpy(x), 25, np.random.default_rng(s), seeding="random", iterations=1)
        start = x[np.random.default_rng(s).permutation(1500)[:25]]
        assert seeds.inertia == pytest.approx(plain_inertia(x, start, 1))
        four = kmeans(torch.from_numpy(x), 25, np.random.default_rng(s), seeding="random", iterations=4)
        own = x - four.centroids.numpy()[four.assignment.numpy()]
        assert four.inertia == pytest.approx((own**2).sum())
        ratio.append(four.inertia / plain_inertia(x, start, 5))
    assert np.mean(ratio) < 0.995


def test_a_weight_counts_like_copies() -> None:
    x = blobs(5, 200, 4)
    copies = torch.from_numpy(np.random.default_rng(6).integers(1, 4, size=200))
    single = kmeans(x, 4, np.random.default_rng(0), copies.double(), iterations=100, tolerance=0)
    many = kmeans(x.repeat_interleave(copies, 0), 4, np.random.default_rng(0), iterations=100, tolerance=0)
    assert single.inertia == pytest.approx(many.inertia)


def test_the_generator_decides() -> None:
    x = blobs(7, 600, 9)
    a, b, c = (kmeans(x, 9, np.random.default_rng(s), iterations=2) for s in (1, 1, 2))
    assert torch.equal(a.centroids, b.centroids)
    assert not torch.equal(a.centroids, c.centroids)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_several_problems_together_are_each_alone(weighted: bool, threads: int) -> None:
    """Of different sizes, over several blocks of items, and stopping after different numbers of passes."""
    x = [blobs(12, 3000, 9).float(), blobs(13, 2100, 5).float(), blobs(14, 40, 3).float()]
    k = [30, 4, 40]
    weight = [torch.linspace(0, 2, len(one)) for one in x] if weighted else None

    def rngs() -> list[np.random.Generator]:
        return [np.random.default_rng(s) for s in (5, 6, 7)]

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = kmeans_each(x, k, rngs(), weight, 15)
    finally:
        torch.set_num_threads(before)
    for r, rng in enumerate(rngs()):
        alone = kmeans(x[r], k[r], rng, None if weight is None else weight[r], 15)
        assert torch.equal(together[r].centroids, alone.centroids)
        assert torch.equal(together[r].assignment, alone.assignment)
        assert together[r].inertia == alone.inertia


@pytest.mark.parametrize("weighted", [False, True])
def test_several_problems_are_one_batch_where_replicates_are_joined(
    weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of different sizes and lengths, with a cluster that runs empty; and the items nearest to their centroids."""
    x = [blobs(12, 3000, 9), torch.cat([blobs(16, 900, 7), torch.zeros(50, 8).double()])[-60:], blobs(14, 40, 3)]
    k = [30, 12, 40]
    for some in (x, [x[0]] * 3):
        weight = [torch.linspace(0, 2, len(one)) for one in some] if weighted else None

        def found(some: list[Tensor] = some, weight: list[Tensor] | None = weight) -> list[Any]:
            rngs = [np.random.default_rng(s) for s in (5, 6, 7)]
            clusters = kmeans_each(some, k, rngs, weight, 15)
            return list(zip(clusters, nearest_items_each(some, [one.centroids for one in clusters]), strict=True))

        rngs = [np.random.default_rng(s) for s in (5, 6, 7)]
        own = [None] * 3 if weight is None else weight
        alone = [kmeans(*each, iterations=15) for each in zip(some, k, rngs, own, strict=True)]
        other = replace(devices.of("cpu"), looks_are_free=False, numpy_reads=False, joins_replicates=True)
        with monkeypatch.context() as patch:
            patch.setattr(devices, "of", lambda x, other=other: other)
            together = found()
        for (ours, items), theirs, one in zip(together, alone, some, strict=True):
            assert torch.equal(ours.assignment, theirs.assignment)
            torch.testing.assert_close(ours.centroids, theirs.centroids)
            assert ours.inertia == pytest.approx(theirs.inertia, abs=1e-9)
            assert torch.equal(items, nearest_items(one, ours.centroids))


def test_a_core_need_not_wait_for_the_last_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass is one round of jobs for all problems and blocks, and no job is a whole problem."""
    from alfm.geometry import kmeans as module

    jobs = []
    real = module.side_by_side
    monkeypatch.setattr(module, "side_by_side", lambda some, device: jobs.append(len(some)) or real(some, device))
    x = blobs(15, 3000, 9)
    kmeans_each([x] * 5, [8] * 5, [np.random.default_rng(s) for s in range(5)], iterations=2, tolerance=0)
    assert jobs == [5, 15, 5, 15, 5]


@pytest.mark.parametrize("iterations", [1, 2, 3, 50])
@pytest.mark.parametrize("seed", range(3))
def test_empty_clusters_are_filled_with_the_same_items_where_looks_cost(
    iterations: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many at once, of several donors, of which a few have nothing to spare; with items that weigh nothing."""
    rng = np.random.default_rng(seed)
    heavy = torch.from_numpy(rng.normal(size=(4, 3))).repeat(60, 1)
    x = torch.cat([heavy, torch.from_numpy(rng.normal(size=(40, 3)) * 3)])[rng.permutation(280)]
    weight = torch.from_numpy(rng.choice([0.0, 1.0, 2.0], 280))
    for own in (None, [weight, weight.flip(0)]):
        alone = kmeans_each([x] * 2, [30, 25], _generators(seed), own, iterations, seeding="random")
        other = replace(devices.of("cpu"), looks_are_free=False, numpy_reads=False, joins_replicates=True)
        with monkeypatch.context() as patch:
            patch.setattr(devices, "of", lambda x, other=other: other)
            together = kmeans_each([x] * 2, [30, 25], _generators(seed), own, iterations, seeding="random")
        for ours, theirs in zip(together, alone, strict=True):
            assert torch.equal(ours.assignment, theirs.assignment)
            torch.testing.assert_close(ours.centroids, theirs.centroids)
            assert ours.inertia == pytest.approx(theirs.inertia, abs=1e-9)


def _generators(seed: int) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, r]) for r in range(2)]


def test_empty_clusters_are_filled() -> None:
    # Random seeds among heavy duplicates coincide, so most clusters start empty.
    rng = np.random.default_rng(8)
    x = torch.cat([torch.zeros(500, 3), torch.from_numpy(rng.standard_normal((20, 3)).astype(np.float32)) * 9])
    got = kmeans(x, 10, rng, seeding="random", iterations=50)
    assert len(got.assignment.unique()) == 10
    assert torch.isfinite(got.centroids).all()


@pytest.mark.parametrize("seeding", ["d2", "random"])
def test_more_clusters_than_distinct_points(seeding: str) -> None:
    x = torch.tensor([[0.0, 1.0], [5.0, 5.0], [0.0, 1.0], [2.0, 0.0], [5.0, 5.0]])
    for k in (3, 4, 5, 8):
        got = kmeans(x, k, np.random.default_rng(k), seeding=seeding)
        assert got.centroids.shape == (k, 2)
        assert torch.isfinite(got.centroids).all()
        if seeding == "d2":
            assert got.inertia == pytest.approx(0, abs=1e-5)
        items = nearest_items(x, got.centroids)
        assert len(set(items.tolist())) == len(items) == min(k, 5)


def test_weights_of_zero() -> None:
    x = blobs(9, 100, 3)
    zero = torch.zeros(100, dtype=torch.float64)
    assert torch.isfinite(kmeans(x, 5, np.random.default_rng(0), zero).centroids).all()
    zero[:3] = 1
    got = kmeans(x, 5, np.random.default_rng(0), zero)
    assert torch.isfinite(got.centroids).all()
    assert got.inertia == pytest.approx(0, abs=1e-9)


def test_refuses_nonsense() -> None:
    x = blobs(10, 10, 2)
    with pytest.raises(ValueError, match="at least one"):
        kmeans(x, 0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least one"):
        kmeans(x[:0], 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match="negative"):
        kmeans(x, 2, np.random.default_rng(0), -torch.ones(10))


def test_nearest_items_without_conflict_is_the_argmin() -> None:
    x = blobs(11, 5000, 40, 16)
    centroids = x[torch.arange(0, 5000, 170)] + 0.01
    nearest = (x[:, None] - centroids).square().sum(2).argmin(0)
    assert len(nearest.unique()) == len(nearest)
    assert nearest_items(x, centroids).tolist() == nearest.tolist()


def test_nearest_items_in_conflict() -> None:
    x = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    # All three want item 0; the second is closest to it, then the first takes the next, the third what is left.
    assert nearest_items(x, torch.tensor([[0.2], [0.1], [0.3]])).tolist() == [1, 0, 2]
    # Equal centroids: the lower one goes first; more centroids than items: the last get nothing.
    assert nearest_items(x, torch.zeros(6, 1)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("weighted", [False, True])
def test_where_looks_are_waits_a_pass_comes_to_the_same(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With sums taken anew and one look; passes that fill empty clusters too."""
    rng = np.random.default_rng(8)
    blocks = torch.cat([blobs(16, 900, 7), torch.zeros(50, 8, dtype=torch.float64)])
    weight = torch.from_numpy(rng.random(950)) if weighted else None
    for x, k, seeding in ((blocks, 9, "d2"), (blocks[-60:], 12, "random")):
        w = None if weight is None else weight[: len(x)]
        expected = kmeans(x, k, np.random.default_rng(3), w, seeding=seeding)
        with monkeypatch.context() as patch:
            other = replace(devices.of("cpu"), looks_are_free=False, numpy_reads=False)
            patch.setattr(devices, "of", lambda x, other=other: other)
            found = kmeans(x, k, np.random.default_rng(3), w, seeding=seeding)
        assert torch.equal(found.assignment, expected.assignment)
        torch.testing.assert_close(found.centroids, expected.centroids)
        assert found.inertia == pytest.approx(expected.inertia)
