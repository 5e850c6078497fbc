"""Pairs that can still gain, kept on a device: here on the CPU's tensors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from alfm.devices import Device
from alfm.features.features import Features, Vectors
from alfm.geometry import nearer_pairs
from alfm.geometry.herding import first_gains
from alfm.geometry.kernels import RBF, best_similarities
from alfm.geometry.nearer_pairs import NearerPairs, Together

KERNELS = [RBF(0.5), RBF(0.8), RBF(1.1)]


def draw(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(N: int = 300) -> Vectors:
    return Features(draw(N, 8, seed=0) - 0.5).unit


def found(vectors: Vectors, rows: list[Tensor]) -> list[NearerPairs]:
    made = nearer_pairs.made(vectors, rows)
    return [one for one in made if one is not None]


def check(states: list[NearerPairs], kernels: list[RBF]) -> Together:
    """Gains by pairs are those by a pass."""
    vectors, every = states[0].vectors, Together(states)
    kappa = best_similarities(vectors, kernels, [one.added for one in states])
    weight = draw(*kappa.shape, seed=2)
    torch.testing.assert_close(every.gains(kernels, kappa, weight), first_gains(vectors, kernels, kappa, weight))
    higher = kappa + 0.1 * draw(*kappa.shape, seed=3)  # as picks raise it
    torch.testing.assert_close(every.gains(kernels, higher, weight), first_gains(vectors, kernels, higher, weight))
    return every


def test_gains_are_those_of_a_pass_and_lists_get_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """From round to round, with other widths and weights; of several replicates, and of one of them under another
    number."""
    monkeypatch.setattr("alfm.geometry.pairs.pair_block", lambda vectors: 64)
    vectors, order = unit(), draw(300, seed=1).argsort()
    states = found(vectors, [order[:10], order[20:32], order[40:45]])
    before = check(states, KERNELS)
    assert len(before.pairs.item) < 3 * 300**2 / 4
    states[0].add(order[50:60])
    states[2].add(order[60:75])
    after = check(states, KERNELS[::-1])
    assert len(after.pairs.item) < 0.8 * len(before.pairs.item)
    assert [len(one.added) for one in states] == [20, 12, 20]
    states[2].add(order[80:90])
    check([states[2]], KERNELS[:1])
    check([states[1], states[2]], KERNELS[1:])


def test_there_are_none_without_labels_or_room(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(60)
    rows = torch.arange(5)
    assert nearer_pairs.made(vectors, [rows, rows[:0]]) == [None, None]
    monkeypatch.setattr(Device, "free_bytes", lambda self: 1000)
    assert nearer_pairs.made(vectors, [rows]) == [None]


def test_equal_items_are_pairs_of_one_another() -> None:
    vectors = Features(torch.eye(4, dtype=torch.float64).repeat_interleave(3, 0)).unit
    check(found(vectors, [torch.tensor([0]), torch.tensor([3, 4])]), KERNELS[:2])
