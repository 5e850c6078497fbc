"""Coverage against definitions written out in float64, and the graph against the version without one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alfm.features.features import Features
from alfm.geometry.max_coverage import Cover, CoverState, purity_distances, purity_radius
from alfm.geometry.pairs import block_pairs


def clustered(n: int = 230, dim: int = 12, groups: int = 7, seed: int = 0, dtype: str = "float32") -> Features:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, dim)) * 2
    x = centres[rng.integers(groups, size=n)] + rng.normal(size=(n, dim))
    return Features(x.astype(dtype), block_rows=50)


def streamed(pool: Features) -> Features:
    """The same features with no coordinates kept resident."""
    other = Features(pool.features, block_rows=50)
    other.resident = False
    return other


def distances(pool: Features) -> np.ndarray:
    u = pool.features.numpy().astype(np.float64)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    return np.sqrt(((u[:, None] - u[None]) ** 2).sum(-1))


def gap_radius(d: np.ndarray, quantile: float) -> float:
    """A radius near a quantile of the distances from which every pair keeps a distance of at least 1e-5."""
    values = np.unique(d[np.triu_indices(len(d), 1)])
    start = np.searchsorted(values, np.quantile(values, quantile))
    wide = start + np.flatnonzero(np.diff(values[start:]) > 4e-5)[0]
    return float((values[wide] + values[wide + 1]) / 2)


def plain_greedy(ball: np.ndarray, covered: np.ndarray, allowed: np.ndarray, budget: int) -> list[int]:
    picks: list[int] = []
    covered, allowed = covered.copy(), allowed.copy()
    for _ in range(budget):
        gain = np.where(allowed, (ball & ~covered).sum(1), -1)
        best = int(gain.argmax())
        if gain[best] < 1:
            break
        picks.append(best)
        covered |= ball[best]
        allowed[best] = False
    return picks


@pytest.mark.parametrize("block", [1, 37, 64, 300])
@pytest.mark.parametrize("keep", [True, False])
def test_block_pairs_visit_every_pair_once(block: int, keep: bool) -> None:
    pool = clustered(75)
    unit = (pool if keep else streamed(pool)).unit
    assert (unit.matrix is not None) == keep
    seen = np.zeros((75, 75), dtype=int)
    for rows, x, columns, y in block_pairs(unit, block):
        assert torch.equal(x, unit.rows(torch.arange(rows.start, rows.stop)))
        assert torch.equal(y, unit.rows(torch.arange(columns.start, columns.stop)))
        seen[rows, columns] += 1
        if rows != columns:
            seen[columns, rows] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("block", [64, 500])
def test_purity_distances_are_the_nearest_of_another_class(block: int) -> None:
    pool = clustered(dtype="float64")
    pseudo = np.random.default_rng(1).integers(5, size=pool.N)
    d = distances(pool)
    expected = np.where(pseudo[:, None] == pseudo[None], np.inf, d).min(1)
    found = purity_distances(pool.unit, torch.from_numpy(pseudo), block)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)
    single = clustered()
    np.testing.assert_allclose(
        purity_distances(single.unit, torch.from_numpy(pseudo), block).numpy(), expected, atol=1e-5
    )
    assert torch.isinf(purity_distances(pool.unit, torch.zeros(pool.N, dtype=torch.int64))).all()


def test_purity_radius_is_the_largest_pure_enough() -> None:
    r = torch.arange(1, 21, dtype=torch.float64)
    assert purity_radius(r, 0.95) == 2.0  # one ball of 20 may be impure: the second smallest
    assert purity_radius(r, 1.0) == 1.0
    assert purity_radius(r[:10], 0.9) == 2.0  # (1 - 0.9) * 10 is just below 1 in floats
    assert purity_radius(r[:19], 0.95) == 1.0  # floor(0.95) = 0
    assert purity_radius(r.flip(0), 0.5) == 11.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_radius_and_cover_agree_about_purity(dtype: str) -> None:
    """Balls of the chosen radius hold one pseudo-class for the promised share of items, no further pair slips in."""
    pool = clustered(dtype=dtype)
    pseudo = np.random.default_rng(1).integers(3, size=pool.N)
    r = purity_distances(pool.unit, torch.from_numpy(pseudo))
    for purity in (0.95, 0.5):
        cover = Cover(pool.unit, purity_radius(r, purity), block=64)
        assert cover.offsets is not None and cover.indices is not None
        pure = [
            (pseudo[cover.indices[cover.offsets[i] : cover.offsets[i + 1]]] == pseudo[i]).all() for i in range(pool.N)
        ]
        assert np.mean(pure) >= purity
        assert np.array_equal(pure, (r >= cover.delta).numpy())


@pytest.mark.parametrize("block", [64, 230, 115])
def test_graph_is_the_definition_with_the_last_partial_block(block: int) -> None:
    pool = clustered()
    d = distances(pool)
    delta = gap_radius(d, 0.1)
    ball = d < delta
    cover = Cover(pool.unit, delta, block=block)
    assert cover.indices is not None and cover.indices.dtype == np.int32 and cover.offsets.dtype == np.int64
    for i in range(pool.N):
        assert np.array_equal(cover.indices[cover.offsets[i] : cover.offsets[i + 1]], np.flatnonzero(ball[i]))
    assert np.array_equal(cover.degrees.numpy(), ball.sum(1))


@pytest.mark.parametrize("quantile", [0.01, 0.1, 0.5])
def test_graph_free_equals_graph_and_plain_greedy(quantile: float) -> None:
    pool = clustered()
    d = distances(pool)
    delta = gap_radius(d, quantile)
    ball = d < delta
    rng = np.random.default_rng(3)
    labelled = rng.choice(pool.N, 9, replace=False)
    allowed = rng.random(pool.N) < 0.8
    allowed[labelled] = False
    start = ball[labelled].any(0)
    expected = plain_greedy(ball, start, allowed, 12)
    covers = [
        Cover(pool.unit, delta),
        Cover(pool.unit, delta, memory_cap=0, block=64),
        Cover(streamed(pool).unit, delta, block=64),
    ]
    assert [c.indices is None for c in covers] == [False, True, False]
    for cover in covers:
        state = CoverState(cover)
        state.add(torch.from_numpy(labelled))
        assert np.array_equal(state.covered.numpy(), start)
        assert np.array_equal(state.degrees.numpy(), (ball & ~start).sum(1))
        picks = state.select(torch.from_numpy(allowed), 12)
        assert picks[: len(expected)].tolist() == expected
        after = start | ball[picks.numpy()].any(0)
        assert np.array_equal(state.covered.numpy(), after)
        assert np.array_equal(state.degrees.numpy(), (ball & ~after).sum(1))
        assert state.covered_share == pytest.approx(after.mean())
        assert np.array_equal(cover.degrees.numpy(), ball.sum(1))  # shared: a replicate leaves no trace


def test_state_is_a_function_of_the_picks() -> None:
    pool = clustered()
    cover = Cover(pool.unit, 0.5)
    allowed = torch.ones(pool.N, dtype=torch.bool)
    one = CoverState(cover)
    first = one.select(allowed, 5)
    allowed[first] = False
    rebuilt = CoverState(cover)
    rebuilt.add(first.flip(0))
    assert torch.equal(rebuilt.degrees, one.degrees) and torch.equal(rebuilt.covered, one.covered)
    assert torch.equal(one.select(allowed, 5), rebuilt.select(allowed, 5))


def test_ties_go_to_the_lower_index() -> None:
    x = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)  # four groups of three equal items
    state = CoverState(Cover(Features(x).unit, 0.5))
    assert state.select(torch.ones(12, dtype=torch.bool), 4).tolist() == [0, 3, 6, 9]


@pytest.mark.parametrize("cap", [0, 1 << 30])
def test_when_everything_is_covered_it_goes_on_with_the_farthest(cap: int) -> None:
    pool = clustered(60, dtype="float64")
    d = distances(pool)
    allowed = np.ones(60, dtype=bool)
    allowed[::3] = False
    state = CoverState(Cover(pool.unit, 3.0, memory_cap=cap))  # any ball covers everything
    picks = state.select(torch.from_numpy(allowed), 100)
    assert len(picks) == allowed.sum() == len(set(picks.tolist()))
    assert allowed[picks.numpy()].all()
    assert picks[0] == 1 and state.covered_share == 1.0
    chosen = [1]
    for pick in picks[1:10].tolist():
        free = allowed.copy()
        free[chosen] = False
        assert pick == np.where(free, d[:, chosen].min(1), -1).argmax()
        chosen.append(pick)


def test_infinite_and_zero_radius() -> None:
    pool = clustered(40)
    assert (Cover(pool.unit, float("inf")).degrees == 40).all()
    assert (Cover(pool.unit, 0.0).degrees == 1).all()
    with pytest.raises(ValueError, match="delta"):
        Cover(pool.unit, float("nan"))
