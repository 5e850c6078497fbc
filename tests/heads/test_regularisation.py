"""Averaging, mixup and random views of trained heads against plain torch.nn in float64, and what they promise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from alfm.features.features import Features
from alfm.heads.adapter import Adapter, Bottleneck
from alfm.heads.dropout import Dropout, Identity, _fit_group
from alfm.heads.mixup import LEVELS, beta_quantiles
from alfm.heads.views import on_all_views
from alfm.streams import hashes, keep_mask, stream

CLASSES, DIM = 4, 12
EACH = [{"averaging": 7}, {"mixup": 0.4}, {"views": "random"}, {"averaging": 5, "mixup": 1.0, "views": "random"}]


def make_pool(dtype: str = "float64", views: bool = True) -> tuple[Features, torch.Tensor]:
    rng = np.random.default_rng(3)
    y = rng.integers(CLASSES, size=120)
    x = rng.normal(size=(CLASSES, DIM))[y] * 1.5 + rng.normal(size=(120, DIM)) + 0.5
    turned = x[:, None] + 0.3 * rng.normal(size=(120, 2, DIM))
    return Features(x.astype(dtype), views=turned.astype(dtype) if views else None), torch.from_numpy(y)


class Net(nn.Module):
    """The head with torch's layers, on items that are dropped already."""

    def __init__(self, recipe: Dropout | Adapter) -> None:
        super().__init__()
        self.last = nn.Linear(DIM, CLASSES)
        if isinstance(recipe, Adapter):
            self.down, self.up = nn.Linear(DIM, DIM // 4), nn.Linear(DIM // 4, DIM)
            self.alpha = nn.Parameter(torch.tensor(recipe.alpha))
        self.norm = nn.BatchNorm1d(DIM, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if hasattr(self, "alpha"):
            f = nn.functional.gelu(self.up(nn.functional.gelu(self.down(x))))
            x = torch.lerp(x, f, torch.sigmoid(self.alpha))
        return self.last(self.norm(x))


def plain_fit(recipe: Dropout | Adapter, pool: Features, rows: torch.Tensor, y: torch.Tensor, seed: int, round: int):
    """One replicate: the recipe written with torch's optimiser, averaged model and `update_bn`."""
    n = len(rows)
    net = Net(recipe).double()
    rng = stream(seed, round, "head start")
    for layer in (net.last, *((net.down, net.up) if isinstance(recipe, Adapter) else ())):
        bound = 1 / np.sqrt(layer.in_features)
        layer.weight.data = torch.from_numpy(rng.uniform(-bound, bound, tuple(layer.weight.shape)))
        layer.bias.data = torch.from_numpy(rng.uniform(-bound, bound, tuple(layer.bias.shape)))
    epochs = recipe.max_epochs + recipe.averaging
    keys = {name: stream(seed, round, name).integers(2**62, size=epochs) for name in
            ("head masks", "head views", "head mixup", "head mixup shares")}  # fmt: skip
    random_views = recipe.views == "random" and pool.views is not None
    every = torch.stack([pool.features[rows]] + ([pool.views[rows, v] for v in range(2)] if random_views else []))

    def items(at: torch.Tensor, view_key: int) -> torch.Tensor:
        return every[(hashes(int(view_key), at) >> 1 & (2**62 - 1)) % len(every), at]

    def dropped(x: torch.Tensor, at: torch.Tensor, key: int) -> torch.Tensor:
        return x * keep_mask(int(key), at, DIM, recipe.p) / (1 - recipe.p)

    quantiles = torch.tensor(beta_quantiles(recipe.mixup)) if recipe.mixup else None
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    average, best, wait, kept, stopped = AveragedModel(net), np.inf, 0, None, None
    for epoch in range(epochs):
        order = list(range(n))
        if n > recipe.batch_size:
            order = stream(seed, round, f"head order {epoch}").permutation(n).tolist()
        total = 0.0
        for start in range(0, n, recipe.batch_size):
            at = torch.tensor(order[start : start + recipe.batch_size])
            x = items(at, keys["head views"][epoch])
            target = nn.functional.one_hot(y[at], CLASSES).double()
            if quantiles is not None:
                drawn = hashes(int(keys["head mixup"][epoch]), torch.arange(len(at))).tolist()
                partner = sorted(range(len(at)), key=lambda i, h=drawn: h[i])
                level = hashes(int(keys["head mixup shares"][epoch]), at) & (LEVELS - 1)
                share = quantiles[level][:, None]
                x, target = (share * v + (1 - share) * v[partner] for v in (x, target))
            loss = nn.functional.cross_entropy(net(dropped(x, at, keys["head masks"][epoch])), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(at) / n
        if stopped is not None:
            average.update_parameters(net)
            if epoch - stopped == recipe.averaging:
                break
            continue
        wait += 1
        if total < best - recipe.min_delta:
            best, wait = total, 0
            kept = {name: value.detach().clone() for name, value in net.state_dict().items()}
        if wait >= recipe.patience or epoch == recipe.max_epochs - 1:
            stopped = epoch
            if not recipe.averaging:
                break
    if not recipe.averaging:
        net.load_state_dict(kept)
        return net.eval(), stopped
    passes = [stream(seed, round, name).integers(2**62, size=recipe.averaging) for name in
              ("head statistics", "head statistics views")]  # fmt: skip
    batches = []
    for key, view_key in zip(*passes, strict=True):
        for start in range(0, n, recipe.batch_size):
            at = torch.arange(start, min(start + recipe.batch_size, n))
            batches.append(dropped(items(at, view_key), at, key))
    update_bn(batches, average)
    return average.module.eval(), stopped


@pytest.mark.parametrize("options", EACH, ids=str)
@pytest.mark.parametrize(
    "recipe", [Dropout(max_epochs=40, p=0.5, patience=4, lr=0.05), Dropout(max_epochs=9, batch_size=16, p=0.5),
               Adapter(max_epochs=12, p=0.5)],
    ids=["early stop", "batches", "adapter"],
)  # fmt: skip
def test_whole_fit_equals_torch_nn(recipe, options):
    pool, y = make_pool()
    rows = torch.stack([torch.arange(40), torch.arange(60, 100)])
    recipe = dataclasses.replace(recipe, **options)
    if recipe.views == "all":
        pool, _ = make_pool(views=False)
    head = on_all_views(recipe, pool).fit(pool, rows, y[rows], CLASSES, [5, 6], 2)
    for r, seed in enumerate((5, 6)):
        net, stopped = plain_fit(recipe, pool, rows[r], y[rows[r]], seed, 2)
        assert recipe.patience > 4 or 4 < stopped < 39  # the early stop is part of what is compared
        with torch.no_grad():
            torch.testing.assert_close(head.forward(pool.features, r), net(pool.features), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("options", EACH, ids=str)
def test_replicates_together_equal_alone_bit_for_bit(options):
    pool, y = make_pool("float32")
    rows = torch.full((3, 33), -1)
    for r, count in enumerate((33, 8, 21)):
        rows[r, :count] = torch.from_numpy(np.random.default_rng(r).permutation(120)[:count])
    targets = torch.where(rows >= 0, y[rows], -1)
    for kind in (Dropout, Adapter):
        classifier = on_all_views(kind(max_epochs=9, **options), pool)
        together = classifier.fit(pool, rows, targets, CLASSES, [1, 10, 100], 1)
        for r, seed in enumerate((1, 10, 100)):
            mine = rows[r][rows[r] >= 0][None]
            alone = classifier.fit(pool, mine, y[mine], CLASSES, [seed], 1)
            assert torch.equal(together.forward(pool.features, r), alone.forward(pool.features, 0))


@pytest.mark.parametrize("options", EACH, ids=str)
def test_padded_batch_of_replicates_equals_each_alone(options):
    """What a GPU computes in one batch, here on the CPU: other lengths, other stopping epochs, one single item."""
    pool, y = make_pool()
    rows = torch.full((3, 36), -1)
    for r, count in enumerate((33, 1, 12)):
        places = torch.arange(36)[r :: 36 // count][:count]  # padding stands anywhere
        rows[r, places] = torch.from_numpy(np.random.default_rng(r).permutation(120)[:count])
    targets = torch.where(rows >= 0, y[rows], -1)
    weight = torch.rand(rows.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for recipe, network in (
        (Dropout(max_epochs=40, patience=3, p=0.5, lr=0.05, **options), Identity()),
        (Adapter(max_epochs=6, p=0.5, **options), Bottleneck(4, -2.0)),
    ):
        batch = _fit_group(recipe, network, pool, CLASSES, 1, rows, targets, weight, [1, 10, 100])
        each = recipe.fit(pool, rows, targets, CLASSES, [1, 10, 100], 1, weight)
        torch.testing.assert_close(batch.weight, each.weight, rtol=1e-6, atol=1e-9)
        for r in range(3):
            torch.testing.assert_close(batch.shift[r], each.spaces[r].shift)
            torch.testing.assert_close(batch.scale[r], each.spaces[r].scale)


def test_shares_are_beta_distributed_and_partners_a_permutation():
    from alfm.heads.mixup import own_shares, partners

    rank = torch.arange(5000)[None]
    valid = torch.ones_like(rank, dtype=torch.bool)
    for a in (0.2, 1.0, 8.0):
        share = own_shares(torch.tensor([[77]]), rank, valid, torch.tensor(beta_quantiles(a)))[0, :, 0]
        assert abs(share.mean() - 0.5) < 0.02 and abs(share.var() - 1 / (4 * (2 * a + 1))) < 0.01
    partner = partners(torch.tensor([[5]]), rank, valid)[0]
    assert torch.equal(partner.sort().values, rank[0]) and 0.9 < (partner != rank[0]).float().mean()
    valid[0, ::2] = False
    some = partners(torch.tensor([[5]]), (valid.cumsum(1) - 1).clamp_min(0), valid)[0]
    assert torch.equal(some[::2], rank[0, ::2]) and torch.equal(some[1::2].sort().values, rank[0, 1::2])


def test_random_views_without_views_are_the_plain_fit():
    pool, y = make_pool("float32", views=False)
    rows = torch.arange(30)[None]
    plain, same = (Dropout(max_epochs=20, views=v).fit(pool, rows, y[rows], CLASSES, [1]) for v in ("all", "random"))
    assert torch.equal(plain.weight, same.weight)


def test_one_label_and_one_class_are_learnt():
    pool, _ = make_pool("float32")
    for options in EACH:
        for labels in ([2], [1, 1, 1], [0, 3]):
            rows = torch.arange(len(labels))[None]
            head = on_all_views(Dropout(max_epochs=60, **options), pool).fit(
                pool, rows, torch.tensor([labels]), CLASSES, [0]
            )
            logits = head.forward(pool.features[: len(labels)], 0)
            assert torch.isfinite(logits).all() and logits.argmax(1).tolist() == labels
