"""Blocked neighbours against all distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from alfm.features.features import Features
from alfm.geometry import knn as neighbours
from alfm.geometry.knn import any_near, knn


def full(x: Tensor, k: int, queries: Tensor | None) -> tuple[Tensor, Tensor]:
    q = x if queries is None else queries
    distance = (q[:, None] - x[None]).square().sum(2).sqrt()
    if queries is None:
        distance.fill_diagonal_(torch.inf)
    order = torch.sort(distance, dim=1, stable=True)
    k = min(k, len(x) - (queries is None))
    return order.values[:, :k], order.indices[:, :k]


@pytest.fixture(params=[7, 64, 2048])
def side(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(neighbours, "_SIDE", request.param)
    monkeypatch.setattr(neighbours, "_side", lambda device: request.param)
    return request.param


def test_sides_of_blocks_suit_the_device() -> None:
    assert (neighbours._side(torch.device("cpu")), neighbours._side(torch.device("cuda"))) == (1024, 5792)


@pytest.mark.parametrize("queried", [False, True])
@pytest.mark.parametrize("k", [1, 6, 1000])
def test_all_distances(side: int, k: int, queried: bool) -> None:
    rng = np.random.default_rng(k)
    x = torch.from_numpy(rng.standard_normal((150, 5)) + 3)
    queries = torch.from_numpy(rng.standard_normal((40, 5)) + 3) if queried else None
    for source in (x, Features(x).raw):
        distance, index = knn(source, k, queries)
        expected, rows = full(x, k, queries)
        assert torch.equal(index, rows)
        torch.testing.assert_close(distance, expected)


def test_ties_go_to_the_lower_row(side: int) -> None:
    # A grid of small integers: exact arithmetic, and ties everywhere.
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 3, size=(130, 3)).astype(np.float32))  # by faiss
    distance, index = knn(x, 9)
    expected, rows = full(x, 9, None)
    assert torch.equal(index, rows)
    torch.testing.assert_close(distance, expected)


@pytest.mark.parametrize("queried", [False, True])
@pytest.mark.parametrize("k", [1, 20, 1000])
def test_single_precision_in_host_memory(k: int, queried: bool) -> None:
    """By faiss: the same neighbours as all distances in float64, duplicates included."""
    rng = np.random.default_rng(k)
    x = torch.from_numpy(rng.standard_normal((300, 16)).astype(np.float32))
    x[200:220] = x[100]
    queries = torch.from_numpy(rng.standard_normal((50, 16)).astype(np.float32)) if queried else None
    distance, index = knn(Features(x).raw, k, queries)
    expected, rows = full(x.double(), k, None if queries is None else queries.double())
    if k < 1000:  # of all distances, some differ by less than float32 can tell
        assert torch.equal(index, rows)
    assert all(len(set(row)) == len(row) for row in index.tolist())
    torch.testing.assert_close(distance, expected.float(), rtol=1e-4, atol=1e-5)


def test_near_duplicates_keep_their_digits() -> None:
    rng = np.random.default_rng(1)
    base = rng.standard_normal((50, 20)) * 5 + 30
    x = np.concatenate([base, base, base + rng.standard_normal(base.shape) * 1e-3]).astype(np.float32)
    distance, index = knn(torch.from_numpy(x), 2)
    expected, rows = full(torch.from_numpy(x).double(), 2, None)
    assert torch.equal(index[:100], rows[:100])
    torch.testing.assert_close(distance, expected.float(), rtol=1e-4, atol=0)


def test_refuses_no_neighbours() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        knn(torch.zeros(3, 2), 0)
    assert knn(torch.zeros(1, 2), 3)[1].shape == (1, 0)


@pytest.mark.parametrize("resident", [True, False])
def test_whether_any_two_are_near(resident: bool) -> None:
    """Found wherever the two are, in few dimensions and in many, and among crowds that only look near."""
    rng = np.random.default_rng(0)
    for N, D in ((1, 3), (2, 3), (300, 40), (1500, 12), (900, 400)):
        x = rng.normal(size=(N, D))
        memory = "device" if resident else "host"
        unit = Features(x.astype(np.float32), memory=memory).unit
        matrix = torch.cat([block for _, block in unit.blocks()])
        d = torch.cdist(matrix, matrix, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
        assert any_near(unit) == bool(d.min() < 0.0316)
        if N > 2:
            assert not any_near(unit)
            x[N - 1] = 2 * x[N // 3] + 1e-3 * rng.normal(size=D)
            assert any_near(Features(x.astype(np.float32), memory=memory).unit)


def test_crowds_that_a_projection_cannot_tell_apart() -> None:
    """Eight dimensions vary most; there 40 items coincide that are far apart elsewhere."""
    rng = np.random.default_rng(1)
    x = np.zeros((1000, 60))
    x[:, :8] = rng.normal(size=(1000, 8))
    x[:40, :8] = x[0, :8]
    x[:40, 8:48] = 0.3 * np.eye(40)
    assert not any_near(Features(x[:40].astype(np.float32)).unit)
    low = any_near(Features(x.astype(np.float32)).unit)
    x[39, 8:48] = x[38, 8:48]
    assert any_near(Features(x.astype(np.float32)).unit) and not low


def test_a_crowd_in_every_projection_is_looked_at_in_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features alike in all directions about a common one: all look near in a few dimensions, and no two are."""
    x = np.random.default_rng(2).normal(size=(3000, 256)) / 16 * 0.2
    x[:, 0] += 1
    unit = Features(x.astype(np.float32)).unit
    asked = []
    rows = type(unit).rows
    monkeypatch.setattr(
        type(unit), "rows", lambda self, *given, **named: asked.append(1) or rows(self, *given, **named)
    )
    assert not any_near(unit)
    assert len(asked) < 300  # not once per item
    x[2999] = x[7] * 1.5
    assert any_near(Features(x.astype(np.float32)).unit)
