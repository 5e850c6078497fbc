"""VeSSAL against matrices of the full gradient dimension, one item after another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.vessal import vessal
from strategies.factory import SITUATIONS, assert_replicates_independent, make_query, picks_in, seen

from alfm.features.features import Features
from alfm.heads.dropout import Dropout
from alfm.strategies.vessal import Gradients, Vessal, accepted


def stream_of(query) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order (T,), gradients (T, C D) and decisions (T,) of replicate 0."""
    view = seen(query)
    free = np.flatnonzero(view.free)
    rng = query.rng(0, "vessal")
    order = free[rng.permutation(len(free))]
    error = view.p - np.eye(view.p.shape[1])[view.p.argmax(1)]
    return order, np.einsum("nc,nd->ncd", error, view.phi).reshape(len(error), -1)[order], rng.random(len(free))


@pytest.mark.parametrize("budget, rate", [(1, None), (10, None), (40, None), (90, None), (10, 0.05), (60, 0.3)])
@pytest.mark.parametrize("classifier", [None, Dropout()])
def test_sequence(budget: int, rate: float | None, classifier) -> None:
    for seed in range(3):
        query = make_query(seeds=(seed,), block_rows=50, classifier=classifier)
        order, gradients, uniform = stream_of(query)
        expected, _ = vessal(gradients, uniform, budget, rate)
        picks = Vessal(rate).select(query, budget)[0]
        assert picks[picks >= 0].tolist() == order[expected].tolist()
        assert len(expected) > 0


def test_float32_follows_when_copies_of_an_item_come_again_and_again() -> None:
    """Near copies of accepted items leave almost nothing: the running Cholesky must not drift below the truth."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = np.eye(3)[y] * 5 + 1e-4 * rng.normal(size=(200, 3))
    checked = 0
    for seed in range(12):
        wide = make_query(x=x, y=y, C=2, n=4, seeds=(seed,))
        narrow = make_query(x=x, y=y, C=2, n=4, seeds=(seed,), dtype=torch.float32)
        order, gradients, uniform = stream_of(wide)
        expected, probability = vessal(gradients, uniform, 30)
        gap = np.abs(np.array(probability) - uniform[: len(probability)]).min()
        if gap < 1e-4:  # a decision on the edge of rounding
            continue
        picks = Vessal().select(narrow, 30)[0]
        assert picks[picks >= 0].tolist() == order[expected].tolist()
        checked += 1
    assert checked >= 3


def test_about_the_budget_is_accepted() -> None:
    filled = []
    for seed in range(20):
        picks = Vessal().select(make_query(N=400, seeds=(seed,), dtype=torch.float32), 20)[0]
        filled.append(int((picks < 0).sum()))
    assert np.mean(filled) < 2


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    picks_in(Vessal(), situation)  # a shortage is part of the method
    picks_in(Vessal(rate=0.5), situation)


def test_zero_gradients_are_taken_at_the_plain_rate() -> None:
    query, budget = SITUATIONS["nothing but zeros"]()
    picks = Vessal().select(query, budget)[0]
    assert (picks >= 0).all()


def test_replicates_and_seeds() -> None:
    assert_replicates_independent(Vessal)
    one, two = (Vessal().select(make_query(seeds=(s,), rows=[list(range(12))]), 10)[0].tolist() for s in (1, 2))
    assert one != two


def test_a_stream_that_has_ended_is_not_walked_for_the_rest_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[int] = []
    products = Gradients.products
    monkeypatch.setattr(Gradients, "products", lambda x, t: walks.append(1) or products(x, t))
    query = make_query(N=300, seeds=(1,))
    picked = Vessal(rate=0.01).select(query, 100)[0]
    assert 0 < len(walks) == int((picked >= 0).sum()) < 50


@pytest.mark.parametrize("rate", [None, 0.2])
def test_replicates_together_accept_what_each_accepts_alone(rate: float | None) -> None:
    """One space for all, or one each."""
    rng = np.random.default_rng(0)
    pools = [Features(rng.normal(size=(90, 6))).raw for _ in range(2)]
    uniform = torch.from_numpy(rng.random((3, 70)))
    for phis in ([pools[0]] * 3, [pools[0], pools[1], pools[0]]):
        parts = []
        for phi in phis:
            error = torch.from_numpy(rng.normal(size=(1, 90, 4)))
            parts.append(Gradients([phi], error, torch.from_numpy(rng.permutation(90)[:70])[None]))
        found = accepted(Gradients.of(parts), uniform, 20, rate, 0.01)
        for part, numbers, places in zip(parts, uniform.split(1), found, strict=True):
            assert places.tolist() == accepted(part, numbers, 20, rate, 0.01)[0].tolist()
