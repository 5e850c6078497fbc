"""FALCUN: sequence of the deterministic form, draw probabilities of the other, hard situations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.falcun import falcun, falcun_deterministic
from strategies.factory import SITUATIONS, assert_equivariant, assert_replicates_independent, make_query, picks_in, seen

from alfm.strategies.falcun import Falcun, contrastive


def test_sequence_of_the_deterministic_form() -> None:
    query = make_query(block_rows=50)
    view = seen(query)
    picks = Falcun(deterministic=True).select(query, 40)[0].tolist()
    assert picks == falcun_deterministic(view.p, view.free, 40)


@pytest.mark.parametrize("gamma", [1.0, 10.0])
def test_draw_probabilities(gamma: float) -> None:
    """Evenly spaced uniform numbers must hit each item in proportion to its probability, pick by pick."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(3, 0.7), size=12)
    u = torch.from_numpy(1 - (np.sort(p)[:, -1] - np.sort(p)[:, -2]))
    draws = 800
    picks: list[int] = []
    uniform = rng.random(3)
    for b in range(3):
        remaining, value = falcun(p, np.ones(12, bool), picks)
        expected = np.zeros(12)
        expected[remaining] = value**gamma / (value**gamma).sum()
        hits = np.zeros(12)
        for i in range(draws):
            numbers = torch.tensor([*uniform[:b], (i + 0.5) / draws], dtype=torch.float64)
            hits[int(contrastive(torch.from_numpy(p)[None], u[None], b + 1, gamma, numbers[None])[0, b])] += 1
        np.testing.assert_allclose(hits / draws, expected, atol=2 / draws)
        numbers = torch.from_numpy(uniform[: b + 1])[None]
        picks = contrastive(torch.from_numpy(p)[None], u[None], b + 1, gamma, numbers)[0].tolist()


def test_certain_items_are_still_drawn_without_repeats() -> None:
    p = torch.eye(4)[torch.arange(20) % 4].double()
    uniform = torch.linspace(0, 1, 21, dtype=torch.float64)[:20]
    (picks,) = contrastive(p[None], torch.zeros(1, 20).double(), 20, 10.0, uniform[None])
    assert sorted(picks.tolist()) == list(range(20))


def test_a_uniform_number_next_to_one_points_at_an_item() -> None:
    p = torch.tensor([[0.5, 0.5], [0.6, 0.4], [1.0, 0.0]]).double()
    u = torch.tensor([1.0, 0.8, 0.0]).double()
    assert contrastive(p[None], u[None], 1, 10.0, torch.tensor([[1 - 2**-53]]).double())[0].tolist() == [1]


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("deterministic", [False, True])
def test_hard_situations(situation: str, deterministic: bool) -> None:
    assert picks_in(Falcun(deterministic=deterministic), situation)[1] == 0


def test_replicates_seeds_and_order() -> None:
    assert_replicates_independent(Falcun)
    assert_equivariant(Falcun(deterministic=True))
    one, two = (Falcun().select(make_query(seeds=(s,), rows=[list(range(12))]), 10)[0].tolist() for s in (1, 2))
    assert one != two
    assert Falcun().stochastic and not Falcun(deterministic=True).stochastic


@pytest.mark.parametrize("deterministic", [False, True])
def test_replicates_together_pick_what_each_picks_alone(deterministic: bool) -> None:
    rng = np.random.default_rng(0)
    p = torch.from_numpy(rng.dirichlet(np.ones(4), size=(3, 60)))
    u = torch.from_numpy(rng.random((3, 60)))
    uniform = None if deterministic else torch.from_numpy(rng.random((3, 25)))
    found = contrastive(p, u, 25, 10.0, uniform)
    for r in range(3):
        one = slice(r, r + 1)
        alone = contrastive(p[one], u[one], 25, 10.0, None if uniform is None else uniform[one])
        assert torch.equal(found[r], alone[0])
