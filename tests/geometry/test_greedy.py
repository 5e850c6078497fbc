"""Greedy selection without questions to the device: plain greedy's picks, ties, ends, renewals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from alfm import devices
from alfm.features.features import Features, Vectors
from alfm.geometry import greedy
from alfm.geometry.herding import Herding, first_gains
from alfm.geometry.kernels import RBF, Dot, best_similarity


class Covering:
    """How much weight of things not covered yet a set holds; sets (R, N, T) bool, weight (T,) float64."""

    def __init__(self, sets: Tensor, weight: Tensor, renewing: bool = False) -> None:
        self.sets, self.weight, self.renewing = sets, weight, renewing
        self.open = torch.ones(len(sets), sets.shape[2], dtype=torch.bool)
        self.state = [self.open]
        self.looks = self.renewals = 0

    def gains(self) -> Tensor:
        return (self.sets & self.open[:, None]).double() @ self.weight

    def look(self, items: Tensor) -> tuple[Tensor, Tensor]:
        self.looks += 1
        found = self.sets[torch.arange(len(items))[:, None], items]
        return (found & self.open[:, None]).double() @ self.weight, found

    def take(self, rows: Tensor, live: Tensor) -> None:
        self.open.logical_and_(~(rows & live))

    def renew(self, bounds: Tensor, steps: int) -> bool:
        assert steps > 0
        self.renewals += self.renewing
        if self.renewing:
            bounds.copy_(self.gains() + 1e-6)
        return self.renewing


def plain(sets: Tensor, weight: Tensor, allowed: Tensor, budget: int, least: float = -math.inf) -> list[int]:
    open_, free, picks = torch.ones(sets.shape[1], dtype=torch.bool), allowed.clone(), []
    for _ in range(min(budget, int(allowed.sum()))):
        gain = ((sets & open_).double() @ weight).where(free, -math.inf)
        best = int(gain.argmax())
        if gain[best] < least:
            break
        picks.append(best)
        free[best] = False
        open_ &= ~sets[best]
    return picks


def sets(n: int, t: int, share: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    whole = torch.from_numpy(rng.integers(1, 4, t).astype(np.float64))  # integers: sums are exact and often equal
    return torch.from_numpy(rng.random((n, t)) < share), whole, torch.from_numpy(rng.random(n) < 0.8)


@pytest.mark.parametrize("often", [1, 100])
@pytest.mark.parametrize("renewing", [False, True])
@pytest.mark.parametrize(("n", "share"), [(150, 0.1), (20, 0.1), (1, 1.0)])
def test_plain_greedy_with_many_ties(n: int, share: float, renewing: bool, often: int) -> None:
    own, weight, allowed = sets(n, 200, share)
    one = own[None]
    for budget in (0, 25, n):
        objective = Covering(one, weight, renewing)
        bounds = one.double() @ weight + 0.5  # a little too large
        (picks,) = greedy.stepwise(objective, bounds, allowed[None], budget, steps=often)
        assert picks.tolist() == plain(own, weight, allowed, budget)
        assert (bounds >= objective.gains()).all()
        assert objective.renewals > 0 or not renewing or budget < 25 or n < 25
    assert greedy.stepwise(Covering(one, weight), bounds, torch.zeros(1, n, dtype=torch.bool), 3)[0].tolist() == []


@pytest.mark.parametrize("often", [1, 3, 100])
def test_it_ends_before_a_gain_that_is_too_small(often: int) -> None:
    own, weight, allowed = sets(300, 200, 0.05)
    one, free = own[None], allowed[None]
    expected = plain(own, weight, allowed, 300, least=4.0)
    assert 0 < len(expected) < 100
    (picks,) = greedy.stepwise(Covering(one, weight), one.double() @ weight, free, 300, least=4.0, steps=often)
    assert picks.tolist() == expected
    (nothing,) = greedy.stepwise(Covering(one, weight), one.double() @ weight, free, 300, least=1e9, steps=often)
    assert nothing.tolist() == []


@pytest.mark.parametrize("least", [-math.inf, 4.0])
@pytest.mark.parametrize("renewing", [False, True])
def test_replicates_together_pick_what_each_picks_alone(renewing: bool, least: float) -> None:
    """However differently long they take; one may have nothing to pick from."""
    made = [sets(300, 200, share, seed) for seed, share in enumerate((0.05, 0.3, 0.01, 0.1))]
    every, weight = torch.stack([own for own, _, _ in made]), made[0][1]
    allowed = torch.stack([free for _, _, free in made])
    allowed[1] &= torch.arange(300) < 20
    allowed[3] = False
    for budget in (1, 60):
        objective = Covering(every, weight, renewing)
        found = greedy.stepwise(objective, objective.gains() + 0.5, allowed, budget, least, steps=3)
        for own, free, picks in zip(every, allowed, found, strict=True):
            assert picks.tolist() == plain(own, weight, free, budget, least)


def test_a_pick_needs_few_steps_and_the_last_ones_are_few() -> None:
    one, weight, allowed = sets(2000, 500, 0.02)
    objective = Covering(one[None], weight)
    (picks,) = greedy.stepwise(objective, objective.gains(), allowed[None], 50)
    assert len(picks) == 50 and objective.looks < 200


def test_a_step_is_captured_once_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is captured says all that it changes: a first step is taken back."""
    captures = []

    def captured(self: devices.Device, step: Callable[[], None], state: Sequence[Tensor]) -> Callable[[], None]:
        before = [s.clone() for s in state]
        step()
        for s, b in zip(state, before, strict=True):
            s.copy_(b)
        captures.append(step)
        return step

    monkeypatch.setattr(devices.Device, "captured", captured)
    one, weight, allowed = sets(300, 200, 0.05)
    objective = Covering(one[None], weight)
    (picks,) = greedy.stepwise(objective, objective.gains(), allowed[None], 40)
    assert picks.tolist() == plain(one, weight, allowed, 40) and len(captures) == 1


