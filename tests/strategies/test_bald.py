"""BALD: sequence under the same masks; powerbald and its kin: the rule, and the frequencies it draws with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.bald import bald
from reference.uncertainty import ranked, uncertainty
from scipy.stats import chisquare
from strategies.factory import SITUATIONS, assert_replicates_independent, make_query, picks_in, raw_head, seen

from alfm.posteriors import DropoutPosterior, Ensemble, Laplace
from alfm.strategies.bald import Bald
from alfm.strategies.parts.scored import Scored
from alfm.strategies.power import Power, PowerBald, PowerEntropy, PowerMargins
from alfm.strategies.query import Query


def draws_of(query: Query, posterior) -> np.ndarray:
    """(M, N, C), the posterior's own draws."""
    logits = query.draws(posterior).logits(slice(0, query.pool.N), query.pool.features, 0)
    return torch.softmax(logits, 2).numpy()


def masked(query: Query, posterior: DropoutPosterior) -> np.ndarray:
    """(M, N, C): the head on features masked here, with the posterior's masks."""
    draws, rows = query.draws(posterior), torch.arange(query.pool.N)
    assert query.head is not None
    out = []
    for m in range(posterior.passes):
        h = query.pool.features * draws.masks(rows, m, 0) / (1 - posterior.p)
        out.append(torch.softmax(query.head.forward(h, 0), 1).numpy())
    return np.array(out)


@pytest.mark.parametrize("posterior", [DropoutPosterior(), DropoutPosterior(0.5, 8), DropoutPosterior(per_item=False)])
def test_sequence_with_dropout(posterior: DropoutPosterior) -> None:
    query = make_query(block_rows=50)
    view = seen(query)
    score = bald(masked(query, posterior))
    strategy = Bald(posterior=posterior)
    np.testing.assert_allclose(strategy.score(query)[0].numpy(), score, atol=1e-10)
    assert strategy.select(query, 40)[0].tolist() == ranked(score, view.free, 40)


@pytest.mark.parametrize("posterior", [Laplace(), Ensemble(5)])
def test_sequence_with_other_posteriors(posterior) -> None:
    query = make_query()
    score = bald(draws_of(query, posterior))
    assert Bald(posterior=posterior).select(query, 40)[0].tolist() == ranked(score, seen(query).free, 40)


def test_bald_is_not_the_entropy_of_the_mean() -> None:
    query = make_query()
    p = masked(query, DropoutPosterior())
    assert ranked(bald(p), seen(query).free, 10) != ranked(uncertainty(p.mean(0), "entropy"), seen(query).free, 10)


# -- power -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, name", [(PowerEntropy, "entropy"), (PowerMargins, "margins"), (PowerBald, "bald")])
@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_power_rule(kind: type[Power], name: str, beta: float) -> None:
    """beta log(score) + Gumbel, the stream's own, then the top B."""
    query = make_query()
    view = seen(query)
    score = bald(masked(query, DropoutPosterior())) if name == "bald" else uncertainty(view.p, name)
    noise = query.rng(0, "gumbel").gumbel(size=120)
    expected = ranked(beta * np.log(np.maximum(score, np.finfo(float).tiny)) + noise, view.free, 30)
    assert kind(beta=beta).select(query, 30)[0].tolist() == expected


SCORES = np.array([0.0, 0.4, 0.1, 0.25, 1.0, 0.6, 3.0])  # the last item is labelled


class Fixed(Scored):
    def score(self, query: Query) -> torch.Tensor:
        return torch.from_numpy(SCORES).expand(query.R, -1)


class PowerFixed(Power, Fixed):
    pass


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_power_draws_without_replacement_in_proportion_to_the_scores(beta: float) -> None:
    R = 4000
    query = make_query(
        x=np.arange(14.0).reshape(7, 2),
        y=np.arange(7) % 2,
        C=2,
        rows=[[6]] * R,
        seeds=range(R),
        head=raw_head(torch.zeros(1, 2, 2)),
    )
    picks = PowerFixed(beta=beta).select(query, 6).numpy()
    chance = SCORES[:6] ** beta / (SCORES[:6] ** beta).sum()
    found, expected = np.zeros((6, 6)), np.zeros((6, 6))
    np.add.at(found, (picks[:, 0], picks[:, 1]), 1)
    for i in range(1, 6):
        for j in range(1, 6):
            expected[i, j] = R * chance[i] * chance[j] / (1 - chance[i]) if i != j else 0
    assert not found[expected == 0].any()  # a score of 0 comes last, and is no NaN
    assert chisquare(found[expected > 0], expected[expected > 0]).pvalue > 1e-3
    assert (picks[:, 5] == 0).all()


def test_certain_items_are_drawn_last() -> None:
    """BALD of items whose draws all underflow is 0, its logarithm is clamped: no NaN at the front."""
    x = np.concatenate([np.full((30, 2), 1e4), np.random.default_rng(0).normal(size=(30, 2))])
    weight = torch.tensor([[[1.0, 0.5], [-1.0, -0.5]]])
    query = make_query(x=x, y=np.arange(60) % 2, C=2, rows=[[0, 31]], dtype=torch.float32, head=raw_head(weight))
    for strategy in (PowerEntropy(), PowerMargins(), PowerBald(posterior=Laplace(precision=1e4))):
        picks = strategy.select(query, 58)[0].tolist()
        assert min(picks[:29]) >= 30 and len(set(picks)) == 58


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("kind", [Bald, PowerBald, PowerEntropy, PowerMargins])
def test_hard_situations(situation: str, kind: type[Scored]) -> None:
    assert picks_in(kind(), situation)[1] == 0


@pytest.mark.parametrize("kind", [Bald, PowerBald, PowerEntropy, PowerMargins])
def test_replicates_and_seeds(kind: type[Scored]) -> None:
    assert_replicates_independent(kind)
    one, two = (kind().select(make_query(seeds=(s,), rows=[list(range(12))]), 10)[0].tolist() for s in (1, 2))
    assert one != two and kind.stochastic
