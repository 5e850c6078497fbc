"""Facility location, plain and about a query set: whole sequences; what the query set is; hard situations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.facility_location import facility_location
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
from alfm.strategies.facility_location import FacilityLocation
from alfm.strategies.graph_cut import GraphCut
from alfm.strategies.log_det import LogDet
from alfm.strategies.parts.query_set import QuerySet
from alfm.strategies.query import Query

BUDGET = 8


def rare(**options) -> Query:
    """Class 3 is rare: 8 of 120 items, two of them labelled."""
    x, y = clusters(120, 6, 3, seed=1)
    x[:8] += np.array([9.0, -9, 0, 0, 0, 0])
    y[:8] = 3
    return make_query(x=x, y=y, C=4, rows=[[0, 1, *range(20, 28)]], **options)


@pytest.mark.parametrize("n", [1, 12])
@pytest.mark.parametrize("pairs", [0, 12 << 20])
def test_sequence(n: int, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alfm.geometry.herding_lists.PAIRS", pairs)  # without lists and with them
    query = make_query(n=n, block_rows=50)
    view = seen(query)
    expected = facility_location(query.pool.features.numpy(), view.labelled.tolist(), view.free, BUDGET)
    assert FacilityLocation().select(query, BUDGET)[0].tolist() == expected


@pytest.mark.parametrize("eta", [1.0, 0.5])
@pytest.mark.parametrize("form", ["flvmi", "flqmi"])
def test_sequence_about_a_query_set(form: str, eta: float) -> None:
    query = rare(block_rows=50)
    view = seen(query)
    for options, shown in (({"query_rows": [50, 2]}, [2, 50]), ({"query_classes": [3]}, [0, 1])):
        expected = facility_location(query.pool.features.numpy(), [], view.free, BUDGET, shown, eta, form)
        assert FacilityLocation(**options, eta=eta, form=form).select(query, BUDGET)[0].tolist() == expected


def test_without_a_label() -> None:
    query = make_query(rows=[[0]])
    query.rows, query.targets, query.head = query.rows[:, :0], query.targets[:, :0], None
    query.available[:] = True
    expected = facility_location(query.pool.features.numpy(), [], np.ones(120, bool), BUDGET)
    assert ask(FacilityLocation(), query, BUDGET)[0][0].tolist() == expected


@pytest.mark.parametrize("kind", [FacilityLocation, GraphCut, LogDet])
def test_it_hunts_for_more_of_a_rare_class(kind: type) -> None:
    picks = kind(query_classes=[3]).select(rare(), 6)[0].tolist()
    plain = kind().select(rare(), 6)[0].tolist()
    others = set(range(2, 8))
    assert len(others & set(picks)) > 1.5 * len(others & set(plain))


def test_query_sets() -> None:
    query = rare()
    assert QuerySet([7, 2, 7], [3]).of_each(query)[0].tolist() == [0, 1, 2, 7]
    ones = [i for i in range(20, 28) if query.targets[0][2 + i - 20] == 1]
    assert QuerySet((), [1]).of_each(query)[0].tolist() == ones
    assert len(QuerySet().of_each(query)[0]) == 0 and not QuerySet() and QuerySet([1])
    with pytest.raises(UserError, match=r"pool rows in \[0, 120\)"):
        QuerySet([120]).of_each(query)
    with pytest.raises(UserError, match=r"classes in \[0, 4\)"):
        QuerySet((), [4]).of_each(query)


@pytest.mark.parametrize("kind", [FacilityLocation, GraphCut, LogDet])
def test_a_class_without_a_label_yet_leaves_the_plain_function(kind: type) -> None:
    """Per replicate: one has labels of the class, the other has none."""
    x, y = clusters(60, 6, 3)
    without = np.flatnonzero(y < 2)[:6].tolist()
    both = make_query(x=x, y=y, C=3, rows=[without, [2, *without[1:]]], seeds=(1, 2))
    assert int(both.targets[1, 0]) == 2
    picks = kind(query_classes=[2]).select(both, 5)
    plain = kind().select(both, 5)
    assert torch.equal(picks[0], plain[0]) and not torch.equal(picks[1], plain[1])


def test_what_is_kept_survives_a_round_about_a_query_set() -> None:
    """Replicate 1 has a query set at once, replicate 0 only in its second round."""
    x, y = clusters(60, 6, 3)
    without = np.flatnonzero(y < 2)[:6].tolist()
    first = make_query(x=x, y=y, C=3, rows=[without, [2, *without[1:]]], seeds=(1, 2))
    strategy = FacilityLocation(query_classes=[2])
    picks = strategy.select(first, 5)
    rows = [first.labelled(r).tolist() + picks[r].tolist() for r in range(2)]
    for change in (0, 1):
        if change:
            rows[0][-1] = next(i for i in range(60) if y[i] == 2 and i not in rows[0])
        later, fresh = (make_query(x=x, y=y, C=3, rows=rows, seeds=(1, 2), round=3) for _ in range(2))
        later.carry = first.carry
        assert torch.equal(strategy.select(later, 5), strategy.select(fresh, 5))


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    for options in ({}, {"query_rows": [0, 3]}, {"query_classes": [1]}):
        assert picks_in(FacilityLocation(**options), situation)[1] == 0


def test_replicates_and_order() -> None:
    assert_replicates_independent(FacilityLocation)
    assert_replicates_independent(lambda: FacilityLocation(query_classes=[1, 2]))
    assert_equivariant(FacilityLocation())
