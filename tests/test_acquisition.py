"""Acquisition scores against plain float64 NumPy, and at logits where probabilities underflow."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from alfm import acquisition as acq
from alfm import host_ops


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def h(p: np.ndarray) -> np.ndarray:
    """Entropy over the last axis by the definition, 0 log 0 = 0."""
    out = np.zeros_like(p)
    np.log(p, out=out, where=p > 0)
    return -(p * out).sum(-1)


def draws(m: int = 7, b: int = 30, c: int = 5, scale: float = 2.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return scale * (rng.normal(size=(1, b, c)) + 0.7 * rng.normal(size=(m, b, c)))


def votes(z: np.ndarray) -> np.ndarray:
    return np.stack([(z.argmax(-1) == c).mean(0) for c in range(z.shape[-1])], -1)


def sorted_p(z: np.ndarray) -> np.ndarray:
    return np.sort(softmax(z), -1)[..., ::-1]


def kl(z: np.ndarray) -> np.ndarray:
    p = softmax(z)
    return (p * np.log(p / p.mean(0))).sum(-1).mean(0)


ONE = {
    "least_confidence": lambda z: 1 - softmax(z).max(-1),
    "entropy": lambda z: h(softmax(z)),
    "margin_uncertainty": lambda z: 1 - (sorted_p(z)[:, 0] - sorted_p(z)[:, 1]),
}
MANY = {
    "mean_least_confidence": lambda z: 1 - softmax(z).mean(0).max(-1),
    "mean_entropy": lambda z: h(softmax(z).mean(0)),
    "mean_margin_uncertainty": lambda z: 1 + np.diff(np.sort(softmax(z).mean(0), -1)[:, -2:], axis=-1)[:, 0] * -1,
    "bald": lambda z: h(softmax(z).mean(0)) - h(softmax(z)).mean(0),
    "kl_to_consensus": kl,
    "variation_ratio": lambda z: 1 - votes(z).max(-1),
    "vote_entropy": lambda z: h(votes(z)),
}


@pytest.mark.parametrize("name", [*ONE, *MANY])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_plain_numpy(name: str, dtype: torch.dtype) -> None:
    z = draws()
    z, expected = (z[0], ONE[name](z[0])) if name in ONE else (z, MANY[name](z))
    got = getattr(acq, name)(torch.from_numpy(z).to(dtype))
    assert got.dtype == dtype
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(got.double().numpy(), expected, atol=1e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("name", MANY)
def test_draws_may_lie_by_classes_in_memory_and_in_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.from_numpy(draws())
    by_classes = z.mT.contiguous().mT
    kept = by_classes.clone()
    expected = getattr(acq, name)(z)
    monkeypatch.setattr(acq, "_block", lambda p: 2 * 30 * 5)  # two draws at a time, one in the last block
    torch.testing.assert_close(getattr(acq, name)(by_classes), expected)
    assert torch.equal(by_classes, kept)  # the logits are left as they were


EXTREME = [
    [1e4, -1e4, 0.0],
    [88.0, -88.0, 0.0],
    [-1e4, -1e4, 1e4],
    [-88.0, 88.0, -88.0],
    [1e4, 0.0, -1e4],
]


@pytest.mark.parametrize("name", [*ONE, *MANY])
def test_certain_items_score_zero_and_never_sort_first(name: str) -> None:
    unsure = torch.tensor([[0.0, 0.1, 0.2]])
    z = torch.cat([torch.tensor(EXTREME), unsure])
    if name in MANY:
        z = z.repeat(6, 1, 1)
        z[::2, -1] = z[::2, -1].flip(1) * 20  # the unsure item's members disagree
    score = getattr(acq, name)(z)
    assert torch.isfinite(score).all()
    assert (score[:-1] >= 0).all()
    assert score[:-1].max() < 1e-6
    assert int(score.argmax()) == len(EXTREME)
    assert score[-1] > 0.1


@pytest.mark.parametrize("name", ["bald", "kl_to_consensus", "mean_entropy", "vote_entropy"])
def test_members_that_are_certain_of_different_classes(name: str) -> None:
    z = torch.full((4, 1, 4), -1e4)
    for m in range(4):
        z[m, 0, m] = 1e4
    torch.testing.assert_close(getattr(acq, name)(z), torch.tensor([np.log(4)], dtype=torch.float32))


def test_minus_infinite_logits_are_impossible_classes() -> None:
    z = torch.tensor([[0.0, 0.0, -torch.inf]])
    torch.testing.assert_close(acq.entropy(z), torch.tensor([np.log(2)], dtype=torch.float32))
    assert float(acq.bald(z.expand(3, 1, 3))[0]) == pytest.approx(0, abs=1e-6)


def test_mean_log_probabilities() -> None:
    z = draws()
    got = acq.mean_log_probabilities(torch.from_numpy(z))
    np.testing.assert_allclose(got.numpy(), np.log(softmax(z).mean(0)))
    np.testing.assert_allclose(acq.mean_probabilities(torch.from_numpy(z)).numpy(), softmax(z).mean(0))
    far = torch.tensor(EXTREME).repeat(2, 1, 1)
    assert torch.isfinite(acq.mean_log_probabilities(far)).all()
    assert acq.entropy(acq.mean_log_probabilities(far)).max() < 1e-6


def test_top2() -> None:
    z = draws()[0]
    p, y = acq.top2(torch.from_numpy(z))
    np.testing.assert_allclose(p.numpy(), sorted_p(z)[:, :2])
    np.testing.assert_array_equal(y.numpy(), np.argsort(-z, -1)[:, :2])
    p, y = acq.top2(torch.zeros(2, 4))
    assert y.tolist() == [[0, 1], [0, 1]]
    p, y = acq.top2(torch.zeros(2, 1))
    assert p.tolist() == [[1, 0], [1, 0]]
    assert acq.margin_uncertainty(torch.zeros(2, 1)).tolist() == [0, 0]


def test_epig_equals_plain_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    z, t = draws(6, 9, 3, seed=1), draws(6, 4, 3, seed=2)
    p, q = softmax(z), softmax(t)
    expected = np.zeros(9)
    for i in range(9):
        for j in range(4):
            joint = np.mean([np.outer(p[m, i], q[m, j]) for m in range(6)], 0)
            independent = np.outer(p[:, i].mean(0), q[:, j].mean(0))
            expected[i] += (joint * np.log(joint / independent)).sum() / 4
    got = acq.epig(torch.from_numpy(z), torch.from_numpy(t))
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)
    monkeypatch.setattr(acq, "_block", lambda p: 100)  # blocks of two items
    np.testing.assert_allclose(acq.epig(torch.from_numpy(z), torch.from_numpy(t)).numpy(), expected, atol=1e-12)
    certain = torch.tensor(EXTREME).repeat(6, 1, 1)
    assert acq.epig(certain, torch.from_numpy(t).float()).abs().max() < 1e-5


def joint_information(p: np.ndarray, batch: list[int]) -> float:
    """I(y_batch; weights) by listing every configuration; p (M, n, C)."""
    M, _, C = p.shape
    total = 0.0
    for labels in itertools.product(range(C), repeat=len(batch)):
        q = np.mean([np.prod([p[m, i, c] for i, c in zip(batch, labels, strict=True)]) for m in range(M)])
        total -= q * np.log(q)
    return total - sum(h(p[:, i]).mean() for i in batch)


def test_batchbald_exact_equals_plain_greedy() -> None:
    z = draws(5, 10, 3, scale=8.0, seed=4)
    z[:, 2] = z[:, 6] * 0.99  # nearly the best item again: its own score is high, what it adds is not
    p = softmax(z)
    expected: list[int] = []
    for _ in range(4):
        gains = [-np.inf if i in expected else joint_information(p, [*expected, i]) for i in range(10)]
        expected.append(int(np.argmax(gains)))
    got = acq.batchbald(torch.from_numpy(np.log(p)), 4, np.random.default_rng(0), max_samples=1000)
    assert got.tolist() == expected
    bald_order = acq.bald(torch.from_numpy(z)).argsort(descending=True)[:4].tolist()
    assert expected != bald_order  # the joint term matters on this input


def gains(log_joint: torch.Tensor, p: torch.Tensor, listed: bool) -> torch.Tensor:
    """What each of the candidates p (M, n, C) adds to a batch with these configurations (K, M)."""
    share = log_joint.logsumexp(1) if listed else torch.zeros(len(log_joint), dtype=p.dtype)
    within = -(p * p.log()).sum(-1).T
    out = torch.full_like(within[:, 0], torch.inf)
    posterior, weight = acq._open(log_joint, torch.softmax(share, 0), not listed, lazy=True)
    scratch = torch.empty(2, len(out) * p.shape[2] * len(log_joint), dtype=p.dtype)
    best = acq._best(out, len(out), within, p.permute(1, 2, 0), posterior, weight, scratch, lazy=True)
    assert int(best) == int(out.argmax())
    return out


def test_batchbald_gains_from_listed_and_from_sampled_configurations() -> None:
    p = torch.from_numpy(softmax(draws(5, 8, 3, seed=5)))
    log_p, batch = p.log(), [0, 1, 2]
    listed = torch.zeros(1, 5, dtype=torch.float64)
    for item in batch:
        listed = (listed[:, None] + log_p[:, item].T).reshape(-1, 5)
    exact = gains(listed, p, listed=True)
    expected = [joint_information(p.numpy(), [*batch, i]) - joint_information(p.numpy(), batch) for i in range(3, 8)]
    np.testing.assert_allclose(exact[3:].numpy(), expected, atol=1e-12)
    rng = np.random.default_rng(0)
    source = torch.arange(40_000) % 5
    sampled = torch.zeros(len(source), 5, dtype=torch.float64)
    for item in batch:
        u = torch.from_numpy(rng.random(len(source)))
        label = (p[:, item].cumsum(1)[source] < u[:, None]).sum(1)
        sampled += log_p[:, item].T[label]
    estimate = gains(sampled, p, listed=False)
    np.testing.assert_allclose(estimate.numpy(), exact.numpy(), atol=0.01)
    # A configuration's constant changes nothing: long batches are scaled.
    scaled = gains(sampled - sampled.amax(1, keepdim=True), p, listed=False)
    np.testing.assert_allclose(scaled.numpy(), estimate.numpy(), atol=1e-12)


@pytest.mark.parametrize("max_samples", [10**5, 50])
def test_batchbald_lazy_is_the_greedy(max_samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed (3^7 configurations): the same picks for fewer candidates looked at. Sampled: as good up to the noise."""
    z = draws(8, 60, 3, scale=3.0, seed=7)
    z[:, ::2] *= np.linspace(0.02, 0.3, 30)[:, None]  # half of the items say little
    log_p = torch.log_softmax(torch.from_numpy(z), -1)
    looked: list[int] = []
    real = host_ops.log
    monkeypatch.setattr(host_ops, "log", lambda q, out: (looked.append(q.shape[0] // 3), real(q, out))[1])

    def picks(block: int) -> list[int]:
        looked.clear()
        monkeypatch.setattr(acq, "_block", lambda p, block=block: block)
        return acq.batchbald(log_p, 8, np.random.default_rng(0), max_samples).tolist()

    plain = picks(10**9)
    assert sum(looked) == sum(range(53, 61))
    lazy = picks(1)
    assert sum(looked) < 0.6 * sum(range(53, 61))
    if max_samples > 3**8:
        assert lazy == plain
    else:
        p = softmax(z)
        worth = [joint_information(p, batch) for batch in (lazy, plain)]
        assert abs(worth[0] - worth[1]) < 0.05 * worth[1]


def test_batchbald_long_batches_are_distinct_seeded_and_do_not_underflow() -> None:
    log_p = torch.log_softmax(torch.from_numpy(draws(6, 120, 4, scale=30.0)).float(), -1)
    picks = acq.batchbald(log_p, 100, np.random.default_rng(0), max_samples=64)
    assert len(set(picks.tolist())) == 100
    assert picks.tolist() == acq.batchbald(log_p, 100, np.random.default_rng(0), max_samples=64).tolist()
    assert len(acq.batchbald(log_p[:, :5], 9, np.random.default_rng(0))) == 5


def test_batchbald_configurations_without_doubt_add_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    p = torch.from_numpy(softmax(draws(6, 12, 3, scale=8.0, seed=2)))
    rng = np.random.default_rng(1)
    sampled = torch.zeros(600, 6, dtype=torch.float64)
    for item in range(8):
        u = torch.from_numpy(rng.random(600))
        label = (p[:, item].cumsum(1)[torch.arange(600) % 6] < u[:, None]).sum(1).clamp_max(2)
        sampled += p.log()[:, item].T[label]
    posterior, _ = acq._open(sampled, torch.full((600,), 1 / 600, dtype=torch.float64), True, lazy=True)
    assert 0 < len(posterior) < 550  # many are left out
    some = gains(sampled, p, listed=False)
    monkeypatch.setattr(acq, "RESOLVED", (0.0, 0.0))
    every = gains(sampled, p, listed=False)
    doubt = torch.distributions.Categorical(logits=sampled).entropy().mean()
    assert 0 <= float((every - some).min()) and float((every - some).max()) <= 1e-3 * float(doubt)


def test_batchbald_falls_back_on_the_candidates_order_once_the_draws_are_told_apart() -> None:
    log_p = torch.full((2, 6, 2), np.log(0.5), dtype=torch.float64)
    log_p[0, 3], log_p[1, 3] = (
        torch.tensor([0.0, -np.inf]),
        torch.tensor([-np.inf, 0.0]),
    )  # item 3 tells which draw it is
    log_p[0, 4], log_p[1, 4] = torch.log(torch.tensor([0.9, 0.1])), torch.log(torch.tensor([0.2, 0.8]))
    assert acq.batchbald(log_p, 6, np.random.default_rng(0), 50).tolist() == [3, 0, 1, 2, 4, 5]
