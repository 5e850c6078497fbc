"""Highest scores first, ties by the lower index."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from alfm import devices
from alfm.geometry.topk import top, top_each


@pytest.mark.parametrize("levels", [3, 50, 10**6])
@pytest.mark.parametrize("k", [0, 1, 7, 60, 200, 500])
def test_matches_a_full_sort(levels: int, k: int) -> None:
    rng = np.random.default_rng(levels + k)
    score = torch.from_numpy(rng.integers(levels, size=300).astype(np.float32))
    allowed = torch.from_numpy(rng.random(300) < 0.7)
    rows = sorted(np.flatnonzero(allowed.numpy()), key=lambda i: (-float(score[i]), i))
    assert top(score, allowed, k).tolist() == rows[:k]


def test_infinite_scores_keep_their_place() -> None:
    score = torch.tensor([-torch.inf, 1.0, torch.inf, -torch.inf, torch.inf])
    assert top(score, torch.ones(5, dtype=torch.bool), 4).tolist() == [2, 4, 1, 0]


def test_nan_is_refused_only_where_it_could_be_picked() -> None:
    score = torch.tensor([0.0, torch.nan, 2.0])
    with pytest.raises(ValueError, match="item 1 is NaN"):
        top(score, torch.ones(3, dtype=torch.bool), 2)
    assert top(score, torch.tensor([True, False, True]), 2).tolist() == [2, 0]


def test_nothing_allowed() -> None:
    assert top(torch.zeros(4), torch.zeros(4, dtype=torch.bool), 2).shape == (0,)


@pytest.mark.parametrize("free", [True, False])
def test_each_row_is_ranked_as_it_is_alone(free: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by one sort for all, as on a GPU: few or none allowed, ties, infinities, NaN where it is shut."""
    there = replace(devices.of("cpu"), looks_are_free=free)
    monkeypatch.setattr(devices, "of", lambda device: there)
    rng = np.random.default_rng(5)
    score = torch.from_numpy(rng.integers(9, size=(4, 60)).astype(np.float32))
    score[0, ::7], score[1, ::5] = -torch.inf, torch.inf
    allowed = torch.from_numpy(rng.random((4, 60)) < 0.8)
    allowed[2, 5:], allowed[3] = False, False
    score[~allowed & (score > 4)] = torch.nan
    for k in (0, 1, 20, 60, 99):
        found = top_each(score, allowed, k)
        assert found.shape == (4, min(k, 60)) and found.dtype == torch.int64
        for own, *row in zip(found, score, allowed, strict=True):
            wanted = top(*row, k).tolist()
            assert own.tolist() == wanted + [-1] * (len(own) - len(wanted))
    score[1, 3], allowed[1, 3] = torch.nan, True
    with pytest.raises(ValueError, match="item 3 is NaN"):
        top_each(score, allowed, 2)
