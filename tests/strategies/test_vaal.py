"""VAAL: losses against plain NumPy, what the discriminator learns, hard situations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.vaal import autoencoder_loss, discriminator_loss
from strategies.factory import SITUATIONS, assert_replicates_independent, make_query, picks_in

from alfm.strategies.vaal import Networks, Vaal


def test_losses() -> None:
    draws = torch.Generator().manual_seed(0)
    nets = Networks(7, 11, 3, draws, torch.float64, torch.device("cpu"))
    for parameter in nets.autoencoder + nets.discriminator:
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=draws, dtype=torch.float64)
    x, noise = (torch.randn(10, d, generator=draws, dtype=torch.float64) for d in (7, 3))
    plain = [
        [(w.detach().numpy(), b.detach().numpy()) for w, b in part]
        for part in (nets.encoder, nets.decoder, nets.judging)
    ]
    loss, mu = nets.autoencoder_loss(x, noise, 0.7, 1.3)
    expected = autoencoder_loss(*plain, x.numpy(), noise.numpy(), 0.7, 1.3)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    y = (torch.arange(10) < 5).double()
    expected = discriminator_loss(plain[2], mu.detach().numpy(), y.numpy())
    assert nets.discriminator_loss(mu.detach(), y).item() == pytest.approx(expected, rel=1e-12)


def test_items_unlike_the_labelled_ones_come_first() -> None:
    y = np.arange(300) % 3
    x = 4 * np.eye(3, 10)[y] + 0.5 * np.random.default_rng(0).normal(size=(300, 10))
    labelled = np.flatnonzero(y > 0)[:40]
    for seed in (1, 2, 3):
        query = make_query(x=x, y=y, C=3, rows=[labelled.tolist()], seeds=(seed,), dtype=torch.float32)
        picks = Vaal().select(query, 30)[0].numpy()
        assert (y[picks] == 0).mean() > 0.9


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
