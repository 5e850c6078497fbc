"""DCoM: radii, competence, whole sequences in both regimes, and what scaling the density once per batch changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.dcom import competence, covered, dcom, distances, radii
from strategies.factory import (
    SITUATIONS,
    assert_equivariant,
    assert_replicates_independent,
    clusters,
    make_query,
    picks_in,
    seen,
)

from alfm.acquisition import margin_uncertainty
from alfm.strategies.dcom import Dcom
from alfm.strategies.margins import Margins
from alfm.strategies.query import Query


def spread(width: float, n: int = 12, **options) -> Query:
    """Many clusters in few dimensions: balls of many sizes, some coverage below a and some above."""
    x, y = clusters(120, 3, 8, spread=width)
    return make_query(x=x, y=y, C=8, n=n, **options)


def predicted(query: Query) -> np.ndarray:
    return seen(query).p.argmax(1)


@pytest.mark.parametrize("width", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("options", [{}, {"start": 0.3, "largest": 0.9, "resolution": 0.01}])
def test_radii(width: float, options: dict) -> None:
    query = spread(width)
    view = seen(query)
    guess = predicted(query)
    expected = radii(query.pool.features.numpy(), view.labelled, view.targets, guess, **options)
    found = Dcom(**options).radii(query, 0, torch.from_numpy(guess)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert len(set(found.tolist())) > 3


def test_a_radius_is_pure_enough_and_the_next_size_is_not() -> None:
    query = spread(2.0)
    view = seen(query)
    d, guess = distances(query.pool.features.numpy()), predicted(query)
    least = 0.2 * covered(d, view.labelled, np.full(12, 0.6)).mean() + 0.4
    found = Dcom(resolution=1e-3).radii(query, 0, torch.from_numpy(guess)).numpy()

    def purity(i: int, label: int, r: float) -> float:
        return float((guess[d[i] < r] == label).mean())

    for i, label, r in zip(view.labelled, view.targets, found, strict=True):
        if guess[i] == label:  # else no ball is pure, and bisection goes to its end
            assert purity(i, label, r) >= least
            assert r > 1.1 - 2e-3 or purity(i, label, r + 1.1e-3) < least
    assert (found < 1.1).any()


def test_competence() -> None:
    assert competence(1.0) == pytest.approx(1.0)
    assert competence(0.8) == pytest.approx(0.5, abs=1e-4)
    assert competence(0.5) < 1e-6


@pytest.mark.parametrize("width", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("a, k", [(0.8, 50.0), (0.5, 5.0), (2.0, 50.0), (-1.0, 50.0)])
def test_sequence(width: float, a: float, k: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage below and above a, in between with a soft k, and both regimes by force."""
    monkeypatch.setattr("alfm.geometry.max_coverage.pair_block", lambda vectors: 50)  # blocks, the last one not full
    query = spread(width, block_rows=50)
    view = seen(query)
    expected = dcom(query.pool.features.numpy(), view.p, view.labelled, view.targets, view.free, 20, a, k)
    assert Dcom(a, k).select(query, 20)[0].tolist() == expected


def test_sequence_with_nearly_everything_covered() -> None:
    """Few uncovered items are counted another way."""
    query = spread(0.2, n=60)
    view = seen(query)
    h = query.pool.features.numpy()
    found = radii(h, view.labelled, view.targets, predicted(query))
    assert covered(distances(h), view.labelled, found).mean() > 0.9
    expected = dcom(h, view.p, view.labelled, view.targets, view.free, 20, k=2.0)
    assert Dcom(k=2.0).select(query, 20)[0].tolist() == expected


@pytest.mark.parametrize("k", [2.0, 50.0])
def test_without_lists_that_fit_the_picks_are_the_same(k: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """One replicate served by lists and the other by products, both by products, both by lists."""
    picks, served = [], []
    real = Dcom._around

    def spy(query: Query, radius: list[torch.Tensor]) -> list:
        served.append((real(query, radius), [float(own) for own in radius]))
        return served[-1][0]

    monkeypatch.setattr(Dcom, "_around", staticmethod(spy))
    for case in range(3):
        most = [np.inf, -1.0, np.mean(served[0][1]) if served else 0.0][case]
        monkeypatch.setattr("alfm.geometry.balls.NearPairs._largest", lambda self, pairs, most=most: most)
        picks.append(Dcom(k=k).select(spread(1.0, seeds=(1, 2)), 20))
    assert [sorted(type(balls).__name__ for balls in own) for own, _ in served] == [
        ["ListedBalls", "ListedBalls"],
        ["MultipliedBalls", "MultipliedBalls"],
        ["ListedBalls", "MultipliedBalls"],
    ]
    assert torch.equal(picks[0], picks[1]) and torch.equal(picks[0], picks[2])


def test_density_first_margins_last() -> None:
    query = spread(1.0)
    margins = Margins().select(query, 15)[0].tolist()
    assert Dcom(a=-1.0).select(query, 15)[0].tolist() == margins
    dense = Dcom(a=2.0).select(query, 15)[0].tolist()
    assert dense != margins
    score = query.score(margin_uncertainty)[0]
    assert score[margins].mean() > score[dense].mean()


@pytest.mark.parametrize("a", [2.0, -1.0])
def test_scaling_the_density_once_changes_nothing_in_either_regime(a: float) -> None:
    """The authors' code scales it anew for every pick: only a competence in between can see the difference."""
    query = spread(1.0)
    view = seen(query)
    expected = dcom(query.pool.features.numpy(), view.p, view.labelled, view.targets, view.free, 20, a, rescale=True)
    assert Dcom(a).select(query, 20)[0].tolist() == expected


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    assert picks_in(Dcom(), situation)[1] == 0


def test_replicates_and_order() -> None:
    assert_replicates_independent(Dcom)
    assert_equivariant(Dcom(k=5.0))
