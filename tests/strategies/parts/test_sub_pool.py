"""Pools too large for N^2 work: exact on a part of them, the same part all through a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from strategies.factory import assert_replicates_independent, make_query

from alfm.errors import UserError
from alfm.features.features import Features
from alfm.strategies.ask import ask
from alfm.strategies.balanced import Balanced
from alfm.strategies.base import Strategy
from alfm.strategies.coreset import Coreset
from alfm.strategies.graph_cut import GraphCut
from alfm.strategies.maxherding import MaxHerding
from alfm.strategies.parts.sub_pool import Subsampled
from alfm.strategies.probcover import ProbCover
from alfm.strategies.query import Query
from alfm.strategies.uherding import UHerding
from alfm.streams import stream

STRATEGIES = [
    lambda size: ProbCover(0.8, exact_up_to=100, sample=size, memory_cap=0),  # whose lists fit into no memory
    lambda size: MaxHerding(exact_up_to=100, sample=size),
    lambda size: UHerding(exact_up_to=100, sample=size),
]
each_strategy = pytest.mark.parametrize("make", STRATEGIES, ids=["probcover", "maxherding", "uherding"])
Make = Callable[[int], Strategy]


def exact(strategy: Strategy) -> Strategy:
    return replace(strategy, exact_up_to=10**9)


def following(query: Query, picks: torch.Tensor, carry: dict | None = None) -> Query:
    rows = torch.cat([query.rows, picks], 1)
    available = query.available.clone().scatter_(1, picks, False)
    targets = torch.zeros_like(rows)
    kept = query.carry if carry is None else carry
    return replace(query, rows=rows, targets=targets, available=available, round=query.round + 1, carry=kept)


def test_any_strategy_can_be_asked_about_a_part() -> None:
    query = make_query(N=400, n=6)
    one = Subsampled(Coreset(), sample=60)
    picks = ask(one, query, 3)[0]
    part = query.carry["coreset on a part"][0].items.tolist()
    assert set(picks[0].tolist()) <= set(part) and len(part) <= 66
    assert one.name == "subsampled" and not one.needs_head and one.stochastic and one.measures == ("raw",)
    with pytest.raises(UserError, match="balanced sees hidden labels"):
        Subsampled(Balanced())
    with pytest.raises(UserError, match="graph_cut was given rows of the whole pool"):
        Subsampled(GraphCut(query_rows=[3]))


@each_strategy
def test_picks_are_those_of_the_exact_form_on_the_part(make: Make) -> None:
    query = make_query(N=400, n=6)
    picks = ask(make(150), query, 7)[0]
    drawn = torch.from_numpy(stream(1, 0, "sample").choice(400, 150, replace=False))
    items = torch.cat([drawn, query.rows[0]]).unique()
    part = make_query(x=query.pool.features[items].numpy(), y=items.numpy() % 4, C=4, rows=[[0]])
    place = {int(item): i for i, item in enumerate(items)}
    part.rows = torch.tensor([[place[int(i)] for i in query.rows[0]]])
    part.targets, part.available = query.targets, query.available[:, items]
    part.pool, part.head = Features(query.pool.features[items]), query.head
    assert picks[0].tolist() == items[ask(exact(make(150)), part, 7)[0][0]].tolist()


@each_strategy
def test_a_part_that_is_the_whole_pool_changes_nothing(make: Make) -> None:
    query = make_query(N=300, seeds=(1, 2))
    assert ask(make(300), query, 9)[0].tolist() == ask(exact(make(300)), replace(query, carry={}), 9)[0].tolist()


@each_strategy
def test_the_part_stays_the_same_all_through_a_run_and_after_a_resume(make: Make) -> None:
    first = make_query(N=400, n=6, seeds=(3, 4))
    strategy, query, resumed = make(120), first, first
    for _ in range(3):
        picks = ask(strategy, query, 5)[0]
        assert picks.tolist() == ask(strategy, replace(resumed, carry={}), 5)[0].tolist()
        query, resumed = following(query, picks), following(resumed, picks, {})
    part = set(query.carry[f"{strategy.name} on a part"][0].items.tolist())
    assert set(query.rows[0].tolist()) <= part and len(part) <= 126


@each_strategy
def test_growing_batches_see_the_part_a_resumed_run_sees(make: Make) -> None:
    query = make_query(N=400, n=6, seeds=(3, 4))
    for budget in (2, 4, 8):  # parts of 60, 80 and 160 items
        picks = ask(make(60), query, budget)[0]
        assert picks.tolist() == ask(make(60), replace(query, carry={}), budget)[0].tolist()
        query = following(query, picks)


@each_strategy
def test_other_seeds_other_parts_and_replicates_stay_apart(make: Make) -> None:
    one, other = (make_query(N=400, rows=[[0, 1]], seeds=(seed,)) for seed in (1, 2))
    assert ask(make(120), one, 8)[0].tolist() != ask(make(120), other, 8)[0].tolist()
    assert_replicates_independent(lambda: make(60), budget=5)


@each_strategy
def test_a_part_never_runs_short(make: Make) -> None:
    picks, filled = ask(make(1), make_query(N=400, n=6), 15)  # 20 x 15 items are drawn
    assert filled == [0] and len(set(picks[0].tolist())) == 15
