"""k-means on a part: what every item is told afterwards, and how little is lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from alfm import devices
from alfm.features.features import Features
from alfm.geometry import kmeans_on_part as module
from alfm.geometry.kmeans import kmeans, nearest_items
from alfm.geometry.kmeans_on_part import centroids_of_part, nearest_clusters, nearest_places, nearest_rows


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.Device, "block_rows", lambda self, dim: 97)
    monkeypatch.setattr(module, "_PIECE", 23)


def blobs(n: int, k: int = 12, d: int = 8) -> Tensor:
    rng = np.random.default_rng(n)
    centre = rng.standard_normal((k, d)) * 2
    return torch.from_numpy((centre[rng.integers(k, size=n)] + rng.standard_normal((n, d))).astype(np.float32))


@pytest.mark.parametrize("k", [1, 7, 40])
def test_nearest_places_are_the_nearest_items(k: int) -> None:
    x = blobs(700)
    centroids = x[torch.arange(k)] + 0.1
    places = nearest_places(lambda rows: x[rows], len(x), centroids)
    assert places.tolist() == nearest_items(x, centroids).tolist()


def test_centroids_with_one_nearest_item_get_their_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """All thirty ask for the same item; more of the nearest ones are looked at until each has its own."""
    monkeypatch.setattr(module, "_KEPT", 2)
    x = blobs(300)
    centroids = x[:1] + torch.linspace(0.001, 0.002, 30)[:, None]
    places = nearest_places(lambda rows: x[rows], len(x), centroids)
    assert places.tolist() == nearest_items(x, centroids).tolist()
    assert len(set(places.tolist())) == 30


def test_rows_of_several_replicates_are_found_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each among its own candidates, the first of which all ask for the same few."""
    monkeypatch.setattr(module, "_KEPT", 2)
    x, visits = blobs(700), []
    wanted = [torch.arange(700) % 3 == 0, torch.arange(700) > 690, torch.ones(700, dtype=torch.bool)]
    centroids = [x[:9] + 0.1, x[:20] + 0.1, x[:1] + torch.linspace(0.001, 0.002, 30)[:, None]]
    found = nearest_rows(lambda rows: visits.append(rows) or x[rows], wanted, centroids)
    for own, free, c in zip(found, wanted, centroids, strict=True):
        rows = free.nonzero()[:, 0]
        assert own.tolist() == rows[nearest_items(x[rows], c)].tolist()
    assert sum(rows.start == 0 for rows in visits) <= 4


def test_more_centroids_than_items() -> None:
    x = blobs(5)
    places = nearest_places(lambda rows: x[rows], 5, torch.cat([x, x]))
    assert sorted(places.tolist()) == [0, 1, 2, 3, 4]


def test_every_item_goes_to_the_nearest_centroid_of_each_replicate() -> None:
    pool = Features(blobs(500), memory="host", block_rows=64)
    centroids = [pool.unit.rows(torch.arange(k)) for k in (4, 9)]
    for found, c in zip(nearest_clusters(pool.unit, centroids), centroids, strict=True):
        x = torch.cat([x for _, x in pool.unit.blocks()])
        assert torch.equal(found.long(), torch.cdist(x.double(), c.double()).argmin(1))


@pytest.mark.parametrize("weighted", [False, True])
def test_a_part_loses_little(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EACH", 1)
    rng, k = np.random.default_rng(0), 20
    x = torch.from_numpy(rng.standard_normal((6000, 8))).float()  # no clusters, so that seeds matter little
    weight = torch.from_numpy(rng.random(6000) ** 3).float() if weighted else None
    ratios = []
    for seed in range(5):
        full = kmeans(x, k, np.random.default_rng(seed), weight, 5)
        part = centroids_of_part(
            lambda rows: x[rows], len(x), k, np.random.default_rng(seed), x.device, weight, 2000, 5
        )
        distance = torch.cdist(x, part).amin(1).square()
        ratios.append(float((distance if weight is None else weight * distance).sum()) / full.inertia)
    assert np.mean(ratios) < 1.03


def test_no_more_than_the_part_is_gathered_and_the_generator_decides() -> None:
    x, asked = blobs(4000), []

    def take(rows: Tensor) -> Tensor:
        asked.append(rows)
        return x[rows]

    one, two = (centroids_of_part(take, 4000, 3, np.random.default_rng(5), x.device, most=900) for _ in range(2))
    assert torch.equal(one, two) and one.shape == (3, 8)
    assert [len(rows.unique()) for rows in asked] == [900, 900]
    centroids_of_part(take, 4000, 20, np.random.default_rng(5), x.device, most=900)
    assert len(asked[-1]) == 2000  # a hundred for each cluster
