"""Least confidence, entropy, margins: sequences, the options they share, dropout means, underflow, direction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from reference.centroid import centroid
from reference.uncertainty import ranked, typical, uncertainty
from strategies.factory import (
    SITUATIONS,
    assert_equivariant,
    assert_replicates_independent,
    make_query,
    picks_in,
    raw_head,
    seen,
)

from alfm import devices
from alfm.devices import of
from alfm.geometry.kmeans import kmeans_each
from alfm.posteriors import DropoutPosterior, Ensemble
from alfm.strategies.entropy import Entropy
from alfm.strategies.margins import Margins
from alfm.strategies.parts.scored import PredictionScored
from alfm.strategies.query import Query
from alfm.strategies.uncertainty import Uncertainty

KINDS = [("uncertainty", Uncertainty), ("entropy", Entropy), ("margins", Margins)]


@pytest.mark.parametrize("name, kind", KINDS)
def test_sequence_and_scores(name: str, kind: type[PredictionScored]) -> None:
    query = make_query(block_rows=50)
    view = seen(query)
    score = uncertainty(view.p, name)
    np.testing.assert_allclose(kind().score(query)[0].numpy(), score, atol=1e-12)
    assert kind().select(query, 40)[0].tolist() == ranked(score, view.free, 40)


def test_the_three_differ() -> None:
    query = make_query(C=6)
    assert len({tuple(kind().select(query, 10)[0].tolist()) for _, kind in KINDS}) == 3


@pytest.mark.parametrize("name, kind", KINDS)
def test_typical_features(name: str, kind: type[PredictionScored]) -> None:
    query = make_query(N=121)
    view = seen(query)
    picks = kind(typical_features=True).select(query, 15)[0].tolist()
    assert picks == typical(uncertainty(view.p, name), view.free, 15)


@pytest.mark.parametrize("around_median", [False, True])
def test_cluster_features(around_median: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """k-means on the unit features of the top oversample x B (or of those around the median), nearest item each."""
    calls = []

    def spy(x, k, rng, *rest, **options):
        found = kmeans_each(x, k, rng, *rest, **options)
        calls.append((x[0].numpy(), k[0], found[0].centroids.numpy()))
        return found

    monkeypatch.setattr("alfm.strategies.parts.candidates.kmeans_each", spy)
    query = make_query()
    view = seen(query)
    strategy = Margins(typical_features=around_median, cluster_features=True, oversample=7)
    picks = strategy.select(query, 5)[0].tolist()
    rows = (typical if around_median else ranked)(uncertainty(view.p, "margins"), view.free, 35)
    h = query.pool.features.numpy()
    u = (h / np.linalg.norm(h, axis=1, keepdims=True))[rows]
    x, k, centroids = calls[0]
    np.testing.assert_allclose(x, u, atol=1e-12)
    assert k == 5
    # a centroid of two members is as far from one as from the other: rounding decides
    own, expected = [rows.index(pick) for pick in picks], centroid(u, centroids)
    assert len(set(own)) == 5
    reached, least = (np.linalg.norm(u[items] - centroids, axis=1) for items in (own, expected))
    np.testing.assert_allclose(reached, least, rtol=1e-9)


def dropped(query: Query, posterior: DropoutPosterior) -> np.ndarray:
    """Draws (M, N, C) of the posterior's masks, by the head on masked raw features."""
    draws, rows = query.draws(posterior), torch.arange(query.pool.N)
    assert query.head is not None
    out = []
    for m in range(posterior.passes):
        h = query.pool.features * draws.masks(rows, m, 0) / (1 - posterior.p)
        out.append(torch.softmax(query.head.forward(h, 0), 1).numpy())
    return np.array(out)


@pytest.mark.parametrize("name, kind", KINDS)
def test_dropout_scores_the_mean_prediction(name: str, kind: type[PredictionScored]) -> None:
    """Entropy with 25 passes is `dbal`."""
    posterior = DropoutPosterior(passes=25)
    query = make_query(block_rows=50)
    view = seen(query)
    score = uncertainty(dropped(query, posterior).mean(0), name)
    strategy = kind(enable_dropout=True, posterior=posterior)
    assert strategy.stochastic and not kind().stochastic
    np.testing.assert_allclose(strategy.score(query)[0].numpy(), score, atol=1e-10)
    assert strategy.select(query, 40)[0].tolist() == ranked(score, view.free, 40)


class Own(PredictionScored):
    """A score of a user's own that says which dimension its classes are in."""

    acquisition = staticmethod(lambda logits: -torch.softmax(logits, 1).amax(1))


class OwnOfOurs(Entropy):
    """What a strategy of ours was may be overridden too."""

    acquisition = staticmethod(lambda logits: -torch.softmax(logits, 1).amax(1))


@pytest.mark.parametrize("kind", [Own, OwnOfOurs])
@pytest.mark.parametrize("dropout", [False, True])
def test_an_acquisition_of_a_users_own_sees_one_replicate(
    kind: type[PredictionScored], dropout: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, posterior = make_query(seeds=(1, 2, 3), block_rows=50), DropoutPosterior(passes=5)
    wanted = Uncertainty(enable_dropout=dropout, posterior=posterior).score(query) - 1  # -p1
    for joined in (False, True):  # also where a device joins replicates
        monkeypatch.setattr(devices, "of", lambda device, on=joined: replace(of(device), joins_replicates=on))
        strategy = kind(enable_dropout=dropout, posterior=posterior)
        torch.testing.assert_close(strategy.score(query), wanted, atol=1e-12, rtol=0)
        if dropout:
            other = kind(enable_dropout=True, posterior=Ensemble(3))
            assert other.score(query).shape == (3, query.pool.N)


def test_a_subclass_written_for_0_1_0() -> None:
    with pytest.warns(DeprecationWarning):
        from alfm.strategies.scored import PredictionScored as Before
    assert Before is PredictionScored


@pytest.mark.parametrize("name, kind", KINDS)
def test_certain_items_never_come_first(name: str, kind: type[PredictionScored]) -> None:
    """p log p of an underflowed p is NaN, which sorts first; and an inverted margin would begin with the certain."""
    x = np.linspace(-1, 1, 41)[:, None]
    x = np.concatenate([1e4 * np.sign(x + 0.01), x])
    query = make_query(
        x=x,
        y=(x[:, 0] > 0).astype(int),
        C=2,
        rows=[[0, 40]],
        dtype=torch.float32,
        head=raw_head(torch.tensor([[[-1.0], [1.0]]])),
    )
    picks = kind().select(query, 41)[0].tolist()
    assert picks[0] == 41 + 20 and min(picks) == 41
    assert np.abs(x[picks, 0]).tolist() == sorted(np.abs(x[41:, 0]))


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("options", [{}, {"cluster_features": True}, {"typical_features": True}])
def test_hard_situations(situation: str, options: dict) -> None:
    for _, kind in KINDS:
        assert picks_in(kind(**options), situation)[1] == 0


@pytest.mark.parametrize("name, kind", KINDS)
def test_replicates_and_order(name: str, kind: type[PredictionScored]) -> None:
    for options in ({}, {"enable_dropout": True}, {"cluster_features": True}):
        assert_replicates_independent(lambda o=options: kind(**o))
    assert_equivariant(kind())
    assert_equivariant(kind(typical_features=True), N=121)
