"""Graph cut, plain and about a query set: whole sequences, the trade between its terms, hard situations."""

from __future__ import annotations

import numpy as np
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
from torch import Tensor

from alfm.geometry.submodular import Cut
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


@pytest.mark.parametrize("trade", [5.0, 50.0])
def test_bounds_kept_between_rounds_change_no_pick(trade: float, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    gains = Cut.gains

    def counting(cut: Cut, items: Tensor) -> Tensor:
        looked[-1] += len(items)
        return gains(cut, items)

    monkeypatch.setattr(Cut, "gains", counting)
    x = np.random.default_rng(0).normal(size=(3000, 4)) + 0.5
    rows, carry = [1, 2, 3], {}
    for round in range(2, 6):
        picks = []
        for kept in (carry, {}):
            query = make_query(x=x, y=np.arange(3000) % 3, C=3, rows=[rows], round=round)
            query.carry = kept
            looked.append(0)
            picks.append(GraphCut(trade=trade).select(query, 6)[0].tolist())
        assert picks[0] == picks[1]
        rows = rows + (picks[0] if round != 3 else [4, 5, *picks[0][2:]])  # once two others were labelled instead
    assert looked[2] < looked[3] and looked[6] < looked[7] and looked[4] == looked[5]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    for options in ({}, {"trade": 10.0}, {"query_rows": [0, 3]}):
        assert picks_in(GraphCut(**options), situation)[1] == 0


def test_replicates_and_order() -> None:
    assert_replicates_independent(GraphCut)
    assert_equivariant(GraphCut())
