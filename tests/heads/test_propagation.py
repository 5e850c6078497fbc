"""Label propagation against dense float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alfm.errors import UserError
from alfm.features.features import Features
from alfm.heads.linear import LinearHead
from alfm.heads.logistic import Logistic
from alfm.heads.propagation import Propagated, propagation_graph, spread


def two_arcs(n: int = 60, dtype: str = "float64") -> tuple[Features, torch.Tensor]:
    """Two bent clusters on the sphere: neighbours follow the bend, a few labels at its end do not show it."""
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1.2, n // 2)
    a = np.stack([np.cos(t), np.sin(t), np.zeros_like(t)], 1)
    b = np.stack([np.cos(t), np.zeros_like(t) - 0.8, np.sin(t) + 0.8], 1)
    x = np.concatenate([a, b]) * rng.uniform(0.5, 2, (n, 1)) + 0.01 * rng.normal(size=(n, 3))
    return Features(x.astype(dtype)), torch.arange(n) // (n // 2)


def dense_graph(x: np.ndarray, k: int, gamma: float) -> np.ndarray:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    u = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    cosine = u @ u.T
    np.fill_diagonal(cosine, -np.inf)
    a = np.zeros_like(cosine)
    for i, row in enumerate(cosine):
        near = np.argsort(-row)[:k]
        a[i, near] = np.maximum(row[near], 0) ** gamma
    w = a + a.T
    d = w.sum(1)
    root = np.divide(1, np.sqrt(d), out=np.zeros_like(d), where=d > 0)
    return root[:, None] * w * root


@pytest.mark.parametrize("gamma", [1.0, 3.0])
@pytest.mark.parametrize("blocks", [None, 17])
def test_graph_is_symmetric_with_weighted_degrees(gamma: float, blocks: int | None) -> None:
    pool, _ = two_arcs()
    pool = Features(pool.features, block_rows=blocks)
    got = propagation_graph(pool, 7, gamma).to_dense().numpy()
    np.testing.assert_allclose(got, dense_graph(pool.features.numpy(), 7, gamma), atol=1e-12)
    np.testing.assert_allclose(got, got.T)
    assert np.linalg.eigvalsh(got).max() == pytest.approx(1)


def test_small_pools_and_zero_vectors() -> None:
    x = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 0], [-1, 0.1]])
    pool = Features(x)
    graph = propagation_graph(pool, 500, 1.0).to_dense()
    np.testing.assert_allclose(graph.numpy(), dense_graph(x.numpy().astype(float), 3, 1.0), atol=1e-6)
    assert graph[2].abs().sum() == 0
    rows = torch.tensor([[0, 3]])
    head = Propagated(Logistic()).fit(pool, rows, torch.tensor([[0, 1]]), 2, [0])
    assert torch.isfinite(head.forward(x, 0)).all()
    alone = Features(x[:1])
    head = Propagated(Logistic()).fit(alone, torch.tensor([[0]]), torch.tensor([[1]]), 2, [0])
    assert head.forward(x[:1], 0).argmax() == 1


@pytest.mark.parametrize(("alpha", "iterations"), [(0.9, 100), (0.99, 200), (0.5, 40)])
def test_spread_equals_many_plain_iterations(alpha: float, iterations: int) -> None:
    pool, _ = two_arcs()
    s = dense_graph(pool.features.numpy(), 7, 1.0)
    y = np.zeros((60, 3))
    y[[0, 30, 45], [0, 1, 2]] = 1
    limit = (1 - alpha) * np.linalg.solve(np.eye(60) - alpha * s, y)
    z = y.copy()
    for _ in range(iterations):
        z = alpha * s @ z + (1 - alpha) * y
    got = spread(propagation_graph(pool, 7, 1.0), torch.from_numpy(y), alpha, iterations).numpy()
    plain_error = np.abs(z - limit).max()
    assert np.abs(got - limit).max() <= max(plain_error, alpha**iterations)
    np.testing.assert_allclose(got, limit, atol=2 * alpha**iterations)


class Spy:
    def fit(self, pool, rows, targets, num_classes, seeds, round=0, weight=None, previous=None) -> LinearHead:
        self.rows, self.targets, self.weight, self.seeds = rows, targets, weight, seeds
        return Logistic().fit(pool, rows, targets, num_classes, seeds, round, weight, previous)


def test_what_the_classifier_sees() -> None:
    pool, y = two_arcs()
    rows = torch.tensor([[0, 30, 1], [31, 5, -1]])
    targets = torch.tensor([[0, 1, 0], [3, 0, -1]])  # class 2 has no label; replicate 1 calls its cluster 3
    spy = Spy()
    Propagated(spy, k=7, unlabelled_weight=0.5).fit(pool, rows, targets, 4, [1, 2])
    for r, n in ((0, 3), (1, 2)):
        own = spy.rows[r][spy.rows[r] >= 0]
        assert own[:n].tolist() == rows[r, :n].tolist()
        assert len(own.unique()) == len(own)
        hard = torch.nn.functional.one_hot(targets[r, :n], 4).to(spy.targets)
        assert torch.equal(spy.targets[r, :n], hard)
        assert torch.equal(spy.weight[r, :n], torch.ones(n, dtype=torch.float64))
        rest = slice(n, len(own))
        torch.testing.assert_close(spy.targets[r, rest].sum(1), torch.ones(len(own) - n, dtype=torch.float64))
        assert spy.targets[r, rest][:, ~hard.any(0)].abs().sum() == 0
        assert spy.weight[r, rest].sum().item() == pytest.approx(0.5 * n)
        p = spy.targets[r, rest][:, hard.any(0)]
        certainty = 1 - torch.special.entr(p).sum(1) / np.log(2)
        torch.testing.assert_close(spy.weight[r, rest], certainty * (0.5 * n / certainty.sum()))
        assert (spy.weight[r, rest].diff() <= 0).all()
    assert (spy.weight[1][spy.rows[1] < 0] == 0).all()
    Propagated(spy, k=7, most=5).fit(pool, rows, targets, 4, [1, 2])
    assert (spy.rows >= 0).sum(1).tolist() == [8, 7]


def test_neighbourhoods_teach_the_head_what_two_labels_do_not() -> None:
    t = np.linspace(0, np.pi, 40)
    moons = np.concatenate([np.stack([np.cos(t), np.sin(t)], 1), np.stack([1 - np.cos(t), 0.5 - np.sin(t)], 1)])
    pool = Features(np.concatenate([moons - [0.5, 0.25], np.full((80, 1), 1.0)], 1))
    y = torch.arange(80) // 40
    rows = torch.tensor([[39, 79]])  # one end of each moon, which suggest a wrong boundary
    plain, informed = (
        (c.fit(pool, rows, y[rows], 2, [0]).forward(pool.features, 0).argmax(1) == y).double().mean().item()
        for c in (Logistic(), Propagated(Logistic(), k=3))
    )
    assert informed > plain + 0.1


def test_replicates_together_equal_alone_bit_for_bit() -> None:
    pool, y = two_arcs(dtype="float32")
    rows = torch.tensor([[0, 30, 1], [31, 5, -1]])
    targets = torch.where(rows >= 0, y[rows], -1)
    together = Propagated(Logistic(), k=7).fit(pool, rows, targets, 3, [1, 2])
    alone = Propagated(Logistic(), k=7).fit(pool, rows[1:, :2], targets[1:, :2], 3, [2])
    assert torch.equal(together.weight[1], alone.weight[0])


def test_wrong_settings_are_clear_errors() -> None:
    with pytest.raises(UserError, match="alpha"):
        Propagated(Logistic(), alpha=1.0)
