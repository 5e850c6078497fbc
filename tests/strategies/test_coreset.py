"""k-center greedy: whole sequences, the radius it lowers, what is kept between rounds, hard situations."""

from __future__ import annotations

import numpy as np
import pytest
from reference.coreset import coreset, radius
from strategies.factory import (
    SITUATIONS,
    assert_equivariant,
    assert_replicates_independent,
    clusters,
    make_query,
    picks_in,
    seen,
)

from alfm.errors import UserError
from alfm.strategies.ask import ask
from alfm.strategies.coreset import Coreset
from alfm.strategies.query import Query

OPTIONS = [("raw", "l2"), ("raw", "cosine"), ("head", "l2"), ("head", "cosine")]


@pytest.mark.parametrize("space, metric", OPTIONS)
def test_sequence_and_radius(space: str, metric: str) -> None:
    query = make_query(block_rows=50)
    view = seen(query)
    x = view.phi if space == "head" else query.pool.features.numpy()
    expected = coreset(x, view.labelled, view.free, 30, metric)
    picks = Coreset(space, metric).select(query, 30)[0].tolist()
    assert picks == expected
    known = view.labelled.tolist()
    at_random = np.random.default_rng(0).choice(np.flatnonzero(view.free), 30, replace=False).tolist()
    assert radius(x, known + picks, metric) < radius(x, known + at_random, metric) < radius(x, known, metric)


def test_without_any_label_it_starts_far_from_the_mean() -> None:
    query = make_query(rows=[[0]])
    query.rows, query.targets, query.head = query.rows[:, :0], query.targets[:, :0], None
    query.available[:] = True
    x = query.pool.features.numpy()
    assert Coreset().select(query, 15)[0].tolist() == coreset(x, np.array([], int), np.ones(120, bool), 15)


def next_round(query: Query, picks: list[int], **options) -> Query:
    later = make_query(rows=[query.labelled(0).tolist() + picks], **options)
    later.pool, later.carry = query.pool, query.carry
    assert later.classifier is not None
    later.head = later.classifier.fit(later.pool, later.rows, later.targets, 4, later.seeds)
    return later


@pytest.mark.parametrize("space", ["raw", "head"])
def test_distances_are_kept_between_rounds(space: str) -> None:
    x, y = clusters(1200, 6, 4)
    query = make_query(x=x, y=y, C=4, n=20)
    strategy = Coreset(space)
    picks = strategy.select(query, 10)[0].tolist()
    state = query.carry["coreset"][0]
    made = state.evaluated
    later = next_round(query, picks, x=x, y=y, C=4)
    space_x = seen(later).phi if space == "head" else x
    expected = coreset(space_x, later.labelled(0).numpy(), later.available[0].numpy(), 5)
    assert strategy.select(later, 5)[0].tolist() == expected
    assert later.carry["coreset"][0] is state
    assert state.evaluated - made < 1200 * 5  # nothing is measured against the old centres again


def test_kept_distances_belong_to_the_labels_and_the_metric() -> None:
    query = make_query()
    own = Coreset().select(query, 8)[0].tolist()
    x, kept = query.pool.features.numpy(), query.carry["coreset"][0]
    others = [i for i in range(20) if seen(query).free[i] and i not in own][:8]
    # its picks became labels but another metric is asked for; and other items than its picks were labelled
    for strategy, picks in ((Coreset(metric="cosine"), own), (Coreset(), others)):
        later = next_round(query, picks)
        later.carry["coreset"] = {0: kept}
        expected = coreset(x, later.labelled(0).numpy(), later.available[0].numpy(), 6, strategy.metric)
        assert strategy.select(later, 6)[0].tolist() == expected


def test_a_head_is_needed_for_its_space_only() -> None:
    query = make_query()
    query.head = None
    assert ask(Coreset(), query, 3)[1] == [0]
    with pytest.raises(UserError, match="cold start"):
        ask(Coreset("head"), query, 3)


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("space, metric", OPTIONS)
def test_hard_situations(situation: str, space: str, metric: str) -> None:
    assert picks_in(Coreset(space, metric), situation)[1] == 0


@pytest.mark.parametrize("space, metric", OPTIONS)
def test_replicates_and_order(space: str, metric: str) -> None:
    assert_replicates_independent(lambda: Coreset(space, metric))
    assert_equivariant(Coreset(space, metric))
