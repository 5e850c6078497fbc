"""The lazy k-center greedy picks what the plain loop picks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from alfm.features.features import Features
from alfm.geometry.kcenter import FarthestFirst


def plain(x: Tensor, centres: Tensor, allowed: Tensor, budget: int) -> list[int]:
    """The textbook loop on exact differences."""
    distance = torch.full((len(x),), torch.inf, dtype=x.dtype)
    for c in centres:
        distance = torch.minimum(distance, (x - x[c]).square().sum(1))
    open_ = allowed.clone()
    picks = []
    for _ in range(min(budget, int(allowed.sum()))):
        pick = int(np.where(open_.numpy(), distance.numpy(), -np.inf).argmax())
        picks.append(pick)
        open_[pick] = False
        distance = torch.minimum(distance, (x - x[pick]).square().sum(1))
    return picks


def cloud(seed: int, n: int, d: int, dtype: torch.dtype = torch.float64) -> Tensor:
    rng = np.random.default_rng(seed)
    scale = rng.random((n, 1)) * 3
    return torch.from_numpy(rng.standard_normal((n, d)) * scale).to(dtype)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_picks_over_rounds(metric: str, dtype: torch.dtype) -> None:
    x = cloud(1, 3000, 12, dtype)
    seen = x / x.norm(dim=1, keepdim=True) if metric == "cosine" else x
    rng = np.random.default_rng(2)
    labelled = torch.from_numpy(rng.choice(3000, 40, replace=False))
    state = FarthestFirst(Features(x).raw, metric)
    allowed = torch.ones(3000, dtype=torch.bool)
    for round in range(4):
        allowed[labelled] = False
        state.add(labelled)
        picks = state.select(allowed, 35)
        assert picks.tolist() == plain(seen, labelled, allowed, 35)
        # Somebody else's labels arrive beside the picks.
        other = torch.from_numpy(rng.choice(np.flatnonzero(allowed.numpy()), round, replace=False))
        labelled = torch.cat([labelled, picks, other]).unique()


def test_blocks_that_must_be_refilled_often() -> None:
    # Many far clusters: every pick empties a cluster of large bounds, so the kept block runs dry.
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((60, 5)) * 50).repeat_interleave(100, 0)
    x = x + torch.from_numpy(rng.standard_normal(x.shape))
    allowed = torch.ones(len(x), dtype=torch.bool)
    state = FarthestFirst(Features(x).raw)
    state.add(torch.tensor([0]))
    allowed[0] = False
    assert state.select(allowed, 150).tolist() == plain(x, torch.tensor([0]), allowed, 150)


def test_many_labels_are_met_only_where_it_matters() -> None:
    x = cloud(5, 20000, 16, torch.float32)
    labelled = torch.arange(1000)
    allowed = torch.ones(20000, dtype=torch.bool)
    allowed[labelled] = False
    state = FarthestFirst(Features(x).raw)
    state.add(labelled)
    assert state.select(allowed, 20).tolist() == plain(x, labelled, allowed, 20)
    assert state.evaluated < 0.2 * 20000 * 1000


def test_work_stays_a_small_share_of_the_plain_loop() -> None:
    x = cloud(3, 20000, 16, torch.float32)
    state = FarthestFirst(Features(x).raw)
    labelled = torch.arange(50)
    allowed = torch.ones(20000, dtype=torch.bool)
    allowed[labelled] = False
    state.add(labelled)
    state.select(allowed, 1)
    before = state.evaluated
    assert len(state.select(allowed, 100)) == 100
    assert state.evaluated - before < 0.03 * 20000 * 100


def test_duplicates_and_everything_covered() -> None:
    base = cloud(4, 30, 6, torch.float32) * 37.3 + 11.7
    x = base.repeat(4, 1)  # rows 30.. repeat the first 30
    allowed = torch.ones(120, dtype=torch.bool)
    state = FarthestFirst(Features(x).raw)
    picks = state.select(allowed, 60).tolist()
    assert len(set(picks)) == 60
    # First the 30 distinct points, each at its lowest index; then what is left, by index.
    assert sorted(picks[:30]) == list(range(30))
    assert picks[30:] == list(range(30, 60))


def test_orthogonal_ties_go_to_the_lower_index() -> None:
    x = torch.eye(300, dtype=torch.float64)
    allowed = torch.ones(300, dtype=torch.bool)
    allowed[[0, 5]] = False
    state = FarthestFirst(Features(x).raw)
    state.add(torch.tensor([0, 5]))
    assert state.select(allowed, 6).tolist() == [1, 2, 3, 4, 6, 7]


def test_no_centre_yet_starts_far_from_the_mean() -> None:
    x = cloud(5, 500, 7)
    allowed = torch.ones(500, dtype=torch.bool)
    far = (x - x.mean(0)).square().sum(1).argsort(descending=True)
    allowed[far[0]] = False
    picks = FarthestFirst(Features(x).raw).select(allowed, 20)
    assert picks[0] == far[1]
    rest = allowed.clone()
    rest[picks[0]] = False
    assert picks[1:].tolist() == plain(x, picks[:1], rest, 19)


def test_never_more_than_is_allowed() -> None:
    x = cloud(6, 50, 3)
    allowed = torch.zeros(50, dtype=torch.bool)
    state = FarthestFirst(Features(x).raw)
    assert state.select(allowed, 5).tolist() == []
    allowed[[3, 9]] = True
    assert sorted(state.select(allowed, 5).tolist()) == [3, 9]


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_replicates_together_pick_what_each_picks_alone(metric: str) -> None:
    """What runs on CUDA, run here on the CPU's tensors; coordinates of one's own, other budgets, no centre yet."""
    x, other = cloud(7, 800, 9), cloud(8, 800, 5)
    for pools in ([Features(x)] * 3, [Features(x), Features(other), Features(x)]):
        allowed = torch.ones(3, 800, dtype=torch.bool)
        allowed[1, 20:] = False
        raw = [pool.raw for pool in pools]
        alone, together = ([FarthestFirst(v, metric) for v in raw] for _ in range(2))
        for states in (alone, together):
            states[0].add(torch.arange(100))
            states[2].add(torch.arange(30))
        allowed[0, :100], allowed[2, :30] = False, False
        for _ in range(2):
            found = FarthestFirst.together(together, allowed, 40)
            for r, (one, picks) in enumerate(zip(alone, found, strict=True)):
                assert one.select(allowed[r], 40).tolist() == picks.tolist()
                assert together[r].added.tolist() == one.added.tolist() and together[r].count == one.count
                allowed[r, picks] = False


def test_unknown_metric() -> None:
    with pytest.raises(ValueError, match="metric"):
        FarthestFirst(Features(cloud(8, 10, 2)).raw, "l1")
