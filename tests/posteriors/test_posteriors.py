"""Posteriors: what a draw is, that it is addressed, and that it does not depend on its neighbours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from alfm import devices
from alfm.acquisition import bald
from alfm.errors import UserError
from alfm.features.features import Features
from alfm.features.spaces import RAW, UNIT, Scaled
from alfm.heads.dropout import Dropout
from alfm.heads.linear import LinearHead
from alfm.heads.logistic import Logistic
from alfm.heads.passes import draws_at
from alfm.posteriors import DropoutPosterior, Ensemble, Laplace, pool_pass
from alfm.posteriors.laplace import precision_factor

N, D, C, R = 60, 10, 3, 2


def setup(space: str = "soft", dtype: torch.dtype = torch.float64) -> tuple[Features, LinearHead]:
    g = torch.Generator().manual_seed(0)
    pool = Features(torch.randn(N, D, generator=g, dtype=dtype) + 1)
    shift, scale = (torch.rand(D, generator=g, dtype=dtype) + 0.5 for _ in range(2))

    class Curved:
        shared = False

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x) * x

    one = {"soft": Scaled(shift, scale, unit=True), "standard": Scaled(shift, scale), "raw": RAW, "unit": UNIT}
    made = one.get(space, Curved())
    weight = torch.randn(R, C, D, generator=g, dtype=dtype)
    return pool, LinearHead([made] * R, weight, torch.randn(R, C, generator=g, dtype=dtype))


def bound(posterior, pool: Features, head: LinearHead, seeds=(3, 4), round: int = 2, n: int = 8, classifier=None):
    rows = torch.arange(n).expand(len(seeds), n)
    return posterior.bind(pool, head, classifier, rows, rows % head.C, seeds, round)


@pytest.mark.parametrize("space", ["soft", "standard", "raw", "unit", "curved"])
@pytest.mark.parametrize("per_item", [True, False])
def test_dropout_masks_raw_features_before_the_space(space: str, per_item: bool) -> None:
    pool, head = setup(space)
    draws = bound(DropoutPosterior(p=0.5, passes=4, per_item=per_item), pool, head)
    x = pool.features[10:25]
    got = draws.logits(slice(10, 25), x, 1)
    assert got.shape == (4, 15, C)
    assert draws.joint is not per_item
    for m in range(4):
        keep = draws.masks(torch.arange(10, 25), m, 1)
        torch.testing.assert_close(got[m], head.forward(x * keep * 2, 1))
    torch.testing.assert_close(draws.logits(torch.tensor([24, 11]), x[[14, 1]], 1), got[:, [14, 1]])


@pytest.mark.parametrize("space", ["soft", "standard", "raw", "unit", "curved"])
def test_dropout_draws_of_several_replicates_are_those_of_each(space: str) -> None:
    pool, head = setup(space)
    draws = bound(DropoutPosterior(p=0.5, passes=4), pool, head)
    for rows in (slice(10, 25), torch.tensor([24, 11])):
        got, x = draws.of_several(rows, pool.features[rows], slice(0, R)), pool.features[rows]
        torch.testing.assert_close(got, torch.stack([draws.logits(rows, x, r) for r in range(R)]))
        each = torch.stack([bald(own) for own in got])
        torch.testing.assert_close(bald(got), each)
        assert torch.equal(bald(got[:1])[0], each[0])


@pytest.mark.parametrize("words", [1, 2 * N, 1 << 17])
def test_dropout_masks_do_not_depend_on_how_many_are_made_at_once(words: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, head = setup()
    draws = bound(DropoutPosterior(passes=5), pool, head)
    monkeypatch.setattr("alfm.fused.masked_logits.MASK_WORDS", words)
    x = pool.features
    got = draws.logits(slice(0, N), x, 0)
    for m in range(5):
        torch.testing.assert_close(got[m], head.forward(x * draws.masks(torch.arange(N), m, 0) * 4, 0))


def test_dropout_with_everything_dropped_or_nothing() -> None:
    pool, head = setup("unit")
    draws = bound(DropoutPosterior(p=255 / 256, passes=20), pool, head)  # most rows lose all of their 10 features
    got = draws.logits(slice(0, N), pool.features, 0)
    assert torch.isfinite(got).all()
    empty = ~draws.masks(torch.arange(N), 0, 0).any(1)
    assert empty.sum() > 20
    torch.testing.assert_close(got[0, empty], head.bias[0].expand(int(empty.sum()), C))
    draws = bound(DropoutPosterior(p=0.0, passes=2), pool, head)
    torch.testing.assert_close(draws.logits(slice(0, N), pool.features, 0)[1], head.forward(pool.features, 0))


def test_dropout_masks_are_independent_over_items_passes_replicates_rounds() -> None:
    pool, head = setup()
    rows = torch.arange(N)
    per_item = bound(DropoutPosterior(p=0.75, passes=3), pool, head)
    first = per_item.masks(rows, 0, 0)
    assert first.float().mean().item() == pytest.approx(0.25, abs=0.06)
    assert len(torch.unique(first, dim=0)) > N / 2
    others = [per_item.masks(rows, 1, 0), per_item.masks(rows, 0, 1)]
    others.append(bound(DropoutPosterior(p=0.75, passes=3), pool, head, round=3).masks(rows, 0, 0))
    for other in others:
        assert (other & first).float().mean().item() == pytest.approx(1 / 16, abs=0.04)
    again = bound(DropoutPosterior(p=0.75, passes=5), pool, head).masks(rows, 0, 0)
    assert torch.equal(again, first)  # more passes leave the first ones as they were


@pytest.mark.parametrize("posterior", [DropoutPosterior(passes=3), Laplace(passes=3), Ensemble(passes=3)])
def test_pool_pass_equals_one_call_whatever_the_block_and_the_neighbours(posterior) -> None:
    pool, _ = setup(dtype=torch.float32)
    classifier = Logistic()
    rows = torch.arange(12).expand(R, 12)
    head = classifier.fit(pool, rows, rows % C, C, [3, 4])
    draws = bound(posterior, pool, head, n=12, classifier=classifier)
    scores = pool_pass(pool, draws, lambda logits, rows, r: bald(logits))
    assert scores.shape == (R, N)
    assert scores.std() > 1e-3
    for r in range(R):
        torch.testing.assert_close(scores[r], bald(draws.logits(slice(0, N), pool.features, r)))
    small, where = pool_pass(
        pool, draws, lambda logits, rows, r: (bald(logits), torch.arange(rows.start, rows.stop)), size=7
    )
    torch.testing.assert_close(small, scores)
    assert torch.equal(where, torch.arange(N).expand(R, N))
    alone_head = LinearHead(head.spaces[1:], head.weight[1:], head.bias[1:])
    alone = bound(posterior, pool, alone_head, seeds=(4,), n=12, classifier=classifier)
    assert torch.equal(pool_pass(pool, alone, lambda logits, rows, r: bald(logits))[0], scores[1])


def test_laplace_draws_have_the_covariance_of_the_formula() -> None:
    pool, head = setup("standard")
    draws = bound(Laplace(passes=4000, precision=0.5), pool, head)
    phi = head.spaces[0](pool.features[:8])
    p1 = torch.softmax(head.logits(phi, 0), 1).amax(1)
    precision = 0.5 * np.eye(D)
    for i in range(8):
        precision += float(p1[i] * (1 - p1[i])) * np.outer(phi[i], phi[i])
    np.testing.assert_allclose((draws.factors[0] @ draws.factors[0].T).numpy(), precision)
    sigma = np.linalg.inv(precision)
    weights = draws.weights[0].numpy()
    np.testing.assert_allclose(weights.mean(0), head.weight[0].numpy(), atol=0.12)
    for c in range(C):
        np.testing.assert_allclose(np.cov(weights[:, c].T), sigma, atol=0.2 * sigma.max())
    assert abs(np.corrcoef(weights[:, 0, 0], weights[:, 1, 0])[0, 1]) < 0.06  # classes are independent
    # A draw is one weight setting for all items.
    x = pool.features[20:30]
    want = head.spaces[0](x) @ draws.weights[0][5].T + head.bias[0]
    torch.testing.assert_close(draws.logits(slice(20, 30), x, 0)[5], want)
    # The closed form.
    phi = head.spaces[0](x).numpy()
    variance = np.einsum("id,de,ie->i", phi, sigma, phi)
    scaled = head.forward(x, 0).numpy() / np.sqrt(1 + math.pi / 8 * variance)[:, None]
    np.testing.assert_allclose(draws.predictive_logits(x, 0).numpy(), scaled)


def test_laplace_precision_is_the_heads_own() -> None:
    pool, head = setup()
    n = 8
    rows = torch.arange(n)
    phi = head.spaces[0](pool.features[:n])
    for classifier, precision in [(Logistic(strength=4.0), 0.25), (Dropout(weight_decay=0.05), n * 0.05), (None, 1.0)]:
        draws = bound(Laplace(), pool, head, n=len(rows), classifier=classifier)
        expected = precision_factor(phi[None], head.logits(phi, 0)[None], torch.tensor([precision], dtype=phi.dtype))
        torch.testing.assert_close(draws.factors[0], expected[0])


@pytest.mark.parametrize("space", ["curved", "soft"])
def test_laplace_of_several_replicates_is_each_ones_own(space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one product, one with fewer labels and another strength; about the same items and about items of its own."""
    pool, head = setup(space)
    rows = torch.arange(16).view(2, 8)
    rows[1, 5:] = -1
    targets = torch.where(rows >= 0, 0, -1)
    alone = Laplace().bind(pool, head, Dropout(), rows, targets, (3, 4), 2)
    monkeypatch.setattr(devices.Device, "at_once", lambda self, replicates, numbers, most: replicates)
    both = Laplace().bind(pool, head, Dropout(), rows, targets, (3, 4), 2)
    own = torch.tensor([[20, 3], [9, 1]])
    together = draws_at(pool, both, own, slice(0, 2))
    for r in range(2):
        torch.testing.assert_close(both.weights[r], alone.weights[r])
        torch.testing.assert_close(both.factors[r], alone.factors[r])
        x = pool.features[:10]
        expected = alone.logits(slice(0, 10), x, r)
        torch.testing.assert_close(both.of_several(slice(0, 10), x, slice(0, 2))[r], expected)
        torch.testing.assert_close(together[r], alone.logits(own[r], pool.features[own[r]], r))


