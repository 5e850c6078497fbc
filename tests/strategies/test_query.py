"""What a strategy keeps from round to round: when it goes on, and when it begins anew."""

from __future__ import annotations

import pytest
import torch
from strategies.factory import make_query
from torch import Tensor

from alfm.strategies.ask import ask
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query, stack_picks


class Sum:
    """What was added."""

    def __init__(self, kind: str = "sum") -> None:
        self.kind = kind
        self.added = torch.zeros(0, dtype=torch.int64)

    def add(self, rows: Tensor) -> None:
        self.added = torch.cat([self.added, rows])


def query(*rows: list[int], carry: dict) -> Query:
    one = make_query(rows=list(rows), seeds=tuple(range(1, len(rows) + 1)))
    one.carry = carry
    return one


def test_a_state_goes_on_while_what_it_holds_comes_first_among_the_labels() -> None:
    carry: dict = {}
    state = query([3, 4], carry=carry).kept("one", 0, Sum)
    assert state.added.tolist() == [3, 4]
    state.add(torch.tensor([7, 5]))  # its picks
    assert query([3, 4, 7, 5, 9], carry=carry).kept("one", 0, Sum) is state
    assert state.added.tolist() == [3, 4, 7, 5, 9]
    for others in ([3, 4, 7, 5], [4, 3, 7, 5, 9, 1], [3, 4, 7, 5, 8, 1]):
        anew = query(others, carry={"one": {0: state}}).kept("one", 0, Sum)
        assert anew is not state and anew.added.tolist() == others
    assert query([3, 4], carry=carry).kept("another", 0, Sum) is not state


def test_a_state_that_does_not_fit_any_more_is_made_anew() -> None:
    carry: dict = {}
    state = query([3, 4], carry=carry).kept("one", 0, Sum)
    later = query([3, 4, 5], carry=carry)
    anew = later.kept("one", 0, lambda: Sum("other"), lambda old: old.kind == "other")
    assert anew is not state and later.kept("one", 0, Sum, lambda old: old.kind == "other") is anew


def test_new_states_are_made_together_and_none_may_be_had() -> None:
    carry: dict = {}
    asked: list[list[int]] = []

    def make(missing: list[int]) -> list[Sum | None]:
        asked.append(missing)
        return [None if r == 1 else Sum() for r in missing]

    first = query([3], [4], [5, 6], carry=carry).kept_of("all", range(3), make)
    assert [one and one.added.tolist() for one in first] == [[3], None, [5, 6]]
    second = query([3, 1], [4, 2], [6, 5], carry=carry).kept_of("all", range(3), make)
    assert second[0] is first[0] and second[1] is None and second[2] is not first[2]
    assert asked == [[0, 1, 2], [1, 2]] and second[0].added.tolist() == [3, 1]
    query([3, 1], [4, 2], [6, 5], carry=carry).kept_of("all", [2], make)
    assert list(carry["all"]) == [2]  # of the others nothing is kept


class Given(Strategy):
    """Picks what it is given."""

    needs_head = False

    def __init__(self, picks: Tensor) -> None:
        self.picks = picks

    def select(self, query: Query, budget: int) -> Tensor:
        return self.picks


def test_picks_may_be_whole_numbers_of_any_size() -> None:
    picks, filled = ask(Given(torch.tensor([[3, -1, 7]], dtype=torch.int32)), make_query(rows=[[0]], seeds=(1,)), 3)
    assert picks.dtype == torch.int64 and picks[0].tolist()[:2] == [3, 7] and filled == [1]


@pytest.mark.parametrize(
    "picks, said",
    [
        ([3.7, 4.0], "returned numbers of torch.float32, wanted rows"),
        ([True, False], "returned numbers of torch.bool, wanted rows"),
        ([3, 3], "a repeated or unavailable item"),
        ([0, 3], "a repeated or unavailable item"),  # labelled
        ([3, 10**6], "a repeated or unavailable item"),
    ],
)
def test_what_is_no_pick_is_a_defect_of_the_strategy(picks: list[float], said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        ask(Given(torch.tensor([picks])), make_query(rows=[[0]], seeds=(1,)), 2)


def test_picks_of_replicates_are_one_matrix() -> None:
    some = [torch.tensor([1, 2], dtype=torch.int32), torch.tensor([3], dtype=torch.int32)]
    assert stack_picks(some, 2, torch.device("cpu")).tolist() == [[1, 2], [3, -1]]
    assert stack_picks(some[:1], 2, torch.device("cpu")).dtype == torch.int64
