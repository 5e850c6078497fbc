"""EPIG: sequences on the same draws and targets, the lazy search against the full one, who the targets are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.bald import bald
from reference.epig import epig
from reference.uncertainty import ranked
from strategies.factory import SITUATIONS, assert_replicates_independent, clusters, make_query, picks_in, seen

from alfm.errors import UserError
from alfm.heads.logistic import Logistic
from alfm.posteriors import DropoutPosterior, Ensemble, Laplace
from alfm.strategies import epig as module
from alfm.strategies.epig import Epig
from alfm.strategies.parts.candidates import where
from alfm.strategies.query import Query

JOINT = [DropoutPosterior(passes=10, per_item=False), Laplace(passes=10), Ensemble(passes=5)]


def draws_of(query: Query, posterior) -> np.ndarray:
    """(M, N, C)."""
    logits = query.draws(posterior).logits(slice(0, query.pool.N), query.pool.features, 0)
    return torch.softmax(logits, 2).numpy()


def targets_of(strategy: Epig, query: Query) -> list[int]:
    return strategy._targets(query, where(query.available))[0].tolist()


@pytest.mark.parametrize("posterior", JOINT)
@pytest.mark.parametrize("targets, chunk", [(None, 256), (None, 7), ([3, 40, 3, 11], 4)])
def test_sequence(posterior, targets: list[int] | None, chunk: int) -> None:
    query = make_query(N=60, C=3, block_rows=20)
    strategy = Epig(posterior, num_targets=9, targets=targets, chunk=chunk)
    p, chosen = draws_of(query, posterior), targets_of(strategy, query)
    score = epig(p, p[:, chosen])
    assert strategy.select(query, 15)[0].tolist() == ranked(score, seen(query).free, 15)


def test_the_lazy_search_equals_the_full_one_and_looks_at_few(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    real = module.epig
    monkeypatch.setattr(module, "epig", lambda z, t: (looked.append(z.shape[2]), real(z, t))[1])
    x, y = clusters(400, 8, 4)
    x[100:] = 0  # on these all draws agree, so the bound passes over them
    query = make_query(x=x, y=y, C=4, rows=[list(range(30))], classifier=Logistic(scaling="none"))
    posterior = Laplace(passes=16)
    p = draws_of(query, posterior)
    strategy = Epig(posterior, num_targets=20, chunk=16)
    picks = strategy.select(query, 5)[0]
    assert sum(looked) < 100
    logits = query.draws(posterior).logits(slice(0, 400), query.pool.features, 0)
    full = real(logits, logits[:, targets_of(strategy, query)])
    assert picks.tolist() == ranked(full.numpy(), seen(query).free, 5)
    # the bound it relies on: information about targets is information about the weights
    assert bool((full.numpy() <= bald(p) + 1e-12).all())


def test_targets_are_unlabelled_distinct_and_the_seeds_own() -> None:
    query = make_query(seeds=(1, 2), rows=[list(range(12))] * 2)
    one, two = (own.tolist() for own in Epig()._targets(query, where(query.available)))
    assert len(set(one)) == len(one) == 100 and min(one) >= 12
    assert one != two
    assert sorted(targets_of(Epig(num_targets=500), query)) == list(range(12, 120))
    assert one != targets_of(Epig(), make_query(rows=[list(range(12))], round=3))


def test_targets_change_the_batch() -> None:
    """Near the first target or near the second: another batch."""
    query = make_query(n=20)
    assert (
        Epig(JOINT[1], targets=[0]).select(query, 8).tolist() != Epig(JOINT[1], targets=[1]).select(query, 8).tolist()
    )


@pytest.mark.parametrize("targets", [[120], [-1], []])
def test_targets_that_do_not_exist_are_refused(targets: list[int]) -> None:
    with pytest.raises(UserError, match=r"pool rows in \[0, 120\)|Epig targets=.*a list of 1 or more"):
        Epig(targets=targets).select(make_query(), 3)


def test_masks_per_item_are_refused() -> None:
    with pytest.raises(UserError, match="joint draws"):
        Epig(DropoutPosterior())


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    assert picks_in(Epig(JOINT[0], num_targets=10), situation)[1] == 0


def test_replicates_and_seeds() -> None:
    assert_replicates_independent(lambda: Epig(num_targets=10))
    one, two = (Epig().select(make_query(seeds=(s,), rows=[list(range(12))]), 10)[0].tolist() for s in (1, 2))
    assert one != two
