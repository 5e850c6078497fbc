"""What float16 loses of features, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest

from alfm.cache.rounding import Rounding

RNG = np.random.default_rng(0)
X = RNG.normal(size=(500, 64)).astype("float32")


def loss(*blocks: np.ndarray, dtype: type = np.float16, spread: float = 0.0) -> str | None:
    rounding = Rounding(dtype, spread)
    for block in blocks:
        rounding.add(block)
    return rounding.loss()


@pytest.mark.parametrize(
    "features",
    [
        X,
        X * 1e3,
        np.maximum(X, 0),
        X / np.linalg.norm(X, axis=1, keepdims=True),
        np.rint(X * 60).clip(0, 255) / 255,  # pixels
        X[:1],
        X[:0],
        np.zeros((5, 3), "float32"),
        np.repeat(X[:3], 50, axis=0),  # equal before, equal after
        X.reshape(100, 5, 64),
        (X * 1e-8).astype("float16"),  # already lost
    ],
)
def test_what_float16_holds(features: np.ndarray) -> None:
    assert loss(features) is None


@pytest.mark.parametrize(
    ("features", "says"),
    [
        (X * 1e-8, "times their spread"),
        (X + 4096, "times their spread"),
        (X.astype("float64") + 4096, "times their spread"),
        (X * 1e5, "cannot hold values of"),
        (X * 2e-3, "below 6.1e-05"),
        (np.where(np.arange(500)[:, None] < 5, X * 100, X * 2e-3), "below 6.1e-05"),  # a few large rows hide the rest
        (np.repeat(np.arange(1, 6) * 1000.0, 100)[:, None] + np.arange(500)[:, None] * 1e-3, "rows different"),
        (np.stack([X + 4096, X], axis=1), "times their spread"),  # one of two views
    ],
)
def test_what_float16_destroys(features: np.ndarray, says: str) -> None:
    assert says in (loss(features) or "")


def test_float64_may_be_too_much_for_float32() -> None:
    assert loss(X.astype("float64"), dtype=np.float32) is None
    assert "times their spread" in (loss(X + 1e8 * np.ones(64), dtype=np.float32) or "")
    assert "cannot hold" in (loss(X * np.float64(1e40), dtype=np.float32) or "")


def test_blocks_add_up() -> None:
    whole, pieces = Rounding(), Rounding()
    whole.add(X + 40)
    for low in range(0, 500, 7):
        pieces.add(X[low : low + 7] + 40)
    centred = X.astype("float64") - X.mean(axis=0)
    assert whole.spread == pytest.approx(np.sqrt((centred**2).sum(axis=1).mean()), rel=1e-4)
    assert pieces.spread == pytest.approx(whole.spread, rel=1e-4)
    assert (whole.loss() is None) == (pieces.loss() is None)


def test_items_that_are_alike_are_held_to_the_spread_of_the_data_set() -> None:
    alike = 1 + 1e-3 * X
    assert loss(alike) is not None
    assert loss(alike, spread=float(np.sqrt(64))) is None
