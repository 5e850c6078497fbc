"""The dropout head against a plain torch.nn implementation, and its rules at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alfm.errors import UserError
from alfm.features.features import Features
from alfm.heads.dropout import Dropout, Identity, _batches, _fit_group, _weighted_targets, softmax_loss
from alfm.streams import keep_mask, stream


def make_pool(n: int = 120, dim: int = 12, classes: int = 4, dtype: str = "float32") -> tuple[Features, torch.Tensor]:
    rng = np.random.default_rng(3)
    y = rng.integers(classes, size=n)
    x = rng.normal(size=(classes, dim))[y] * 1.5 + rng.normal(size=(n, dim)) + 0.5
    return Features(x.astype(dtype)), torch.from_numpy(y)


def rows_of(*counts: int, seed: int = 0, n: int = 120) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    rows = torch.full((len(counts), max(counts)), -1)
    for r, count in enumerate(counts):
        rows[r, :count] = torch.from_numpy(rng.permutation(n)[:count])
    return rows


def plain_fit(recipe: Dropout, x: torch.Tensor, y: torch.Tensor, classes: int, seed: int, round: int):
    """The recipe written with torch.nn, one replicate, the same masks, order and start."""
    n, dim = x.shape
    norm = torch.nn.BatchNorm1d(dim, affine=False, dtype=x.dtype)
    linear = torch.nn.Linear(dim, classes, dtype=x.dtype)
    bound = 1 / np.sqrt(dim)
    rng = stream(seed, round, "head start")
    linear.weight.data = torch.tensor(rng.uniform(-bound, bound, (classes, dim)), dtype=x.dtype)
    linear.bias.data = torch.tensor(rng.uniform(-bound, bound, classes), dtype=x.dtype)
    keys = stream(seed, round, "head masks").integers(2**62, size=recipe.max_epochs)
    optimiser = torch.optim.AdamW(linear.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    best, wait, kept = np.inf, 0, None
    epochs = 0
    for epoch in range(recipe.max_epochs):
        epochs += 1
        order = torch.arange(n)
        if n > recipe.batch_size:
            order = torch.from_numpy(stream(seed, round, f"head order {epoch}").permutation(n))
        total = 0.0
        for start in range(0, n, recipe.batch_size):
            i = order[start : start + recipe.batch_size]
            mask = keep_mask(int(keys[epoch]), i, dim, recipe.p)
            loss = torch.nn.functional.cross_entropy(linear(norm(x[i] * mask / (1 - recipe.p))), y[i])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(i) / n
        wait += 1
        if total < best - recipe.min_delta:
            best, wait = total, 0
            kept = [t.detach().clone() for t in (linear.weight, linear.bias, norm.running_mean, norm.running_var)]
        if wait >= recipe.patience:
            break
    return kept, epochs


@pytest.mark.parametrize(("batch_size", "count"), [(4096, 40), (16, 40)])
def test_whole_fit_equals_torch_nn(batch_size: int, count: int) -> None:
    pool, y = make_pool(dtype="float64")
    rows = rows_of(count, count)
    recipe = Dropout(max_epochs=200, batch_size=batch_size, p=0.5, patience=8)
    head = recipe.fit(pool, rows, y[rows], 4, [5, 6], round=2)
    for r, seed in enumerate((5, 6)):
        (weight, bias, mean, var), epochs = plain_fit(recipe, pool.features[rows[r]], y[rows[r]], 4, seed, 2)
        assert 20 < epochs < 200  # the early stop is part of what is compared
        torch.testing.assert_close(head.weight[r], weight, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(head.bias[r], bias, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(head.spaces[r].shift, mean)
        torch.testing.assert_close(head.spaces[r].scale, (var + 1e-5).sqrt())


def test_gradient_equals_autograd() -> None:
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 5, 7, generator=g, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, 5, generator=g, dtype=torch.float64, requires_grad=True)
    z = torch.randn(2, 9, 7, generator=g, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 9, 5, generator=g, dtype=torch.float64)  # rows that do not sum to one
    loss = -(target * torch.log_softmax(z @ weight.mT + bias[:, None], 2)).sum((1, 2))
    expected = torch.autograd.grad(loss.sum(), [weight, bias, z])
    with torch.no_grad():
        value, residual, (dw, db) = softmax_loss(weight, bias, z, target, target.sum(2, keepdim=True))
        torch.testing.assert_close(value, loss)
        torch.testing.assert_close(dw, expected[0])
        torch.testing.assert_close(db, expected[1])
        torch.testing.assert_close(residual @ weight, expected[2])


def test_replicates_together_equal_alone_bit_for_bit() -> None:
    pool, y = make_pool()
    rows = rows_of(33, 8, 21)
    targets = torch.where(rows >= 0, y[rows], -1)
    together = Dropout(max_epochs=60).fit(pool, rows, targets, 4, [1, 10, 100], round=1)
    for r, seed in enumerate((1, 10, 100)):
        mine = rows[r][rows[r] >= 0][None]
        alone = Dropout(max_epochs=60).fit(pool, mine, y[mine], 4, [seed], round=1)
        assert torch.equal(together.weight[r], alone.weight[0])
        assert torch.equal(together.bias[r], alone.bias[0])
        assert torch.equal(together.spaces[r].scale, alone.spaces[0].scale)


def test_padded_batch_of_replicates_equals_each_alone() -> None:
    """What a GPU computes in one batch, here on the CPU: other lengths, other stopping epochs, one single item."""
    pool, y = make_pool(dtype="float64")
    rows = rows_of(33, 1, 12)
    targets = torch.where(rows >= 0, y[rows], -1)
    weight = torch.rand(rows.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    recipe = Dropout(max_epochs=150, patience=5, p=0.5)
    batch = _fit_group(recipe, Identity(), pool, 4, 1, rows, targets, weight, [1, 10, 100])
    each = recipe.fit(pool, rows, targets, 4, [1, 10, 100], round=1, weight=weight)
    torch.testing.assert_close(batch.weight, each.weight, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(batch.bias, each.bias, rtol=1e-6, atol=1e-9)
    for r in range(3):
        torch.testing.assert_close(batch.shift[r], each.spaces[r].shift)
        torch.testing.assert_close(batch.scale[r], each.spaces[r].scale)


def test_other_seed_or_round_is_another_fit() -> None:
    pool, y = make_pool()
    rows = rows_of(20)
    fits = [Dropout(max_epochs=5).fit(pool, rows, y[rows], 4, [s], round=t).weight for s, t in [(1, 0), (2, 0), (1, 1)]]
    assert not torch.equal(fits[0], fits[1])
    assert not torch.equal(fits[0], fits[2])


def test_soft_targets_and_weights_mean_what_repetition_means() -> None:
    """An item of weight 3 and soft label (2/3, 1/3) has the gradient of three copies, two of them class 0."""
    g = torch.Generator().manual_seed(1)
    pool = Features(torch.randn(4, 6, generator=g, dtype=torch.float64))
    recipe = Dropout(p=0.0, max_epochs=1)
    soft = torch.tensor([[[2 / 3, 1 / 3], [0.0, 1.0]]], dtype=torch.float64)
    valid = torch.ones(1, 2, dtype=torch.bool)
    weight = torch.tensor([[3.0, 1.0]])
    target, mass = _weighted_targets(soft, valid, weight, 2, torch.float64)
    torch.testing.assert_close(target[0], torch.tensor([[0.5, 0.25], [0.0, 0.25]], dtype=torch.float64))
    torch.testing.assert_close(mass[0, :, 0], torch.tensor([0.75, 0.25], dtype=torch.float64))
    hard = recipe.fit(pool, torch.tensor([[0, 1]]), torch.tensor([[0, 1]]), 2, [0])
    same = recipe.fit(pool, torch.tensor([[0, 1]]), torch.eye(2, dtype=torch.float64)[None], 2, [0])
    assert torch.equal(hard.weight, same.weight)


def test_zero_weight_items_do_not_teach() -> None:
    pool, y = make_pool()
    rows = rows_of(30)
    weight = torch.ones(1, 30)
    weight[0, 15:] = 0
    wrong = y[rows].clone()
    wrong[0, 15:] = (wrong[0, 15:] + 1) % 4
    a = Dropout(max_epochs=30).fit(pool, rows, y[rows], 4, [3], weight=weight)
    b = Dropout(max_epochs=30).fit(pool, rows, wrong, 4, [3], weight=weight)
    assert torch.equal(a.weight, b.weight)


@pytest.mark.parametrize("labels", [[2], [2, 2, 2], [0, 3]])
def test_one_label_one_class(labels: list[int]) -> None:
    pool, _ = make_pool()
    rows = torch.arange(len(labels))[None]
    head = Dropout().fit(pool, rows, torch.tensor([labels]), 4, [0])
    logits = head.forward(pool.features, 0)
    assert torch.isfinite(logits).all()
    assert head.forward(pool.features[: len(labels)], 0).argmax(1).tolist() == labels
    if len(labels) == 1:
        torch.testing.assert_close(head.spaces[0].shift, pool.moments[0])


def test_unseen_features_do_not_explode() -> None:
    pool, y = make_pool()
    x = pool.features.clone()
    rows = rows_of(25)
    x[:, 5] = torch.linspace(-3, 3, len(x))
    x[rows[0], 5] = 0
    with_zero = Features(x)
    head = Dropout(max_epochs=50).fit(with_zero, rows, y[rows], 4, [0])
    assert torch.equal(head.weight[0, :, 5], torch.zeros(4))
    assert head.spaces[0](x)[:, 5].abs().max() < 5


def test_last_batch_of_one_joins_the_one_before() -> None:
    assert _batches(33, 16) == [slice(0, 16), slice(16, 33)]
    assert _batches(34, 16) == [slice(0, 16), slice(16, 32), slice(32, 34)]
    assert _batches(1, 16) == [slice(0, 1)]
    pool, y = make_pool()
    rows = rows_of(33)
    head = Dropout(batch_size=16, max_epochs=150).fit(pool, rows, y[rows], 4, [0])
    assert (head.forward(pool.features, 0).argmax(1) == y).float().mean() > 0.8


def test_no_label_is_a_clear_error() -> None:
    pool, y = make_pool()
    rows = torch.tensor([[3, 4], [-1, -1]])
    with pytest.raises(UserError, match="Replicate 1 has no labelled item"):
        Dropout().fit(pool, rows, y[rows], 4, [0, 1])
    with pytest.raises(UserError, match="Dropout p="):
        Dropout(p=1.0)
