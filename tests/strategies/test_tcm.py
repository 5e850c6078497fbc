"""TCM: which of its two methods answers in which round, and that it answers as that method does."""

from __future__ import annotations

import pytest
from reference.tcm import tcm
from reference.typiclust import typiclust
from reference.uncertainty import ranked, uncertainty
from strategies.factory import SITUATIONS, assert_replicates_independent, make_query, picks_in, seen

from alfm.strategies.ask import ask
from alfm.strategies.tcm import Tcm
from alfm.strategies.typiclust import cluster_pool


@pytest.mark.parametrize("rounds", [0, 1, 3])
@pytest.mark.parametrize("round", [2, 3, 4, 5, 6])
def test_switch_and_sequence(round: int, rounds: int) -> None:
    """Round 1 labels the initial set; the paper's "first rounds (3)" are the three queries after it."""
    query = make_query(round=round)
    view = seen(query)
    if tcm(round, rounds) == "typiclust":
        found = cluster_pool(query, [12 + 10])[0].numpy()
        expected = typiclust(query.pool.features.numpy(), found, view.labelled, view.free, 10)
    else:
        expected = ranked(uncertainty(view.p, "margins"), view.free, 10)
    assert Tcm(rounds).select(query, 10)[0].tolist() == expected


def test_the_default_switches_after_three_queries() -> None:
    assert [tcm(round) for round in (2, 3, 4, 5, 6)] == ["typiclust"] * 3 + ["margins"] * 2
    assert Tcm().rounds == 3


def test_without_a_head_it_is_typiclust_in_any_round() -> None:
    query = make_query(round=9)
    query.head = None
    assert ask(Tcm(), query, 8)[1] == [0]


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("rounds", [0, 3])
def test_hard_situations(situation: str, rounds: int) -> None:
    assert picks_in(Tcm(rounds), situation)[1] == 0


def test_replicates() -> None:
    assert_replicates_independent(Tcm)
    assert_replicates_independent(lambda: Tcm(0))
