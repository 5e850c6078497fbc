"""Graph cut, plain and about a query set: whole sequences, the trade between its terms, hard situations."""

from __future__ import annotations

import pytest
from reference.facility_location import similarity
from reference.graph_cut import graph_cut
from strategies.factory import (
    SITUATIONS,
    assert_equivariant,
    assert_replicates_independent,
    make_query,
    picks_in,
    seen,
)

from alfm.strategies.graph_cut import GraphCut


@pytest.mark.parametrize("n", [1, 12])
@pytest.mark.parametrize("trade", [0.0, 0.5, 3.0, 50.0])
def test_sequence(n: int, trade: float) -> None:
    """Large trades make gains negative; the batch is full all the same."""
    query = make_query(n=n, block_rows=50)
    view = seen(query)
    expected = graph_cut(query.pool.features.numpy(), view.labelled.tolist(), view.free, 12, trade=trade)
    assert GraphCut(trade=trade).select(query, 12)[0].tolist() == expected


@pytest.mark.parametrize("shown", [[5], [50, 2, 77]])
def test_sequence_about_a_query_set(shown: list[int]) -> None:
    query = make_query(block_rows=50)
    view = seen(query)
    expected = graph_cut(query.pool.features.numpy(), view.labelled.tolist(), view.free, 12, shown)
    assert GraphCut(query_rows=shown).select(query, 12)[0].tolist() == expected


def test_a_larger_trade_spreads_the_batch() -> None:
    query = make_query()
    s = similarity(query.pool.features.numpy())
    near, apart = (GraphCut(trade=trade).select(query, 12)[0].tolist() for trade in (0.0, 20.0))
    assert s[near][:, near].mean() > 1.2 * s[apart][:, apart].mean()


def test_rounds_share_the_pool_but_not_the_labels() -> None:
    """The pass over all pairs is made once per pool; what is labelled since counts."""
    query = make_query(n=3)
    strategy = GraphCut(trade=3.0)
    first = strategy.select(query, 6)[0].tolist()
    later = make_query(rows=[query.labelled(0).tolist() + first])
    later.pool = query.pool
    view = seen(later)
    expected = graph_cut(query.pool.features.numpy(), view.labelled.tolist(), view.free, 6, trade=3.0)
    assert strategy.select(later, 6)[0].tolist() == expected


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    for options in ({}, {"trade": 10.0}, {"query_rows": [0, 3]}):
        assert picks_in(GraphCut(**options), situation)[1] == 0


def test_replicates_and_order() -> None:
    assert_replicates_independent(GraphCut)
    assert_equivariant(GraphCut())
