"""VeSSAL seen once against the whole-pool form of the strategy and against plain matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alfm.features.features import Features
from alfm.features.spaces import RAW
from alfm.one_shot.vessal_stream import VessalStream
from alfm.strategies.parts.gradients import prediction_error
from alfm.strategies.vessal import Gradients, accepted
from alfm.streams import stream


def gradients(N: int = 120, D: int = 5, C: int = 3, seed: int = 0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(N, D))), torch.from_numpy(2 * rng.normal(size=(N, C)))


def taken(stream: VessalStream, phi, logits, block: int) -> list[int]:
    out = [stream.take(x, z) for x, z in zip(phi.split(block), logits.split(block), strict=True)]
    return np.flatnonzero(np.concatenate(out)).tolist()


@pytest.mark.parametrize("block", [1, 7, 120])
@pytest.mark.parametrize("ridge", [0.01, 3.0])
def test_it_takes_what_the_strategy_would(block, ridge):
    phi, logits = gradients()
    uniform = torch.from_numpy(stream(4, 0, "vessal stream").random(120))
    x = Gradients([Features(phi).vectors(RAW)], prediction_error(logits)[None], torch.arange(120)[None])
    by_rate = taken(VessalStream(rate=0.2, ridge=ridge, seed=4), phi, logits, block)
    assert by_rate == accepted(x, uniform[None], 120, 0.2, ridge)[0].tolist() and 8 < len(by_rate) < 50
    by_count = taken(VessalStream(count=15, length=120, ridge=ridge, seed=4), phi, logits, block)
    expected = accepted(x, uniform[None], 15, None, ridge)[0].tolist()
    assert by_count[: len(expected)] == expected and len(by_count) == 15  # which may end short


def test_plain_matrices():
    """Sigma and its inverse as they stand in the paper."""
    phi, logits = gradients(60, 3, 3)
    g = (prediction_error(logits)[:, :, None] * phi[:, None]).flatten(1).numpy()
    uniform, inverse = stream(1, 0, "vessal stream").random(60), np.eye(9) / 0.01
    cov, expected = np.zeros((9, 9)), []
    for t, x in enumerate(g):
        cov = (t * cov + np.outer(x, x)) / (t + 1)
        if uniform[t] < 0.3 * (x @ inverse @ x) / np.trace(cov @ inverse):
            expected.append(t)
            inverse = np.linalg.inv(0.01 * np.eye(9) + g[expected].T @ g[expected])
    assert taken(VessalStream(rate=0.3, seed=1), phi, logits, 11) == expected


@pytest.mark.parametrize("kind", ["ordinary", "all alike", "nothing but certain", "one class", "huge"])
@pytest.mark.parametrize("count", [1, 17, 40])
def test_a_count_comes_out(kind, count):
    phi, logits = gradients(40)
    if kind == "all alike":
        phi, logits = phi[:1].expand(40, -1), logits[:1].expand(40, -1)
    elif kind == "nothing but certain":
        logits = 1e6 * torch.eye(3).double()[torch.arange(40) % 3]
    elif kind == "one class":
        logits = torch.tensor([[9.0, -9.0, -9.0]]).double().expand(40, -1)
    elif kind == "huge":
        phi = 1e8 * phi
    with np.errstate(all="raise"):
        assert len(taken(VessalStream(count=count, length=40), phi, logits, 9)) == count


def test_a_bounded_memory_serves_as_well():
    """The mean over the past is then that of a sample: about as many items are taken, and each twice as likely is."""
    phi, logits = gradients(1500, 4, 3)
    exact = taken(VessalStream(rate=0.05, remembered=4096), phi, logits, 256)
    sampled = taken(VessalStream(rate=0.05, remembered=128), phi, logits, 256)
    assert abs(len(exact) - len(sampled)) <= 0.15 * len(exact)
    assert len(set(exact) & set(sampled)) > 0.8 * len(exact)
