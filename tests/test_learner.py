"""Ask and tell, as a person with a list would: nothing here knows labels but the tests themselves."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from alfm import Features, Learner, Task, UserError
from alfm.config.parts import from_config
from alfm.heads.dropout import Dropout
from alfm.heads.logistic import Logistic
from alfm.strategies.balanced import Balanced
from alfm.strategies.base import Strategy
from alfm.strategies.boss import Boss
from alfm.strategies.margins import Margins
from alfm.strategies.random import Random

CONF = Path(__file__).parents[1] / "conf" / "query_strategy"
QUERY = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem not in ("boss", "replay"))


@pytest.fixture(scope="module")
def digits(digits_arrays) -> tuple[np.ndarray, torch.Tensor]:
    x, y, _, _ = digits_arrays
    return x[:160], torch.from_numpy(y[:160])


@pytest.fixture
def pool(digits) -> Features:
    return Features(digits[0])


@cache
def named(strategy: str) -> Strategy:
    return from_config("query_strategy", strategy)


def learner(pool: Features, seeds=(1,), query: Strategy | str = "margins", **options) -> Learner:
    strategy = named(query) if isinstance(query, str) else query
    parts = {"init_strategy": Random(), "classifier": Logistic()} | options
    return Learner(pool, seeds=list(seeds), query_strategy=strategy, **parts)


def weights(one: Learner, r: int) -> list:
    place = one.fitted.index(r)
    return [one.head.weight[place].tolist(), one.head.bias[place].tolist()]


def test_from_no_labels_at_all_to_a_head_that_knows_the_digits(pool, digits):
    labels, one = digits[1], learner(pool)
    assert one.head is None and one.fitted == [] and one.round == 1
    for number in range(1, 9):
        rows = one.ask(15)
        assert one.round == number and rows.shape == (1, 15) and rows.device.type == "cpu"
        one.tell(rows, labels[rows])
    one.fit()
    assert one.num_classes == 10 and one.counts == [120] and one.left == [40]
    found = one.head.forward(torch.from_numpy(digits[0]), 0).argmax(1)
    assert (found == labels).float().mean() > 0.9


@pytest.mark.parametrize("name", QUERY)
def test_asked_again_it_answers_the_same_and_what_was_told_is_all_that_counts(name, pool, digits):
    """Told in another order, in pieces, and with items that nobody knew: a learner that starts anew answers alike."""
    labels, one = digits[1], learner(pool, (1, 10), name, num_classes=10)
    told = []
    for budget in (12, 8, 6):
        rows = one.ask(budget)
        assert torch.equal(rows, one.ask(budget))
        mixed, answers = rows.flip(1), labels[rows.flip(1)]
        if told:
            answers[0, 2] = answers[1, :3] = -1
        told.append((mixed, answers))
        for part in (slice(0, 5), slice(5, None)):
            one.tell(mixed[:, part], answers[:, part])
    again = learner(pool, (1, 10), name, num_classes=10)
    for rows, answers in told:
        again.tell(rows, answers)
        again.fit()
    assert again.round == 4 and again.counts == [24, 20]
    last = one.ask(7)
    assert torch.equal(last, again.ask(7))
    for r, seed in enumerate((1, 10)):  # replicates of different length do not depend on each other
        alone = learner(pool, (seed,), name, num_classes=10)
        for rows, answers in told:
            alone.tell(rows[r : r + 1], answers[r : r + 1])
            alone.fit()
        assert weights(alone, 0) == weights(one, r)
        assert torch.equal(alone.ask(7)[0], last[r])


@pytest.mark.parametrize("classifier", [Logistic(), Dropout(max_epochs=5)], ids=["logistic", "dropout"])
def test_labels_one_by_one_and_all_at_once_are_the_same_round(classifier, pool, digits):
    labels = digits[1]
    one, other = (learner(pool, query="badge", classifier=classifier) for _ in range(2))
    for budget in (10, 5, 5):
        rows = one.ask(budget)
        assert torch.equal(rows, other.ask(budget)) and one.round == other.round
        one.tell(rows, labels[rows])
        for row in rows[0].tolist():
            other.tell([[row]], [[int(labels[row])]])
    one.fit(), other.fit()
    assert weights(one, 0) == weights(other, 0)


def test_what_nobody_knew_is_neither_asked_again_nor_learnt_from(pool, digits):
    labels, one = digits[1], learner(pool)
    first = one.ask(10)
    one.tell(first, labels[first])
    unknown = one.ask(20)
    one.tell(unknown, torch.full_like(unknown, -1))
    before = weights(one, 0)
    one.fit()
    assert weights(one, 0) == before and one.counts == [10] and one.left == [130] and one.round == 3
    rest = one.ask(1000)
    assert sorted([*first[0].tolist(), *unknown[0].tolist(), *rest[0].tolist()]) == list(range(160))
    one.tell(rest[:, 1:], labels[rest[:, 1:]])
    assert one.ask(5).tolist() == [[rest[0, 0]]]


def test_until_there_is_a_label_the_cold_start_goes_on(pool, digits):
    labels, one = digits[1], learner(pool, (1, 10))
    first = one.ask(8)
    one.tell(first, labels[first].where(torch.tensor([[True], [False]]), -1))
    second = one.ask(8)  # replicate 0 has labels to ask by, replicate 1 has none
    assert one.fitted == [0]
    alone = learner(pool, (10,))
    alone.tell(first[1:], torch.full((1, 8), -1))
    assert torch.equal(alone.ask(8)[0], second[1]) and alone.head is None
    one.tell(second, labels[second])
    one.fit()
    assert one.fitted == [0, 1] and one.counts == [16, 8]
    assert one.head.spaces[0] is one.head.spaces[1]


@pytest.mark.parametrize("classifier", [Logistic(), Dropout(max_epochs=5)], ids=["logistic", "dropout"])
def test_a_class_that_appears_late_gets_a_place(classifier, pool, digits):
    labels, one = digits[1], learner(pool, (1, 10), "badge", classifier=classifier)
    early = (labels < 3).nonzero()[:, 0]
    rows = early[:24].view(2, 12)
    one.tell(rows, labels[rows])
    one.fit()
    assert one.num_classes == one.head.C == 3
    one.tell([[int((labels == 6).nonzero()[0, 0])], [-1]], [[6], [-1]])
    assert one.head.C == 3  # as it was fitted
    assert one.ask(5).shape == (2, 5)
    assert one.num_classes == one.head.C == 7 and one.fitted == [0, 1] and one.counts == [13, 12]
    fresh = learner(pool, (1, 10), "badge", classifier=classifier, num_classes=7, warm_start=False)
    fresh.round = 2
    fresh.tell(
        *(torch.cat([old, new], 1) for old, new in ((rows, one.rows[:, 12:]), (labels[rows], one.targets[:, 12:])))
    )
    fresh.fit()
    assert [weights(one, r) for r in (0, 1)] == [weights(fresh, r) for r in (0, 1)]


@pytest.mark.parametrize("name", ["margins", "coreset", "uherding", "probcover", "typiclust", "cluster_margin"])
def test_who_has_ended_is_asked_nothing_and_the_others_go_on_as_alone(name, pool, digits):
    labels, seeds = digits[1], (1, 10, 100)
    one = learner(pool, seeds, name, num_classes=10)
    alone = [learner(pool, (seed,), name, num_classes=10) for seed in seeds]
    for number in range(4):
        if number == 2:
            one.end(1, "enough")
        rows = one.ask(6)
        one.tell(rows, labels[rows])
        for r in one.going:
            own = alone[r].ask(6)
            assert torch.equal(own[0], rows[r])
            alone[r].tell(own, labels[own])
        assert (rows[1] == -1).all() == (number >= 2)
    one.fit()
    assert one.ended == [None, "enough", None] and one.fitted == [0, 2] and one.counts == [24, 12, 24]
    for r in (0, 2):
        alone[r].fit()
        assert weights(one, r) == weights(alone[r], 0)
    one.end(0, "enough"), one.end(2, "enough")
    assert one.ask(6).shape == (3, 0)


def test_pools_that_end_at_different_times(pool, digits):
    labels, one = digits[1], learner(pool, (1, 10))
    first = one.ask(150)
    one.tell(first.where(torch.tensor([[True], [False]]), -1), labels[first])
    second = one.ask(100)
    assert second.shape == (2, 100) and (second[0] >= 0).sum() == 10 and (second[1] >= 0).all()
    assert one.filled == [0, 0]


class Counting:
    def __init__(self):
        self.fits, self.previous = 0, []

    def fit(self, *given, previous=None):
        self.fits += 1
        self.previous.append(previous)
        return Logistic().fit(*given, previous=previous)


def test_heads_are_fitted_when_they_are_needed_and_begin_at_the_ones_before(pool, digits):
    labels = digits[1]
    for warm_start in (True, False):
        one = learner(pool, classifier=(counting := Counting()), num_classes=10, warm_start=warm_start)
        for _ in range(3):
            rows = one.ask(4)
            for row in rows[0].tolist():
                one.tell([[row]], [[labels[row]]])
        assert counting.fits == 2
        one.fit(), one.fit(), one.ask(4), one.ask(9)
        assert counting.fits == 3
        assert [head is None for head in counting.previous] == ([True, False, False] if warm_start else [True] * 3)


def test_strange_things_told_are_refused_and_change_nothing(pool):
    one = learner(pool, (1, 10))
    one.tell([[5], [7]], [[0], [-1]])
    for rows, words in (
        ([[5], [8]], "Row 5 was told before .replicate 0."),
        ([[6], [7]], "Row 7 was told before .replicate 1."),
        ([[6, 9], [8, 8]], "Row 8 was told before"),
        ([[6], [160]], "rows are 0 to 159"),
    ):
        with pytest.raises(UserError, match=words):
            one.tell(rows, torch.zeros_like(torch.tensor(rows)))
    with pytest.raises(ValueError, match="must be .2, B."):
        one.tell([[6]], [[0]])
    for rows, labels in (([[-2], [0]], [[1], [1]]), ([[0], [1]], [[1], [-3]]), ([[0.5], [1]], [[1], [1]])):
        with pytest.raises(ValueError, match="from 0 on|whole numbers"):
            one.tell(rows, labels)
    one.tell([[], []], [[], []])
    with pytest.raises(UserError, match="one item or more"):
        one.ask(0)
    assert one.counts == [1, 0] and one.left == [159, 159] and int(one.available.sum()) == 318


class Asked(Random):
    def __init__(self, oracle: bool):
        self.oracle, self.saw = oracle, []

    def select(self, query, budget):
        self.saw.append(query.oracle)
        return super().select(query, budget)


def test_only_a_strategy_marked_oracle_sees_hidden_labels(pool, digits):
    labels = digits[1]
    for strategy in (Balanced(), Boss()):
        with pytest.raises(UserError, match=f"{strategy.name} looks at hidden labels"):
            learner(pool, query=strategy)
        with pytest.raises(UserError, match=f"{strategy.name} looks at hidden labels"):
            learner(pool, init_strategy=strategy)
    task = Task(pool, labels, pool, labels, 10)
    for marked in (False, True):
        one = learner(pool, query=(asked := Asked(marked)), oracle=task)
        rows = one.ask(5)
        one.tell(rows, labels[rows])
        one.ask(5)
        assert asked.saw == [task if marked else None]


def test_views_are_trained_on(digits):
    x, labels = digits
    views = np.stack([x + 0.1, x - 0.1], 1)
    one, other = learner(Features(x, views=views)), learner(Features(x))
    for each in (one, other):
        each.tell([list(range(20))], labels[None, :20])
        each.fit()
    assert weights(one, 0) != weights(other, 0)
    assert Margins.needs_head and one.ask(3).shape == (1, 3)


class Remembers(Strategy):
    """Keeps the rows that it has seen labelled; makes that anew as rarely as it can."""

    made = 0

    class Seen:
        def __init__(self):
            self.added = torch.empty(0, dtype=torch.int64)

        def add(self, rows):
            self.added = torch.cat([self.added, rows])

    def select(self, query, budget):
        def make():
            Remembers.made += 1
            return self.Seen()

        for r in range(query.R):
            query.kept("seen", r, make)
        return torch.full((query.R, budget), -1)


def test_another_past_costs_what_depends_on_it_and_no_more(pool, digits):
    """Stood before the same question it answers the same; what strategies keep of rows outlives other labels."""
    labels = digits[1]
    one, other = (learner(pool, (1, 10), query=Remembers(), num_classes=10) for _ in range(2))
    first = one.ask(8)
    one.tell(first, labels[first])
    second = one.ask(5)
    Remembers.made = 0
    other.stand(first, labels[first], round=1, num_classes=10, head=None)
    assert other.counts == [8, 8] and other.left == [152, 152] and other.head is None
    other.stand(first, labels[first], round=2, num_classes=10, head=one.head)
    assert torch.equal(other.ask(5), second) and Remembers.made == 2
    other.stand(first, labels[first].flip(1), round=2, num_classes=10, head=one.head)
    assert torch.equal(other.ask(5), second) and Remembers.made == 2  # other labels of the same rows
    other.stand(first.flip(1), labels[first], round=2, num_classes=10, head=one.head)
    other.ask(5)
    assert Remembers.made == 4
    other.stand(first, labels[first], round=2, num_classes=10, head=one.head, closed=[[], second[1].tolist()])
    third = other.ask(5)
    assert torch.equal(third[0], second[0]) and not set(third[1].tolist()) & set(second[1].tolist())
    assert other.left == [152, 147]
    other.tell(third, labels[third])
    other.fit()
    assert other.round == 3 and other.counts == [13, 13]
