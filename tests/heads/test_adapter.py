"""The residual adapter against a plain torch.nn implementation with the same masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from alfm.errors import UserError
from alfm.features.features import Features
from alfm.heads.adapter import Adapter
from alfm.heads.dropout import Dropout
from alfm.streams import keep_mask, stream


def data(dtype: str = "float64", n: int = 90, dim: int = 12) -> tuple[Features, torch.Tensor]:
    rng = np.random.default_rng(3)
    y = rng.integers(4, size=n)
    x = rng.normal(size=(4, dim))[y] * 1.5 + rng.normal(size=(n, dim)) + 0.5
    return Features(x.astype(dtype)), torch.from_numpy(y)


class Plain(nn.Module):
    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, dim // 4), nn.Linear(dim // 4, dim)
        self.alpha = nn.Parameter(torch.tensor(-2.0))
        self.norm = nn.BatchNorm1d(dim, affine=False)
        self.last = nn.Linear(dim, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        g = torch.sigmoid(self.alpha)
        f = nn.functional.gelu(self.up(nn.functional.gelu(self.down(x))))
        return self.last(self.norm((1 - g) * x + g * f))


def test_whole_fit_equals_torch_nn() -> None:
    pool, y = data()
    rows = torch.stack([torch.arange(30), torch.arange(40, 70)])
    recipe = Adapter(max_epochs=30, p=0.5, min_delta=-10.0)  # every epoch improves: the last weights are kept
    head = recipe.fit(pool, rows, y[rows], 4, [5, 6], round=2)
    for r, seed in enumerate((5, 6)):
        net = Plain(12, 4).double()
        rng = stream(seed, 2, "head start")
        for layer in (net.last, net.down, net.up):
            bound = 1 / np.sqrt(layer.in_features)
            layer.weight.data = torch.from_numpy(rng.uniform(-bound, bound, tuple(layer.weight.shape)))
            layer.bias.data = torch.from_numpy(rng.uniform(-bound, bound, tuple(layer.bias.shape)))
        keys = stream(seed, 2, "head masks").integers(2**62, size=30)
        optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
        for epoch in range(30):
            mask = keep_mask(int(keys[epoch]), torch.arange(30), 12, 0.5)
            loss = nn.functional.cross_entropy(net(pool.features[rows[r]] * mask * 2), y[rows[r]])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        net.eval()
        with torch.no_grad():
            torch.testing.assert_close(head.forward(pool.features, r), net(pool.features), rtol=1e-7, atol=1e-8)
            torch.testing.assert_close(head.spaces[r].params[4][0], net.alpha)
        assert abs(net.alpha.item() + 2) > 0.05  # the gate has moved


def test_replicates_together_equal_alone_bit_for_bit() -> None:
    pool, y = data("float32")
    rows = torch.stack([torch.arange(30), torch.arange(40, 70)])
    rows[1, 20:] = -1
    targets = torch.where(rows >= 0, y[rows], -1)
    together = Adapter(max_epochs=40).fit(pool, rows, targets, 4, [1, 10])
    alone = Adapter(max_epochs=40).fit(pool, rows[1:, :20], targets[1:, :20], 4, [10])
    assert torch.equal(together.forward(pool.features, 1), alone.forward(pool.features, 0))


def test_closed_gate_is_the_dropout_head() -> None:
    pool, y = data()
    rows = torch.arange(30)[None]
    shut = Adapter(max_epochs=30, alpha=-60.0).fit(pool, rows, y[rows], 4, [3])
    plain = Dropout(max_epochs=30).fit(pool, rows, y[rows], 4, [3])
    torch.testing.assert_close(shut.weight, plain.weight)
    torch.testing.assert_close(shut.forward(pool.features, 0), plain.forward(pool.features, 0))


def test_edges() -> None:
    pool, y = data("float32")
    for labels in ([2], [1, 1, 1]):
        rows = torch.arange(len(labels))[None]
        head = Adapter().fit(pool, rows, torch.tensor([labels]), 4, [0])
        assert head.forward(pool.features[: len(labels)], 0).argmax(1).tolist() == labels
        assert torch.isfinite(head.forward(pool.features, 0)).all()
    x = pool.features.clone()
    x[:, 5] = torch.linspace(-3, 3, len(x))
    x[:25, 5] = 0
    rows = torch.arange(25)[None]
    head = Adapter(max_epochs=50).fit(Features(x), rows, y[rows], 4, [0])
    moved = x.clone()
    moved[:, 5] += 7
    torch.testing.assert_close(head.forward(moved, 0), head.forward(x, 0))  # never seen, so never used
    one = Features(x[:, :1])
    assert torch.isfinite(Adapter(max_epochs=5).fit(one, rows, y[rows], 4, [0]).forward(one.features, 0)).all()
    with pytest.raises(UserError, match="scale"):
        Adapter(scale=0)