def test_laplace_of_a_certain_head_is_the_prior() -> None:
    pool, head = setup()
    sure = LinearHead(head.spaces, head.weight * 1e6, head.bias)
    draws = bound(Laplace(passes=2, precision=4.0), pool, sure)
    torch.testing.assert_close(draws.factors[0], 2 * torch.eye(D, dtype=torch.float64))
    assert torch.isfinite(draws.logits(slice(0, N), pool.features, 0)).all()


def test_ensemble_members_are_refits_on_bootstrap_resamples() -> None:
    pool, _ = setup()
    calls = []

    class Spy:
        def fit(self, pool, rows, targets, *args, **kwargs):
            calls.append((rows, targets))
            return Logistic().fit(pool, rows, targets, *args, **kwargs)

    rows = torch.tensor([[5, 9, 1, 30, 40, 41], [7, 8, 9, 10, -1, -1]])
    targets = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 2, 0, -1, -1]])
    classifier = Spy()
    head = classifier.fit(pool, rows, targets, C, [3, 4])
    draws = Ensemble(passes=4).bind(pool, head, classifier, rows, targets, [3, 4], 2)
    member_rows, member_targets = calls[1]  # one call for all members
    assert member_rows.shape == (8, 6)
    for i in range(8):
        own = member_rows[i][member_rows[i] >= 0]
        allowed = rows[i // 4][rows[i // 4] >= 0].tolist()
        assert len(own) == len(allowed)
        assert set(own.tolist()) <= set(allowed)
        label = dict(zip(rows[i // 4].tolist(), targets[i // 4].tolist(), strict=True))
        assert [label[int(k)] for k in own] == member_targets[i][: len(own)].tolist()
    assert len({tuple(m.tolist()) for m in member_rows}) == 8
    logits = draws.logits(slice(0, N), pool.features, 1)
    assert logits.shape == (4, N, C)
    alone = Logistic().fit(pool, member_rows[6:7], member_targets[6:7], C, [0])
    torch.testing.assert_close(logits[2], alone.forward(pool.features, 0))


def test_ensemble_without_bootstrap_needs_a_random_classifier() -> None:
    pool, head = setup()
    draws = bound(Ensemble(passes=2, bootstrap=False), pool, head, classifier=Dropout(max_epochs=3))
    logits = draws.logits(slice(0, N), pool.features, 0)
    assert not torch.allclose(logits[0], logits[1])
    with pytest.raises(UserError, match="bootstrap"):
        bound(Ensemble(passes=2, bootstrap=False), pool, head, classifier=Logistic())


def test_wrong_settings_are_clear_errors() -> None:
    with pytest.raises(UserError, match="DropoutPosterior p=1.0"):
        DropoutPosterior(p=1.0)
    with pytest.raises(UserError, match="passes"):
        Ensemble(passes=0)
    with pytest.raises(UserError, match="precision"):
        Laplace(precision=0.0)
