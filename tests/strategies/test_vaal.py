"""VAAL: losses against plain NumPy, what the discriminator learns, hard situations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.vaal import autoencoder_loss, discriminator_loss, mlp
from strategies.factory import SITUATIONS, assert_replicates_independent, make_query, picks_in

from alfm.strategies.vaal import Networks, Perceptron, Vaal


def test_losses_and_gradients() -> None:
    draws = torch.Generator().manual_seed(0)
    nets = Networks(7, 11, 3, draws, torch.float64, torch.device("cpu"))
    parts = (nets.encoder, nets.decoder, nets.judge)
    for part in parts:
        part.flat += 0.3 * torch.randn(part.flat.shape, generator=draws, dtype=torch.float64)
    x, noise = (torch.randn(10, d, generator=draws, dtype=torch.float64) for d in (7, 3))
    y = (torch.arange(10) < 5).double()

    def losses() -> tuple[float, float]:
        encoder, decoder, judge = ([(w.numpy(), b.numpy()) for w, b in part.layers] for part in parts)
        mu = mlp(encoder, x.numpy())[:, :3]
        return (
            autoencoder_loss(encoder, decoder, judge, x.numpy(), noise.numpy(), 0.7, 1.3),
            discriminator_loss(judge, mu, y.numpy()),
        )

    found = nets.gradients(x, noise, y, 0.7, 1.3)
    np.testing.assert_allclose([float(v) for v in found], losses(), rtol=1e-12)
    for which, part in ((0, nets.encoder), (0, nets.decoder), (1, nets.judge)):
        for j in range(0, len(part.flat), 7):
            up, down = [], []
            for values, h in ((up, 1e-6), (down, -1e-6)):
                part.flat[j] += h
                values.append(losses()[which])
                part.flat[j] -= h
            assert float(part.slope[j]) == pytest.approx((up[0] - down[0]) / 2e-6, rel=1e-5, abs=1e-7)


def test_adam() -> None:
    net = Perceptron((5, 4, 2), torch.Generator().manual_seed(0), torch.float64, torch.device("cpu"))
    plain = torch.nn.Parameter(net.flat.clone())
    optimiser = torch.optim.Adam([plain], 0.01)
    for step in range(1, 5):
        net.slope.copy_(torch.sin(step * torch.arange(len(net.flat)).double()))
        plain.grad = net.slope.clone()
        net.descend(0.01, step)
        optimiser.step()
    torch.testing.assert_close(net.flat, plain.data, rtol=1e-10, atol=1e-12)


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
