"""BatchBALD: whole sequences against every configuration listed, sampling beyond that, the candidates considered."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.bald import bald
from reference.batchbald import batchbald, joint_information
from reference.uncertainty import ranked
from strategies.factory import SITUATIONS, assert_replicates_independent, make_query, picks_in, seen

from alfm.errors import UserError
from alfm.posteriors import DropoutPosterior, Ensemble, Laplace
from alfm.strategies.batchbald import BatchBald
from alfm.strategies.query import Query

JOINT = [DropoutPosterior(passes=10, per_item=False), Laplace(passes=10), Ensemble(passes=5)]


def draws_of(query: Query, posterior) -> np.ndarray:
    """(M, N, C)."""
    logits = query.draws(posterior).logits(slice(0, query.pool.N), query.pool.features, 0)
    return torch.softmax(logits, 2).numpy()


@pytest.mark.parametrize("posterior", JOINT)
@pytest.mark.parametrize("oversample", [1000, 5])
def test_sequence(posterior, oversample: int) -> None:
    query = make_query(N=30, C=3, n=8, block_rows=20)
    p, view = draws_of(query, posterior), seen(query)
    candidates = ranked(bald(p), view.free, 4 * oversample)
    expected = batchbald(p, candidates, 4)
    assert BatchBald(posterior, oversample).select(query, 4)[0].tolist() == expected


def test_the_batch_knows_more_than_the_best_single_items() -> None:
    """Near copies: each is worth picking, both are not."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(12, 4)), 3, 0) + 1e-4 * rng.normal(size=(36, 4))
    query = make_query(x=x, y=np.arange(36) % 3, C=3, n=5)
    posterior = Laplace(passes=16, precision=0.02)  # draws far apart: one label tells much
    p = draws_of(query, posterior)
    picks = BatchBald(posterior).select(query, 4)[0].tolist()
    alone = ranked(bald(p), seen(query).free, 4)
    assert len({i // 3 for i in picks}) == 4 > len({i // 3 for i in alone})
    assert joint_information(p, picks) > joint_information(p, alone)


def test_sampled_configurations_choose_nearly_as_well() -> None:
    """From C^2 > max_samples on entropies are estimated: the information of the batch is close to the greedy's."""
    query = make_query(N=40, C=3, n=8)
    posterior = Laplace(passes=10)
    p = draws_of(query, posterior)
    exact = BatchBald(posterior, max_samples=10**5).select(query, 6)[0].tolist()
    sampled = BatchBald(posterior, max_samples=8).select(query, 6)[0].tolist()
    more = BatchBald(posterior, max_samples=81 * 8).select(query, 6)[0].tolist()
    assert exact[:2] == sampled[:2] and exact[:6] == more[:6]
    assert joint_information(p, sampled) > 0.9 * joint_information(p, exact)


def test_gains_never_exceed_the_score_alone() -> None:
    """Why candidates by BALD score lose little: I(batch + i) - I(batch) <= BALD(i)."""
    p = draws_of(make_query(N=20, C=3, n=8), Laplace(passes=10))
    batch = [0, 5, 9]
    before = joint_information(p, batch)
    for i in range(10, 20):
        assert joint_information(p, [*batch, i]) - before <= bald(p)[i] + 1e-12


def test_masks_per_item_are_refused() -> None:
    with pytest.raises(UserError, match="joint draws"):
        BatchBald(DropoutPosterior())


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    assert picks_in(BatchBald(JOINT[0], max_samples=100), situation)[1] == 0


def test_replicates_and_seeds() -> None:
    assert_replicates_independent(lambda: BatchBald(JOINT[0], max_samples=100), budget=5)
    one, two = (
        BatchBald(max_samples=100).select(make_query(seeds=(s,), rows=[list(range(12))]), 5)[0].tolist() for s in (1, 2)
    )
    assert one != two
