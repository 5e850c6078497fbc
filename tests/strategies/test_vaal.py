"""VAAL: losses against plain NumPy, what the discriminator learns, hard situations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.vaal import autoencoder_loss, discriminator_loss, mlp
from strategies.factory import SITUATIONS, assert_replicates_independent, make_query, picks_in

from alfm.features.spaces import Scaled
from alfm.strategies.vaal import Networks, Vaal, scores


def networks(D: int, hidden: int, latent: int, draws: torch.Generator, R: int = 1) -> Networks:
    shapes = Networks.shapes(D, hidden, latent)
    return Networks(torch.stack([Networks.start(shapes, draws) for _ in range(R)]).double(), shapes, latent)


def test_gradients_are_those_of_the_losses() -> None:
    """Against differences of the plain losses: the judge minimises its own, encoder and decoder theirs."""
    draws = torch.Generator().manual_seed(0)
    nets = networks(7, 11, 3, draws)
    nets.flat += 0.3 * torch.randn(nets.flat.shape, generator=draws, dtype=torch.float64)
    x, noise = (torch.randn(10, d, generator=draws, dtype=torch.float64) for d in (7, 3))
    y = (torch.arange(10) < 5).double()

    def losses() -> tuple[float, float]:
        layers = [(w.numpy(), b.numpy()) for w, b in nets.layers]
        encoder, decoder, judge = layers[:2], layers[2:4], layers[4:]
        mu = mlp(encoder, x.numpy())[:, :3]
        return (
            autoencoder_loss(encoder, decoder, judge, x.numpy(), noise.numpy(), 0.7, 1.3),
            discriminator_loss(judge, mu, y.numpy()),
        )

    nets.gradients(x, noise, y, 0.7, 1.3)
    judged = sum(w.numel() + b.numel() for w, b in nets.layers[4:])
    assert all(bool((slope.abs() > 1e-9).any()) for layer in nets.slopes for slope in layer)
    for j in range(0, nets.flat.numel(), 5):
        which = int(j >= nets.flat.numel() - judged)
        ends = []
        for h in (1e-6, -1e-6):
            nets.flat[0, j] += h
            ends.append(losses()[which])
            nets.flat[0, j] -= h
        assert float(nets.slope[0, j]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-7)


def test_log_variances_beyond_the_bound_get_no_gradient() -> None:
    draws = torch.Generator().manual_seed(0)
    nets = networks(4, 5, 2, draws)
    nets.layers[1][1][2:] = torch.tensor([1e3, 0.0])  # bias of the two log variances
    x, noise = (torch.randn(6, d, generator=draws, dtype=torch.float64) for d in (4, 2))
    nets.gradients(x, noise, (torch.arange(6) < 3).double(), 1.0, 1.0)
    slope = nets.slopes[1][1]
    assert slope[2] == 0 and (slope[[0, 1, 3]] != 0).all() and torch.isfinite(nets.slope).all()


def test_replicates_in_one_product_step_as_each_alone() -> None:
    draws = torch.Generator().manual_seed(0)
    both, (shapes, latent) = networks(7, 5, 2, draws, R=2), (Networks.shapes(7, 5, 2), 2)
    alone = [Networks(flat[None].clone(), shapes, latent) for flat in both.flat]
    x, noise = (torch.randn(2, 6, d, generator=draws, dtype=torch.float64) for d in (7, 2))
    for own, *given in ((both, x, noise), (alone[0], x[0], noise[0]), (alone[1], x[1], noise[1])):
        for _ in range(3):
            own.gradients(*given, (torch.arange(6) < 3).double(), 1.0, 1.0)
            own.descend(0.01)
    torch.testing.assert_close(both.flat, torch.cat([own.flat for own in alone]))
    torch.testing.assert_close(both.labelled_logit(x[0]), torch.cat([own.labelled_logit(x[0]) for own in alone]))


def test_adam() -> None:
    """Against the paper's algorithm 1 in plain NumPy."""
    nets = networks(5, 4, 2, torch.Generator().manual_seed(0))
    plain, m, v = nets.flat[0].numpy().copy(), 0.0, 0.0
    for t in range(1, 5):
        g = np.sin(t * np.arange(len(plain)))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        plain -= 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        nets.slope[0].copy_(torch.from_numpy(g))
        nets.descend(0.01)
    np.testing.assert_allclose(nets.flat[0].numpy(), plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("stage", [1, 3, 100])
def test_turns_between_replicates_change_nothing(stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def picks() -> list[list[int]]:
        return Vaal(steps=7).select(make_query(seeds=(1, 2, 3), dtype=torch.float32), 10).tolist()

    expected = picks()
    monkeypatch.setattr("alfm.strategies.vaal.STAGE", stage)
    before = torch.get_num_threads()
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        try:
            assert picks() == expected
        finally:
            torch.set_num_threads(before)


def test_scores_are_the_judge_of_the_means() -> None:
    query = make_query(N=70, D=6, block_rows=30)
    shift, scale = torch.rand(2, 6, dtype=torch.float64) + 0.5
    nets = [networks(6, 5, 3, torch.Generator().manual_seed(s)) for s in (0, 1)]
    got = scores(query.pool, nets, Scaled(shift, scale)).numpy()
    x = ((query.pool.features - shift) / scale).numpy()
    for r, net in enumerate(nets):
        layers = [(w.numpy(), b.numpy()) for w, b in net.layers]
        np.testing.assert_allclose(got[r], -mlp(layers[4:], mlp(layers[:2], x)[:, :3])[:, 0], rtol=1e-10)


def test_items_unlike_the_labelled_ones_come_first() -> None:
    y = np.arange(300) % 3
    x = 4 * np.eye(3, 10)[y] + 0.5 * np.random.default_rng(0).normal(size=(300, 10))
    labelled = np.flatnonzero(y > 0)[:40]
    query = make_query(x=x, y=y, C=3, rows=[labelled.tolist()] * 6, seeds=range(6), dtype=torch.float32)
    picks = Vaal().select(query, 30).numpy()
    assert (y[picks] == 0).mean() > 0.7  # 100 of the 260 unlabelled items: 0.38 by chance


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    assert picks_in(Vaal(steps=5), situation)[1] == 0


def test_far_outliers_give_no_nan() -> None:
    x, y = np.random.default_rng(0).normal(size=(200, 6)), np.arange(200) % 3
    x[150] *= 1e6
    picks = Vaal().select(make_query(x=x, y=y, C=3, dtype=torch.float32), 10)[0]
    assert len(picks.unique()) == 10


def test_replicates_seeds_and_blocks() -> None:
    assert_replicates_independent(lambda: Vaal(steps=10))
    one, two = (Vaal(steps=10).select(make_query(seeds=(s,), rows=[list(range(12))]), 10)[0].tolist() for s in (1, 2))
    assert one != two
    blocks = [Vaal(steps=10).select(make_query(block_rows=b), 10)[0].tolist() for b in (17, 120)]
    assert blocks[0] == blocks[1]
