from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_sample_weight

from alfm.features.features import Features
from alfm.heads.logistic import UNSEEN, Logistic
from alfm.threads import side_by_side


@pytest.fixture(scope="module")
def digits() -> tuple[Features, torch.Tensor]:
    x, y = load_digits(return_X_y=True)
    return Features((x / 16).astype(np.float32)), torch.from_numpy(y.astype(np.int64))


def objective(phi: torch.Tensor, y: torch.Tensor, W: torch.Tensor, b: torch.Tensor, c: float, weight=None) -> float:
    losses = torch.nn.functional.cross_entropy(phi @ W.double().T + b.double(), y, reduction="none")
    total = losses.sum() if weight is None else (weight.double() * losses).sum()
    return float(total + W.double().square().sum() / (2 * c))


@pytest.mark.parametrize("n", [12, 30, 150, 600])  # labelled-span coordinates, then principal axes
@pytest.mark.parametrize("class_weight", ["balanced", "none"])
@pytest.mark.parametrize("scaling", ["soft", "standard", "none"])
def test_objective_is_scikit_learns(digits, n, class_weight, scaling):
    pool, y = digits
    head = Logistic(scaling=scaling, class_weight=class_weight)
    rows = torch.randperm(pool.N, generator=torch.Generator().manual_seed(n))[:n]
    fitted = head.fit(pool, rows[None], y[rows][None], 10)
    phi, target = pool.vectors(head.space(pool)).rows(rows).double(), y[rows]
    c = head.inverse_l2(10)
    theirs = class_weight if class_weight == "balanced" else None
    peer = LogisticRegression(C=c, tol=1e-10, max_iter=20000, class_weight=theirs).fit(phi.numpy(), target.numpy())
    weight = torch.from_numpy(compute_sample_weight(theirs, target.numpy()))
    seen = torch.from_numpy(peer.classes_)
    W, b = torch.zeros(10, phi.shape[1], dtype=torch.float64), torch.full((10,), -1e3, dtype=torch.float64)
    W[seen], b[seen] = torch.from_numpy(peer.coef_), torch.from_numpy(peer.intercept_)
    best = objective(phi, target, W, b, c, weight)
    gap = (objective(phi, target, fitted.weight[0], fitted.bias[0], c, weight) - best) / best
    assert -1e-6 < gap < 6e-5
    ours = torch.softmax(phi @ fitted.weight[0].double().T + fitted.bias[0].double(), 1)
    wanted = torch.softmax(phi @ W.T + b, 1)
    assert float((ours - wanted).abs().max()) < 0.03


def test_float64_and_a_tight_tolerance_reach_scikit_learns_weights(digits):
    pool, y = digits
    wide = Features(pool.features.double())
    head = Logistic(tolerance=1e-13, class_weight="none")
    rows = torch.arange(0, 400)
    fitted = head.fit(wide, rows[None], y[rows][None], 10)
    phi = wide.vectors(head.space(wide)).rows(rows)
    peer = LogisticRegression(C=head.inverse_l2(10), tol=1e-12, max_iter=20000).fit(phi.numpy(), y[rows].numpy())
    assert np.allclose(fitted.weight[0], peer.coef_, atol=1e-4)
    assert np.allclose(fitted.bias[0], peer.intercept_ - peer.intercept_.mean(), atol=1e-4)


def test_weights_and_soft_labels_are_the_repeated_rows_they_stand_for(digits):
    pool, y = digits
    head = Logistic(tolerance=1e-9, class_weight="none")
    rows = torch.arange(60)
    twice = torch.cat([rows, rows[:20]])
    repeated = head.fit(pool, twice[None], y[twice][None], 10)
    weight = torch.ones(1, 60)
    weight[0, :20] = 2
    weighted = head.fit(pool, rows[None], y[rows][None], 10, weight=weight)
    assert torch.allclose(repeated.weight, weighted.weight, atol=2e-3)
    soft = torch.nn.functional.one_hot(y[rows], 10).double()[None]
    assert torch.allclose(
        head.fit(pool, rows[None], soft, 10).weight, head.fit(pool, rows[None], y[rows][None], 10).weight, atol=1e-4
    )


def test_unseen_classes_are_never_predicted_and_one_class_is_enough(digits):
    pool, y = digits
    rows = torch.nonzero(y < 3)[:30, 0]
    fitted = Logistic().fit(pool, rows[None], y[rows][None], 10)
    logits = fitted.logits(pool.vectors(fitted.spaces[0]).rows(torch.arange(pool.N)), 0)
    assert set(logits.argmax(1).tolist()) <= {0, 1, 2}
    assert torch.allclose(fitted.bias[0, 3:], fitted.bias[0, :3].min() - UNSEEN)
    one = torch.nonzero(y == 4)[:1, 0]
    single = Logistic().fit(pool, one[None], y[one][None], 10)
    logits = single.logits(pool.vectors(single.spaces[0]).rows(torch.arange(50)), 0)
    assert torch.isfinite(logits).all() and (logits.argmax(1) == 4).all()


