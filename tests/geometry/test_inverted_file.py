"""Cells: every pair is found when all are visited, and otherwise exactly the pairs of which one visits the other's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alfm.features.features import Features
from alfm.geometry import inverted_file as module
from alfm.geometry.inverted_file import Cells, NearCover, pool_clusters
from alfm.geometry.kmeans import kmeans
from alfm.geometry.max_coverage import Cover, CoverState, purity_distances
from alfm.streams import stream


def clustered(n: int = 900, dim: int = 16, groups: int = 20, dtype: str = "float32", resident: bool = True) -> Features:
    rng = np.random.default_rng(0)
    x = 2 * rng.normal(size=(groups, dim))[rng.integers(groups, size=n)] + rng.normal(size=(n, dim))
    pool = Features(x.astype(dtype), block_rows=250)
    pool.resident = resident
    return pool


def table(cover: Cover) -> np.ndarray:
    """bool (N, N) from the lists."""
    balls = np.zeros((cover.N, cover.N), dtype=bool)
    balls[np.repeat(np.arange(cover.N), np.diff(cover.offsets)), cover.indices] = True
    return balls


def looked_at(cells: Cells) -> np.ndarray:
    """bool (N, N): one visits the other's cell, by the definition."""
    visits = (cells.visits[:, :, None] == torch.arange(cells.count)).any(1).numpy()
    pairs = visits[:, cells.cell.numpy()]
    return pairs | pairs.T


@pytest.fixture(params=[False, True], ids=["as it is", "small pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of more members than a product takes, and lists put in order a few rows at a time."""
    if request.param:
        monkeypatch.setattr(module, "MEMBERS", 7)
        monkeypatch.setattr(module, "SORTED", 100)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("delta", [0.2, 0.45, 0.8])
def test_with_all_cells_it_is_the_exact_cover(dtype: str, resident: bool, delta: float, pieces: None) -> None:
    unit = clustered(dtype=dtype, resident=resident).unit
    exact, near = Cover(unit, delta), NearCover(Cells(unit, 10**6), delta)
    assert (unit.matrix is not None) == resident
    assert near.degrees.dtype == exact.degrees.dtype and torch.equal(near.degrees, exact.degrees)
    for mine, its in ((near.offsets, exact.offsets), (near.indices, exact.indices)):
        assert mine.dtype == its.dtype and np.array_equal(mine, its)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("counted", [900, 300])
def test_how_many_pairs_there_are_is_foreseen(counted: int, resident: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COUNTED", counted)
    monkeypatch.setattr(module, "ASKED", 900)
    unit = clustered(resident=resident).unit
    pseudo = pool_clusters(unit, 20, "pseudo-classes")
    radius = float(purity_distances(unit, pseudo).kthvalue(46).values)
    pairs = (int(Cover(unit, radius).degrees.sum()) - 900) / 2
    for delta, classes in ((radius, None), (None, pseudo)):
        found, foreseen = module.foreseen_pairs(unit, delta, classes, 0.95)
        assert found == pytest.approx(radius, rel=1e-5)
        assert foreseen == pytest.approx(pairs, rel=1e-3 if counted == 900 else 0.3)


@pytest.mark.parametrize("probe", [1, 3, 20])
@pytest.mark.parametrize("resident", [True, False])
def test_the_pairs_are_those_of_which_one_visits_the_others_cell(probe: int, resident: bool, pieces: None) -> None:
    unit = clustered(dtype="float64", resident=resident).unit
    cells = Cells(unit, probe)
    near = NearCover(cells, 0.45)
    assert np.array_equal(table(near), table(Cover(unit, 0.45)) & looked_at(cells))
    assert near.degrees.tolist() == table(near).sum(1).tolist()
    assert all(np.all(np.diff(near.indices[a:b]) > 0) for a, b in zip(near.offsets, near.offsets[1:], strict=False))


def test_few_cells_find_most_neighbours_of_clustered_items() -> None:
    unit = clustered(3000).unit
    exact = int(Cover(unit, 0.4).degrees.sum()) - unit.N
    found = [int(NearCover(Cells(unit, probe), 0.4).degrees.sum()) - unit.N for probe in (1, 4, 16)]
    assert exact > 10_000 and found == sorted(found)
    assert 0.9 * exact < found[1] < exact and found[2] > 0.999 * exact


@pytest.mark.parametrize("classes", [1, 4])
def test_purity_distances(classes: int, pieces: None) -> None:
    unit = clustered(dtype="float64").unit
    pseudo = torch.from_numpy(np.random.default_rng(1).integers(classes, size=unit.N))
    exact = purity_distances(unit, pseudo)
    assert Cells(unit, 10**6).purity_distances(pseudo).numpy() == pytest.approx(exact.numpy(), abs=1e-9)
    cells = Cells(unit, 2)
    d2 = (2 - 2 * unit.matrix @ unit.matrix.T).clamp_min(0)
    d2[torch.from_numpy(~looked_at(cells)) | (pseudo[:, None] == pseudo)] = torch.inf
    assert cells.purity_distances(pseudo).numpy() == pytest.approx(d2.amin(1).sqrt().numpy(), abs=1e-7)


def test_lists_that_do_not_fit_are_not_made() -> None:
    cells = Cells(clustered().unit, 4)
    pairs = (int(NearCover(cells, 0.4).degrees.sum()) - 900) // 2
    assert NearCover(cells, 0.4, memory_cap=12 * pairs + 16 * 900).indices is not None
    assert NearCover(cells, 0.4, memory_cap=12 * pairs + 16 * 900 - 1).indices is None
    assert NearCover(cells, float("inf"), memory_cap=0).indices is None


def test_greedy_on_an_approximate_graph_never_counts_an_item_twice() -> None:
    unit = clustered().unit
    near = NearCover(Cells(unit, 2), 0.45)
    state, balls = CoverState(near), table(near)
    picks = state.select(torch.ones(900, dtype=torch.bool), 60).tolist()
    covered = balls[picks].any(0)
    assert state.covered.tolist() == covered.tolist()
    assert state.degrees.tolist() == (balls & ~covered).sum(1).tolist()


def test_items_all_alike_and_cells_without_members() -> None:
    pool = Features(np.repeat(np.eye(3, dtype=np.float32), 40, 0))
    cells = Cells(pool.unit, 10**6)
    assert cells.count == 44
    assert np.array_equal(table(NearCover(cells, 0.5)), np.kron(np.eye(3), np.ones((40, 40))).astype(bool))


def test_clusters_of_a_sample_are_those_of_the_nearest_centroid(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = clustered().unit
    assert torch.equal(pool_clusters(unit, 9, "some"), kmeans(unit.matrix, 9, stream(0, 0, "some")).assignment)
    monkeypatch.setattr(module, "TRAINED_ON", 300)
    rng = stream(0, 0, "some")
    rows = np.sort(rng.choice(900, 300, replace=False))
    centroids = kmeans(unit.matrix[rows], 9, rng).centroids
    assert torch.equal(pool_clusters(unit, 9, "some"), torch.cdist(unit.matrix, centroids).argmin(1))
    assert torch.equal(pool_clusters(clustered(resident=False).unit, 9, "some"), pool_clusters(unit, 9, "some"))
