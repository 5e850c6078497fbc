"""Acquisition scores against plain float64 NumPy, and at logits where probabilities underflow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alfm import acquisition as acq


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
    monkeypatch.setattr(acq, "block_numbers", lambda p: 2 * 30 * 5)  # two draws at a time, one in the last block
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


@pytest.mark.parametrize("name", ["bald", "kl_to_consensus", "vote_entropy"])
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


def test_a_single_class_leaves_no_doubt() -> None:
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
    monkeypatch.setattr(acq, "block_numbers", lambda p: 100)  # blocks of two items
    np.testing.assert_allclose(acq.epig(torch.from_numpy(z), torch.from_numpy(t)).numpy(), expected, atol=1e-12)
    both = acq.epig(*(torch.from_numpy(np.stack([own[:, ::-1], own])) for own in (z, t)))
    np.testing.assert_allclose(both.numpy(), [expected[::-1], expected], atol=1e-12)
    certain = torch.tensor(EXTREME).repeat(6, 1, 1)
    assert acq.epig(certain, torch.from_numpy(t).float()).abs().max() < 1e-5
