"""Filtered: what members see and keep, who chooses from what is left, and that a batch is always whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from reference.filtered import filtered
from reference.uherding import uherding
from reference.uncertainty import ranked, uncertainty
from strategies.factory import SITUATIONS, assert_replicates_independent, make_query, picks_in, seen
from torch import Tensor

from alfm import devices
from alfm.heads.dropout import Dropout
from alfm.heads.logistic import Logistic
from alfm.strategies.ask import ask
from alfm.strategies.badge import Badge
from alfm.strategies.bald import Bald
from alfm.strategies.base import Strategy
from alfm.strategies.entropy import Entropy
from alfm.strategies.filtered import Filtered
from alfm.strategies.margins import Margins
from alfm.strategies.maxherding import MaxHerding
from alfm.strategies.power import PowerMargins
from alfm.strategies.query import Query
from alfm.strategies.random import Random
from alfm.strategies.typiclust import TypiClust
from alfm.strategies.uherding import UHerding


@dataclass(eq=False)
class Spy(Strategy):
    """Takes the first rows, and remembers what it was asked."""

    needs = ("features",)
    needs_head = False
    asked: list[tuple[Query, int]] = field(default_factory=list)

    def select(self, query: Query, budget: int) -> Tensor:
        self.asked.append((query, budget))
        return query.available[0].nonzero()[:budget, 0][None]


TWO = {"margins": Margins(), "entropy": Entropy()}


@pytest.mark.parametrize("rounds", [0, 1, 5])
@pytest.mark.parametrize("budget", [3, 20])
@pytest.mark.parametrize("most", [2500, 30])
def test_what_is_left(rounds: int, budget: int, most: int) -> None:
    query, spy = make_query(), Spy()
    strategy = Filtered(spy, TWO, rounds=rounds, part=0.6, share=0.4, most=most)
    view = seen(query)
    scores = [uncertainty(view.p, name) for name in TWO]
    left = filtered(scores, view.free, budget, query.rng(0, "filter"), rounds, 0.6, 0.4, most)
    picks = strategy.select(query, budget)[0].tolist()
    (asked, count) = spy.asked[0]
    assert count == budget and picks == left[:budget]
    assert asked.pool.N == len(left) + 12 and int(asked.available.sum()) == len(left)
    # the labelled items are in the pool that is seen, with their labels, and cannot be had
    assert isinstance(asked.pool.features, Tensor) and isinstance(query.pool.features, Tensor)
    assert torch.equal(asked.pool.features[asked.rows[0]], query.pool.features[query.rows[0]])
    assert torch.equal(asked.targets, query.targets) and not bool(asked.available[0, asked.rows[0]].any())


def test_the_strategy_chooses_where_what_is_left_is_the_pool() -> None:
    query = make_query()
    view = seen(query)
    left = filtered([uncertainty(view.p, "margins")], view.free, 6, query.rng(0, "filter"))
    items = np.sort(np.concatenate([left, view.labelled]))
    place = {int(row): i for i, row in enumerate(items)}
    features = query.pool.features
    assert isinstance(features, Tensor)
    labelled = np.array([place[int(row)] for row in view.labelled])
    free = np.isin(items, left)
    expected = uherding(features.numpy()[items], view.logits[items], 1.0, labelled, free, 6)
    got = Filtered(UHerding(held_out=0.0), {"margins": Margins()}).select(query, 6)[0]
    inner = Filtered(Margins(), {"margins": Margins()}).select(query, 6)[0].tolist()
    assert inner == ranked(np.where(np.isin(np.arange(120), left), uncertainty(view.p, "margins"), -1), view.free, 6)
    assert set(got.tolist()) <= set(left) and len(expected) == len(got)


def test_parts_and_draws_are_each_members_own() -> None:
    one, two = Spy(), Spy()
    Filtered(Random(), {"one": one, "two": two}, rounds=2).select(make_query(), 4)
    seen_by = [[asked.pool.features.tolist() for asked, _ in spy.asked] for spy in (one, two)]  # type: ignore[union-attr]
    assert seen_by[0][0] != seen_by[1][0] and seen_by[0][0] != seen_by[0][1]
    assert len({asked.seeds[0] for spy in (one, two) for asked, _ in spy.asked}) == 4


def test_without_a_head_members_that_need_one_sit_out() -> None:
    query = make_query(round=1)
    query.head = None
    spy = Spy()
    cold = Filtered(MaxHerding(), {"margins": Margins(), "spy": spy}, rounds=1)
    assert not cold.needs_head and len(set(cold.select(query, 7)[0].tolist())) == 7 and len(spy.asked) == 1
    assert Filtered(Margins()).needs_head


def test_draws_of_another_model_cannot_be_cut_to_a_part() -> None:
    assert "head" in (Filtered(Bald()).needs or ()) and "head" not in (Filtered().needs or ("head",))


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    assert picks_in(Filtered(), situation)[1] == 0


def test_replicates_and_seeds() -> None:
    assert_replicates_independent(Filtered)
    one, two = (Filtered().select(make_query(seeds=(s,), rows=[list(range(12))]), 10)[0].tolist() for s in (1, 2))
    assert one != two


def of_a_gpu(there: devices.Device) -> devices.Device:
    return replace(there, joins_replicates=True, jobs_run_aside=False, looks_are_free=False, keeps_pair_lists=False)


JOINED: dict[str, Callable[[], Strategy]] = {
    "by score": lambda: Margins(),
    "typical": lambda: Entropy(typical_features=True),
    "badge": Badge,
    "typiclust": TypiClust,
    "uherding": UHerding,
}


@pytest.mark.parametrize("case", JOINED)
@pytest.mark.parametrize("rounds", [1, 3])
def test_all_replicates_at_once(case: str, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a device joins them: each picks from its own part, as when it is asked alone, however many are left."""
    real = devices._known
    strategy = Filtered(JOINED[case](), {case: JOINED[case](), "margins": Margins()}, rounds=rounds)
    rows = [np.random.default_rng(seed).permutation(120)[: 30 - 5 * seed].tolist() for seed in (1, 2, 3)]
    alone = strategy.select(make_query(seeds=(1, 2, 3), rows=rows), 8)
    times: list[int] = []
    select = type(strategy.strategy).select

    def counted(self: Strategy, query: Query, budget: int) -> Tensor:
        times.append(query.R)
        return select(self, query, budget)

    monkeypatch.setattr(devices, "_known", lambda device: of_a_gpu(real(device)))
    monkeypatch.setattr(type(strategy.strategy), "select", counted)
    assert torch.equal(strategy.select(make_query(seeds=(1, 2, 3), rows=rows), 8), alone)
    assert set(times) == {3} and len(times) == 1 + rounds * (1 if case != "by score" else 2)


