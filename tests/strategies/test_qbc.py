"""Query by committee: each measure's sequence on the same members, members that differ, hard situations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.bald import bald
from reference.qbc import qbc
from reference.uncertainty import ranked
from strategies.factory import SITUATIONS, assert_replicates_independent, clusters, make_query, picks_in, seen

from alfm.posteriors import DropoutPosterior, Ensemble
from alfm.strategies.qbc import MEASURES, Qbc
from alfm.strategies.query import Query


def members(query: Query, posterior) -> np.ndarray:
    """(M, N, C)."""
    logits = query.draws(posterior).logits(slice(0, query.pool.N), query.pool.features, 0)
    return torch.softmax(logits, 2).numpy()


@pytest.mark.parametrize("posterior", [Ensemble(), Ensemble(4), DropoutPosterior()])
@pytest.mark.parametrize("measure", MEASURES)
def test_sequence_and_scores(measure: str, posterior) -> None:
    """Votes tie often: whole shares agree exactly, so ties go to the lower index on both sides."""
    x, y = clusters(80, 8, 6, spread=3.0)
    query = make_query(x=x, y=y, C=6, block_rows=50)
    view = seen(query)
    score = qbc(members(query, posterior), measure).round(12)
    strategy = Qbc(measure=measure, posterior=posterior)
    np.testing.assert_allclose(strategy.score(query)[0].numpy(), score, atol=1e-10)
    picks = strategy.select(query, 30)[0].tolist()
    assert np.ptp(score) > 0.05
    if measure == "vote_entropy":  # sums of logarithms: equal shares in another order may differ in the last bit
        np.testing.assert_allclose(score[picks], score[ranked(score, view.free, 30)], atol=1e-10)
    else:
        assert picks == ranked(score, view.free, 30)


def test_kl_to_the_mean_is_the_mutual_information() -> None:
    p = members(make_query(N=50), Ensemble())
    np.testing.assert_allclose(qbc(p, "kl"), bald(p), atol=1e-12)


def test_members_are_fitted_on_bootstraps_of_the_labels() -> None:
    query = make_query(N=50)
    p = members(query, Ensemble())
    assert len({member.tobytes() for member in p}) == 10
    other = members(make_query(N=50, round=3), Ensemble())
    assert not np.allclose(p, other)


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("measure", MEASURES)
def test_hard_situations(situation: str, measure: str) -> None:
    assert picks_in(Qbc(measure=measure, posterior=Ensemble(3)), situation)[1] == 0


def test_replicates_and_seeds() -> None:
    assert_replicates_independent(lambda: Qbc(posterior=Ensemble(3)))
    one, two = (Qbc().select(make_query(seeds=(s,), rows=[list(range(12))]), 10)[0].tolist() for s in (1, 2))
    assert one != two
