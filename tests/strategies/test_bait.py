"""BAIT: whole sequences, forward and backward, against inverses taken anew; verification of picks made ahead."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.bait import bait
from scipy.optimize import brentq
from strategies.factory import (
    SITUATIONS,
    assert_equivariant,
    assert_replicates_independent,
    clusters,
    make_query,
    picks_in,
    raw_head,
    seen,
)

from alfm.errors import UserError
from alfm.heads.dropout import Dropout
from alfm.strategies.bait.bait import Bait, sharpening
from alfm.strategies.bait.class_wise import Diagonal
from alfm.strategies.bait.rank_one import (
    Binary,
    binary_information,
    quadratic_form,
    quadratic_forms,
    second_moments,
    upper,
)
from alfm.strategies.query import Query, embedding

VARIANTS = ["binary", "full", "top_k", "diagonal"]


def binary(query: Query, budget: int) -> Binary:
    phi, labelled = embedding(query, 0), query.labelled(0)
    q, F = second_moments(phi, lambda rows, x, which: binary_information(query.head.logits(x)[which]), [slice(0, 1)])
    share = torch.tensor([[budget / (len(labelled) + budget)]], dtype=torch.float64)
    problem = Binary(phi, q, F, labelled[None], 1e-4 * float(phi.sq_norms.mean()), share)
    quadratic_forms(phi, [problem])
    return problem


def forward_picks(query: Query, budget: int) -> list[int]:
    free = query.available[0]
    return binary(query, budget).forward(free[None], [min(2 * budget, int(free.sum()))])[0].tolist()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("ridge, budget, n", [(1e-4, 6, 12), (1.0, 3, 20), (1e-4, 12, 1), (0.01, 12, 2)])
@pytest.mark.parametrize("certainty", [0.0, 0.95])
def test_sequence(variant: str, ridge: float, budget: int, n: int, certainty: float) -> None:
    query = make_query(N=60, D=4, C=3, n=n, block_rows=25)
    view = seen(query)
    p = sharper(view.p, view.labelled, certainty)
    _, expected = bait(view.phi, p, view.labelled, view.free, budget, variant, ridge)
    assert Bait(variant, ridge, certainty).select(query, budget)[0].tolist() == expected


def sharper(p: np.ndarray, labelled: np.ndarray, certainty: float) -> np.ndarray:
    """p^s / sum p^s, the probabilities of s times the logits, with the s that a root finder names."""

    def powered(s: float) -> np.ndarray:
        return p**s / (p**s).sum(axis=1, keepdims=True)

    def short(s: float) -> float:
        return powered(s)[labelled].max(axis=1).mean() - certainty

    return p if short(1.0) >= 0 else powered(brentq(short, 1.0, 100.0, xtol=1e-12))


def test_flat_heads_are_sharpened_and_certain_ones_left_alone() -> None:
    logits = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    factor = sharpening(logits, 0.9)
    assert factor > 1
    assert torch.softmax(logits * factor, 1).amax(1).mean().item() == pytest.approx(0.9, abs=1e-6)
    assert sharpening(logits * 50, 0.9) == 1.0
    assert sharpening(torch.zeros(3, 4), 0.9) == 100.0  # nothing to sharpen: bounded


@pytest.mark.parametrize("front, chunk", [(3, 20), (20, 4), (20, 20), (200, 7)])
@pytest.mark.parametrize("classifier", [None, Dropout()])
def test_picks_made_ahead_are_those_of_the_plain_greedy(front: int, chunk: int, classifier, monkeypatch) -> None:
    """With few front-runners others overtake them all the time, and the passes over everything must notice."""
    query = make_query(N=150, D=10, classifier=classifier)
    view = seen(query)
    expected, _ = bait(view.phi, view.p, view.labelled, view.free, 15)
    monkeypatch.setattr("alfm.strategies.bait.rank_one.FRONT", front)
    monkeypatch.setattr("alfm.strategies.bait.rank_one.CHUNK", chunk)
    assert forward_picks(query, 15) == expected


def test_few_passes_over_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    replayed = Binary._replayed
    monkeypatch.setattr(Binary, "_replayed", lambda *args: (passes.append(1), replayed(*args))[1])
    assert len(set(forward_picks(make_query(N=400, D=10), 20))) == 40
    assert len(passes) <= 3  # not 40


def test_float32_agrees_and_lowers_the_objective_alike() -> None:
    x, y = clusters(400, 24, 6)
    wide, narrow = (make_query(x=x, y=y, C=6, n=30, dtype=t) for t in (torch.float64, torch.float32))
    assert Bait().select(narrow, 20)[0].tolist() == Bait().select(wide, 20)[0].tolist()


def test_scale_of_the_features_does_not_matter() -> None:
    x, y = clusters(150, 6, 4)
    weight = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    picks = [
        Bait().select(make_query(x=x * s, y=y, C=4, head=raw_head(weight / s)), 8)[0].tolist()
        for s in (0.01, 1.0, 100.0)
    ]
    assert picks[0] == picks[1] == picks[2]


def test_blocked_symmetric_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alfm.strategies.bait.rank_one.piece", lambda phi: 9)
    query = make_query(N=90, D=37, block_rows=40)
    phi = embedding(query, 0)
    x = phi.matrix
    weights = [lambda x: x[:, 0].square(), lambda x: x[:, 1].exp()]
    for groups in ([slice(0, 1), slice(1, 2)], [slice(0, 2)]):
        values, moments = second_moments(phi, lambda _, x, own: torch.stack([w(x) for w in weights[own]]), groups)
        for weight, value, moment in zip(weights, values, moments, strict=True):
            torch.testing.assert_close(value, weight(x))
            torch.testing.assert_close(moment, x.T @ (weight(x)[:, None] * x))
    A = torch.rand(2, 37, 37, dtype=torch.float64)
    A = A + A.mT
    form = quadratic_form(x, upper(A, x.dtype), x.new_empty(2 * x.numel()))
    torch.testing.assert_close(form, torch.einsum("nd,rde,ne->rn", x, A, x))


@pytest.mark.parametrize("n", [3, 30])
def test_matrices_and_forms(n: int) -> None:
    """Few and many labels: M0^-1 by Woodbury and directly, b from either."""
    query = make_query(N=90, D=10, n=n, block_rows=40)
    problem = binary(query, 5)
    view = seen(query)
    q = view.p.max(1) * (1 - view.p.max(1))
    x, share = view.phi, 5 / (n + 5)
    ridge = 1e-4 * (x**2).sum(1).mean()
    inverse = np.linalg.inv(
        ridge * np.eye(10) + (1 - share) / n * (x[view.labelled].T * q[view.labelled]) @ x[view.labelled]
    )
    middle = inverse @ (x.T * q) @ x @ inverse / 90
    np.testing.assert_allclose(problem.inverse[0], inverse, rtol=1e-8, atol=1e-8 * inverse.max())
    np.testing.assert_allclose(problem.middle[0], middle, rtol=1e-8, atol=1e-8 * middle.max())
    np.testing.assert_allclose(problem.a[0], np.einsum("nd,de,ne->n", x, middle, x), rtol=1e-6)
    np.testing.assert_allclose(problem.e[0], 1 / (q * share) + np.einsum("nd,de,ne->n", x, inverse, x), rtol=1e-6)


@pytest.mark.parametrize("n", [3, 30])
def test_replicates_in_one_product_are_those_alone(n: int) -> None:
    """One with fewer labels, whose rows are padded."""
    query = make_query(N=90, D=10, n=n)
    phi, ridge, rows = embedding(query, 0), 0.01, query.rows[0]
    weights = torch.rand(2, 90, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([[0.2], [0.3]], dtype=torch.float64)

    def problem(which: slice, labelled: torch.Tensor) -> Binary:
        q, F = second_moments(phi, lambda own, x, _: weights[which, own], [slice(0, len(labelled))])
        one = Binary(phi, q, F, labelled, ridge, shares[which])
        quadratic_forms(phi, [one])
        return one

    both = problem(slice(0, 2), torch.stack([rows, rows.clone().index_fill_(0, torch.tensor([n - 1]), -1)]))
    picks = torch.arange(24).view(2, 12)
    for r, own in enumerate([rows, rows[:-1]]):
        alone = problem(slice(r, r + 1), own[None])
        for name in ("inverse", "middle", "a", "e"):
            torch.testing.assert_close(getattr(both, name)[r], getattr(alone, name)[0])
        assert both.keep(picks, 5)[r].tolist() == alone.keep(picks[r, None], 5)[0].tolist()
        assert both.part([r]).keep(picks[r, None], 5)[0].tolist() == alone.keep(picks[r, None], 5)[0].tolist()


def test_certain_items_add_nothing() -> None:
    """With all items certain every gain is 0, and the lower rows come first, labelled ones left out."""
    query = make_query(N=60, D=6, n=5, dtype=torch.float32)
    problem = binary(query, 5)
    problem.w.zero_()
    problem.e.fill_(torch.inf)
    free = query.available[0]
    assert problem.forward(free[None], [30])[0].tolist() == free.nonzero()[:30, 0].tolist()


def test_binary_information_of_certain_items() -> None:
    q = binary_information(torch.tensor([[0.0, 0.0], [30.0, 0.0], [1e4, -1e4]], dtype=torch.float64))
    np.testing.assert_allclose(q.numpy(), [0.25, np.exp(-30), 0.0], rtol=1e-9)


def test_lazy_diagonal_looks_at_few_items_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    gains = Diagonal._gains
    monkeypatch.setattr(Diagonal, "_gains", lambda self, f: (looked.append(f.shape[1]), gains(self, f))[1])
    query = make_query(N=600, C=5, n=20)
    Bait("diagonal", ridge=0.1).select(query, 5)
    assert looked[0] == 600 and sum(looked[1:]) < 5 * 600


@pytest.mark.parametrize("variant", ["full", "top_k"])
def test_large_problems_are_refused_in_one_sentence(variant: str) -> None:
    query = make_query(D=8, C=4)
    with pytest.raises(UserError, match=r"GiB for 4 classes x 8 dimensions.*variant=binary"):
        Bait(variant, max_bytes=40_000).select(query, 5)
    assert (Bait(variant, max_bytes=100_000).select(query, 5) >= 0).all()


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_hard_situations(situation: str, variant: str) -> None:
    assert picks_in(Bait(variant), situation)[1] == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_replicates_and_order(variant: str) -> None:
    assert_replicates_independent(lambda: Bait(variant), budget=6)
    assert_equivariant(Bait(variant), budget=6)