def test_a_strategy_that_sees_no_parts_is_asked_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    real, spy = devices._known, Spy()
    monkeypatch.setattr(devices, "_known", lambda device: of_a_gpu(real(device)))
    picks = Filtered(spy, {"margins": Margins()}, rounds=1).select(make_query(seeds=(1, 2)), 5)
    assert [asked.R for asked, _ in spy.asked] == [1, 1] and all(asked.members is None for asked, _ in spy.asked)
    assert bool((picks >= 0).all())


def test_heads_in_a_part_see_features_as_the_whole_pool_does() -> None:
    """So what replicates are asked beside one another decides nothing."""
    strategy = Spy()
    query = make_query(seeds=(1,), rows=[list(range(20))])
    Filtered(strategy, {"margins": Margins()}, rounds=1).select(query, 5)
    part, whole = strategy.asked[0][0].pool, query.pool
    assert part.N < whole.N and part.moments[0].ne(whole.moments[0]).any()
    given = query.targets, query.num_classes, [1]
    for head in (Logistic(), Dropout(p=0, max_epochs=3)):
        own = head.fit(part, strategy.asked[0][0].rows, *given)
        torch.testing.assert_close(own.weight, head.fit(whole, query.rows, *given).weight)


def test_who_picks_otherwise_says_for_itself_whether_it_joins_parts() -> None:
    class Density(Margins):
        def score(self, query: Query) -> Tensor:
            return super().score(query) * query.pool.N

    class Joining(Density):
        def score(self, query: Query) -> Tensor:
            return super().score(query) / query.pool.N

        def joins_parts(self, items: int) -> bool:
            return True

    class Noise:
        def score(self, query: Query) -> Tensor:
            return torch.rand(query.R, query.pool.N)

    class Mixed(Noise, Margins):
        pass

    class Renamed(Badge):
        name = "mine"

    asked = [Margins(), Density(), Joining(), Mixed(), Renamed(), PowerMargins(), Random()]
    assert [one.joins_parts(10) for one in asked] == [True, False, True, False, True, False, False]


def test_batches_of_several_sizes() -> None:
    query = make_query(seeds=(1, 2))
    query.wanted = [7, 3]
    picks, filled = ask(Margins(), query, 7)
    whole = Margins().select(make_query(seeds=(1, 2)), 7)
    assert torch.equal(picks[0], whole[0]) and picks[1].tolist() == [*whole[1, :3].tolist(), -1, -1, -1, -1]
    assert filled == [0, 0]