@pytest.mark.parametrize("num_classes", [3, 10, 40])
@pytest.mark.parametrize("dim", [5, 64, 100])
@pytest.mark.parametrize("count", [7, 33, 150])
def test_replicates_together_are_replicates_alone_bit_for_bit(count, dim, num_classes):
    """Odd sizes on purpose: a product's last bits depend on where in memory its matrices begin."""
    generator = torch.Generator().manual_seed(count + dim + num_classes)
    x = torch.randn(300, dim, generator=generator)
    pool, y = Features(x), (x[:, :4].sum(1).abs() * num_classes / 4).long().clamp_max(num_classes - 1)
    rows = torch.stack([torch.randperm(pool.N, generator=generator)[: count + 20] for _ in range(5)])
    rows[3, count - 2 :] = -1  # one with fewer labels than the others
    labels = torch.where(rows >= 0, y[rows], -1)
    head = Logistic()
    first = head.fit(pool, rows[:, :count], labels[:, :count], num_classes)
    then = head.fit(pool, rows, labels, num_classes, previous=first)
    for r in range(5):
        one = slice(r, r + 1)
        alone = head.fit(pool, rows[one, :count], labels[one, :count], num_classes)
        assert torch.equal(alone.weight[0], first.weight[r]) and torch.equal(alone.bias[0], first.bias[r])
        alone = head.fit(pool, rows[one], labels[one], num_classes, previous=alone)
        assert torch.equal(alone.weight[0], then.weight[r]) and torch.equal(alone.bias[0], then.bias[r])


def test_the_number_of_cores_changes_nothing(digits, monkeypatch):
    pool, y = digits
    rows = torch.stack([torch.randperm(pool.N, generator=torch.Generator().manual_seed(s))[:200] for s in range(5)])
    monkeypatch.setattr("alfm.heads.logistic.SMALL", 0)
    sizes = []
    group = Logistic._fit_group
    monkeypatch.setattr(Logistic, "_fit_group", lambda self, *args: (sizes.append(len(args[2])), group(self, *args))[1])
    before, fitted = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            fitted.append(Logistic().fit(pool, rows, y[rows], 10))
    finally:
        torch.set_num_threads(before)
    assert sorted(sizes) == [1] * 5 + [2, 3, 5]
    assert all(torch.equal(fitted[0].weight, other.weight) for other in fitted[1:])


def test_a_large_fit_is_made_of_pieces_with_the_numbers_of_the_whole(monkeypatch):
    """A lone replicate of many classes: side by side where there are cores, in the same pieces where there is one."""
    rng, pieces = np.random.default_rng(0), []
    pool, y = Features(rng.standard_normal((900, 40)).astype(np.float32)), torch.from_numpy(rng.integers(0, 300, 900))
    rows = torch.arange(800)[None]
    whole = Logistic().fit(pool, rows, y[rows], 300)
    monkeypatch.setattr("alfm.heads.objective.LARGE", 1 << 20)
    monkeypatch.setattr(
        "alfm.heads.objective.side_by_side", lambda jobs, device: pieces.append(len(jobs)) or side_by_side(jobs, device)
    )
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            head = Logistic().fit(pool, rows, y[rows], 300)
            assert torch.equal(head.weight, whole.weight) and torch.equal(head.bias, whole.bias)
    finally:
        torch.set_num_threads(before)
    assert set(pieces) == {2, 3}  # of 512 items, of 128 classes


def test_one_batch_of_padded_replicates_solves_the_same_problems(digits):
    """The GPU's way: all replicates in one batch, absent rows and classes masked."""
    pool, y = digits
    rows = torch.full((2, 60), -1)
    rows[0], rows[1, :25] = torch.arange(60), torch.arange(100, 125)
    targets = torch.where(rows >= 0, y[rows.clamp_min(0)], -1)
    targets[1, :25] = targets[1, :25].clamp_max(4)
    head = Logistic(tolerance=1e-8)
    W, b = head._fit_group(pool, head.space(pool), rows, targets, 10, None, None)
    alone = head.fit(pool, rows, targets, 10)
    assert torch.allclose(W, alone.weight, atol=2e-3)
    assert torch.allclose(b, alone.bias, atol=2e-2)


def test_a_warm_start_changes_nothing_that_can_be_seen(digits):
    pool, y = digits
    head = Logistic()
    rows = torch.randperm(pool.N, generator=torch.Generator().manual_seed(3))[None, :300]
    first = head.fit(pool, rows[:, :200], y[rows[:, :200]], 10)
    cold, warm = head.fit(pool, rows, y[rows], 10), head.fit(pool, rows, y[rows], 10, previous=first)
    phi = pool.vectors(head.space(pool)).rows(torch.arange(pool.N))
    a, b = (torch.softmax(h.logits(phi, 0), 1) for h in (cold, warm))
    assert float((a - b).abs().max()) < 0.02
    assert float((a.argmax(1) != b.argmax(1)).float().mean()) < 0.002


def test_constant_features_do_no_harm():
    x = np.ones((20, 3), np.float32)
    fitted = Logistic().fit(Features(x), torch.arange(4)[None], torch.tensor([[0, 1, 0, 1]]), 2)
    assert torch.isfinite(fitted.weight).all() and torch.isfinite(fitted.bias).all()
