"""The default head fitted block by block is the one fitted at once; k nearest neighbours against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from alfm.features.features import Features
from alfm.heads import blockwise, neighbours
from alfm.heads.blockwise import fit_in_blocks
from alfm.heads.logistic import Logistic
from alfm.heads.neighbours import TEMPERATURE, choose_k, shares


def data(dtype: str = "float64", n: int = 400) -> tuple[np.ndarray, torch.Tensor]:
    rng = np.random.default_rng(0)
    y = rng.choice(5, size=n, p=[0.5, 0.2, 0.15, 0.1, 0.05])
    x = rng.normal(size=(5, 10))[y] + rng.normal(size=(n, 10)) * np.linspace(0.1, 3, 10) + 1
    return x.astype(dtype), torch.from_numpy(y)


@pytest.mark.parametrize("class_weight", ["balanced", "none"])
@pytest.mark.parametrize("scaling", ["soft", "none"])
def test_a_fit_in_blocks_finds_what_a_whole_fit_finds(monkeypatch, class_weight, scaling):
    x, y = data()
    pool = Features(x, block_rows=64)
    monkeypatch.setattr(blockwise, "LOGITS", 300)  # blocks of 42 items
    head = Logistic(scaling=scaling, class_weight=class_weight, tolerance=1e-12, strength=3.0)
    rows = torch.arange(400)[None]
    whole = head.fit(pool, rows, y[rows], 7)  # two classes have no item
    parts = fit_in_blocks(head, pool, y, 7)
    torch.testing.assert_close(parts.weight, whole.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(parts.forward(pool.features, 0), whole.forward(pool.features, 0), rtol=1e-3, atol=1e-3)


def test_votes_are_scikit_learns_with_the_same_weights():
    x, y = data(n=300)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    plain = KNeighborsClassifier(7, weights=lambda d: np.exp(-0.5 * d**2 / TEMPERATURE)).fit(unit[:200], y[:200])
    for dtype, tolerance in (("float64", 1e-9), ("float32", 1e-4)):
        pool, test = Features(x[:200].astype(dtype)), Features(x[200:].astype(dtype))
        found = shares(pool, y[:200], 5, test, 7)
        np.testing.assert_allclose(found.numpy(), plain.predict_proba(unit[200:]), atol=tolerance)


def test_k_is_chosen_by_leaving_one_out(monkeypatch):
    x, y = data(n=200)
    x[1] = x[0]  # a duplicate is a neighbour, the item itself is not
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    distance = ((unit[:, None] - unit[None]) ** 2).sum(2)
    np.fill_diagonal(distance, np.inf)
    order = distance.argsort(1, kind="stable")
    right = []
    for k in (1, 3, 10, 50):
        votes = np.zeros((200, 5))
        for i in range(200):
            np.add.at(votes[i], y.numpy()[order[i, :k]], np.exp(-0.5 * distance[i, order[i, :k]] / TEMPERATURE))
        right.append((votes.argmax(1) == y.numpy()).sum())
    monkeypatch.setattr(neighbours, "_AT_ONCE", 64)
    assert len(set(right)) > 1
    assert choose_k(Features(x), y, 5, (1, 3, 10, 50)) == (1, 3, 10, 50)[int(np.argmax(right))]
    assert choose_k(Features(x[:2]), y[:2], 5) == 1
