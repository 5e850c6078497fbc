"""Balls of different sizes against definitions written out in float64, and lists against products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from geometry.test_max_coverage import clustered, distances, gap_radius, streamed

from alfm.features.features import Features
from alfm.geometry.balls import (
    Centres,
    ListedBalls,
    MultipliedBalls,
    NearPairs,
    PairsAround,
    ball_purity,
    covered_by,
    out_degrees,
)
from alfm.geometry.pairs import limit


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("hold", [0, 1 << 20])
def test_balls_of_different_sizes(hold: int, keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alfm.geometry.balls._CHUNK", 4)
    monkeypatch.setattr("alfm.geometry.balls._BLOCK", 100)
    pool = clustered(dtype="float64")
    d = distances(pool)
    rng = np.random.default_rng(5)
    rows = rng.choice(pool.N, 11, replace=False)
    labels, predicted = rng.integers(3, size=11), rng.integers(3, size=pool.N)
    radii = rng.uniform(0.0, 1.1, size=11)
    radii[0] = 0.0
    ball = (d[rows] < radii[:, None]) | (np.arange(pool.N) == rows[:, None])
    agree = predicted == labels[:, None]
    t = torch.from_numpy
    unit = (pool if keep else streamed(pool)).unit
    centres = Centres(unit, t(rows), hold)
    for _ in range(2):
        assert np.array_equal(covered_by(centres, t(radii)).numpy(), ball.any(0))
        found = [ball_purity(unit, d2, t(radii)[chunk], t(agree)[chunk]) for chunk, d2 in centres]
        assert [len(part) for part in found] == [4, 4, 3]
        np.testing.assert_allclose(torch.cat(found).numpy(), (ball & agree).sum(1) / ball.sum(1))


def test_out_degrees_of_replicates_with_many_and_few_uncovered() -> None:
    pool = clustered(dtype="float64")
    d = distances(pool)
    rng = np.random.default_rng(5)
    uncovered = rng.random((4, pool.N)) < np.array([[0.9], [0.05], [0.5], [0.2]])
    radius = np.array([0.4, 0.8, 0.0, 0.3])
    ball = [(d < r) | np.eye(pool.N, dtype=bool) for r in radius]
    expected = np.stack([(b & u).sum(1) for b, u in zip(ball, uncovered, strict=True)])
    radii, flags = torch.from_numpy(radius), torch.from_numpy(uncovered)
    limits = limit(radii, pool.unit)
    together = out_degrees(pool.unit, limits, flags, block=64)
    assert np.array_equal(together.numpy(), expected)
    around = PairsAround(pool.unit)
    assert around.holds(0.8) and torch.equal(around.degrees(limits, flags), together)
    first = around.pairs
    assert around.holds(0.79) and around.pairs is first  # nearly as far
    assert around.holds(0.3) and around.pairs is not first
    assert torch.equal(around.degrees(limits[2:], flags[2:]), together[2:])
    near = NearPairs(pool.unit, block=64)
    near.hold(0.8)
    for r in range(4):
        alone = out_degrees(pool.unit, limits[r : r + 1], flags[r : r + 1], block=64)
        assert torch.equal(alone[0], together[r])
        assert torch.equal(ListedBalls(near, radii[r]).degrees(flags[r]), together[r])


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("block", [64, 230, 115])
def test_lists_hold_every_pair_nearer_than_their_reach(block: int, keep: bool) -> None:
    pool = clustered()
    d = distances(pool)
    near = NearPairs((pool if keep else streamed(pool)).unit, block=block)
    assert near.most == np.inf and near.reach < 0
    for quantile in (0.05, 0.3, 0.1):
        near.hold(gap_radius(d, quantile))
        inside = (d < near.reach) & ~np.eye(pool.N, dtype=bool)
        assert np.array_equal(np.diff(near.offsets), inside.sum(1))
        for i in range(pool.N):
            own = slice(near.offsets[i], near.offsets[i + 1])
            assert np.array_equal(near.indices[own], np.flatnonzero(inside[i]))
            np.testing.assert_allclose(np.sqrt(near.d2[own]), d[i][inside[i]], atol=1e-4)
        assert near.reach == pytest.approx(1.02 * gap_radius(d, quantile))
    held = near.indices
    near.hold(0.99 * gap_radius(d, 0.1))
    assert near.indices is held  # a little less is there already


def test_lists_and_products_answer_alike() -> None:
    pool = clustered(dtype="float64")
    d = distances(pool)
    near = NearPairs(pool.unit, block=64)
    near.hold(1.0)
    rng = np.random.default_rng(6)
    items = torch.from_numpy(rng.choice(pool.N, 9, replace=False))
    for radius in (0.0, 0.3, 0.9):
        flags = torch.from_numpy(rng.random(pool.N) < 0.6)
        expected = ((d < radius) | np.eye(pool.N, dtype=bool)) & flags.numpy()
        multiplied = MultipliedBalls(pool.unit, limit(radius, pool.unit))
        for balls in (ListedBalls(near, torch.tensor(radius)), multiplied):
            assert balls.counts(items, flags).tolist() == expected.sum(1)[items].tolist()
            left = flags.clone()
            balls.clear(items[:1], left)
            assert np.array_equal(left.numpy(), flags.numpy() & ~expected[items[0]])


def test_equal_items_are_neighbours_of_one_another() -> None:
    x = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
    near = NearPairs(Features(x).unit)
    near.hold(0.5)
    everything = torch.ones(12, dtype=torch.bool)
    assert ListedBalls(near, torch.tensor(0.5)).degrees(everything).tolist() == [3] * 12
    assert ListedBalls(near, torch.tensor(0.0)).degrees(everything).tolist() == [1] * 12


def test_what_fits_is_a_matter_of_the_pool() -> None:
    pool = clustered(dtype="float64")
    d = distances(pool)
    cap = int(0.1 * pool.N**2) * 12
    near = NearPairs(pool.unit, cap)
    assert (d < near.most).mean() == pytest.approx(0.1, abs=0.04)
    near.hold(0.999 * near.most)
    assert near.reach == near.most
    assert len(near.indices) * 12 < 1.4 * cap