def test_where_kernels_alone_make_picks() -> None:
    def vectors(device: str, memory: str) -> SimpleNamespace:
        return SimpleNamespace(device=torch.device(device), pool=SimpleNamespace(memory=memory))

    assert greedy.enqueued(vectors("cuda", "device")) and greedy.enqueued(vectors("cuda:1", "device"))
    assert not greedy.enqueued(vectors("cuda", "host")) and not greedy.enqueued(vectors("cuda", "file"))
    assert not greedy.enqueued(Features(np.ones((3, 2), dtype=np.float32)).unit)


def pool(n: int, dtype: str) -> tuple[Vectors, Tensor]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 10))[rng.integers(6, size=n)] + 0.7 * rng.normal(size=(n, 10))
    return Features(x.astype(dtype)).unit, torch.from_numpy(rng.random(n) < 0.9)


def state(vectors: Vectors, kernel: RBF | Dot, added: Tensor) -> Herding:
    kappa = best_similarity(vectors, kernel, added)
    return Herding(vectors, kernel, kappa, first_gains(vectors, kernel, kappa[None])[0])


@pytest.mark.parametrize("kernel", [RBF(), RBF(0.3), Dot()])
@pytest.mark.parametrize("n", [20, 900])
def test_herding_from_nothing_and_its_state(kernel: RBF | Dot, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewals included."""
    vectors, allowed = pool(n, "float64")
    none = torch.zeros(0, dtype=torch.int64)
    lazy = state(vectors, kernel, none).select(allowed, 60)
    monkeypatch.setattr(greedy, "enqueued", lambda vectors: True)
    run = state(vectors, kernel, none)
    first = run.select(allowed, 35)
    rest = allowed.clone()
    rest[first] = False
    picks = torch.cat([first, run.select(rest, 25)])
    if n > 60:
        assert picks.tolist() == lazy.tolist()
    else:  # all of them: two left that cover but each other gain the same, and products of another shape decide
        assert sorted(picks.tolist()) == sorted(lazy.tolist())
    torch.testing.assert_close(run.kappa, best_similarity(vectors, kernel, picks))
    assert torch.equal(run.added, picks)
    assert (run.bounds + 1e-12 >= run.gains(torch.arange(n))).all()


@pytest.mark.parametrize("kernel", [RBF(), Dot()])
def test_what_was_added_pick_by_pick_is_to_the_last_bit_what_is_added_at_once(kernel: RBF | Dot) -> None:
    vectors, allowed = pool(900, "float32")
    run = state(vectors, kernel, torch.zeros(0, dtype=torch.int64))
    picks = run.select(allowed, 60)
    assert torch.equal(run.kappa, best_similarity(vectors, kernel, picks.flip(0)))


@pytest.mark.parametrize("weighted", [False, True])
def test_replicates_of_several_kernels_together_are_each_alone(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enqueued, they share products: the same picks, the last bits those of the product's shape."""
    monkeypatch.setattr(greedy, "enqueued", lambda vectors: True)
    vectors, allowed = pool(900, "float64")
    rng = np.random.default_rng(1)

    def made(r: int) -> Herding:
        kernel, added = RBF((1.0, 0.3, 0.6)[r]), torch.arange(7 * r, 7 * r + 3)
        weight = torch.from_numpy(rng.random(900)) if weighted else None
        kappa = best_similarity(vectors, kernel, added)
        gains = first_gains(vectors, kernel, kappa[None], None if weight is None else weight[None])
        return Herding(vectors, kernel, kappa, gains[0], weight)

    alone = [made(r) for r in range(3)]
    rng = np.random.default_rng(1)
    every = [made(r) for r in range(3)]
    found = Herding.together(every, allowed.expand(3, -1), 40)
    for one, other, picks in zip(alone, every, found, strict=True):
        assert one.select(allowed, 40).tolist() == picks.tolist() == other.added.tolist()
        torch.testing.assert_close(other.kappa, one.kappa)
        assert (other.bounds + 1e-12 >= other.gains(torch.arange(900))).all()


def test_where_nothing_is_enqueued_each_has_its_own_job(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, allowed = pool(300, "float64")

    def make() -> Herding:
        return state(vectors, RBF(), torch.zeros(0, dtype=torch.int64))

    free = allowed.expand(3, -1)
    apart = greedy.of_all([make] * 3, free, 10)
    asked = []
    together = classmethod(lambda cls, states, free, budget: asked.append(len(states)) or apart)
    monkeypatch.setattr(Herding, "together", together)
    assert len(apart) == 3 and not asked
    there = replace(devices.of("cpu"), enqueues_picks=True)
    monkeypatch.setattr(devices, "of", lambda x: there)
    assert greedy.of_all([make] * 3, free, 10) == apart and asked == [3]


def test_equal_items_are_taken_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greedy, "enqueued", lambda vectors: True)
    vectors = Features(np.ones((120, 3), dtype=np.float32)).unit
    allowed = torch.ones(120, dtype=torch.bool)
    allowed[0] = False
    picks = state(vectors, RBF(), torch.zeros(0, dtype=torch.int64)).select(allowed, 200)
    assert picks.tolist() == list(range(1, 120))
