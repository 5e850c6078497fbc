"""What a strategy keeps from round to round: when it goes on, and when it begins anew."""

from __future__ import annotations

import torch
from strategies.factory import make_query
from torch import Tensor

from alfm.strategies.query import Query


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
