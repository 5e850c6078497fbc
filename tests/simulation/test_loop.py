from __future__ import annotations

import numpy as np
import pytest
import torch

from alfm.config.parts import from_config
from alfm.errors import UserError
from alfm.features.features import Features
from alfm.heads.logistic import Logistic
from alfm.simulation.loop import learners_of, play, run, schedule
from alfm.simulation.task import Task
from alfm.strategies.ask import ask
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query
from alfm.strategies.random import Random

STRATEGIES = [
    "random", "uncertainty", "entropy", "margins", "coreset", "badge", "typiclust", "probcover", "dropquery"
]  # fmt: skip


def picks_and_scores(task, strategy, seeds, rounds=20, step=10, done=None, init="random", classifier=None):
    made = list(
        run(
            task,
            classifier or Logistic(),
            from_config("init_strategy", init),
            from_config("query_strategy", strategy) if isinstance(strategy, str) else strategy,
            schedule(rounds, step, step),
            seeds,
            done,
        )
    )
    return np.concatenate([one.picks for one in made], 1), [one.metrics for one in made], made


@pytest.mark.parametrize("name", STRATEGIES)
def test_seeds_together_select_what_each_selects_alone(digits_task, name):
    """Whole 20-round runs, R = 3 against R = 1, bit for bit on CPU."""
    together, metrics, _ = picks_and_scores(digits_task, name, [1, 100, 10000])
    alone, own, _ = picks_and_scores(digits_task, name, [100])
    assert np.array_equal(alone[0], together[1])
    assert [m[0] for m in own] == [m[1] for m in metrics]


RESUMED = [
    "margins", "coreset", "badge", "probcover", "typiclust", "dropquery", "maxherding", "uherding", "bait",
    "cluster_margin", "batchbald", "vessal",
]  # fmt: skip


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_picks_what_the_uninterrupted_one_picks(digits_task, name):
    whole, metrics, _ = picks_and_scores(digits_task, name, [1, 10], rounds=8)
    rest, later, made = picks_and_scores(digits_task, name, [1, 10], rounds=8, done=whole[:, :40])
    assert [one.round for one in made] == [5, 6, 7, 8]
    assert np.array_equal(rest, whole[:, 40:])
    assert later == metrics[4:]


def test_a_finished_run_replayed_yields_nothing(digits_task):
    whole, _, _ = picks_and_scores(digits_task, "random", [1], rounds=3)
    assert list(run(digits_task, Logistic(), Random(), Random(), schedule(3, 10, 10), [1], whole)) == []


def test_a_run_that_had_emptied_the_pool_is_not_asked_again(digits_arrays):
    """Stopped after its last round was stored and before it was marked as finished."""
    x, y, test_x, test_y = digits_arrays
    task = Task(Features(x[:25]), torch.from_numpy(y[:25]), Features(test_x), torch.from_numpy(test_y), 10)
    whole, _, _ = picks_and_scores(task, "margins", [1], rounds=9, step=10)
    learner = learners_of(task, Logistic(), Random(), from_config("query_strategy", "margins"), [1])
    assert list(play(learner, task, schedule(9, 10, 10), whole)) == []
    assert learner.ended == ["the pool is exhausted after round 3 of 9"]


def test_a_rule_ends_replicates_one_by_one_and_the_others_do_not_notice(digits_task):
    seeds, seen = [1, 10, 100], []

    def rule(learner):
        seen.append(learner.round)
        return {1: "enough", 0: "too late"} if learner.round == 4 else {2: "enough"} if learner.round == 6 else {}

    def played(done=None):
        strategies = Random(), from_config("query_strategy", "coreset")
        learner = learners_of(digits_task, Logistic(), *strategies, seeds)
        rounds = list(play(learner, digits_task, schedule(7, 10, 10), done, rule))
        assert learner.ended == ["too late", "enough", "enough"]
        return rounds

    def rule_free(seed):
        return picks_and_scores(digits_task, "coreset", [seed], rounds=7)

    made = played()
    assert seen == [2, 3, 4, 5, 6]
    assert [one.replicates for one in made] == [[0, 1, 2]] * 3 + [[2]] * 2
    assert [one.reasons for one in made[1:3]] == [[None] * 3, ["too late", "enough", None]]
    assert [one.ended for one in made] == [None] * 4 + ["enough"]
    assert [one.num_labeled for one in made] == [10, 20, 30, 40, 50]
    for r, seed in enumerate(seeds):
        picks, metrics, _ = rule_free(seed)
        own = [(one, one.replicates.index(r)) for one in made if r in one.replicates]
        assert np.array_equal(np.concatenate([one.picks[i] for one, i in own]), picks[0, : 10 * len(own)])
        assert [one.metrics[i] for one, i in own] == [m[0] for m in metrics[: len(own)]]
        assert all(len(one.metrics) == len(one.num_filled) == len(one.replicates) for one, _ in own)
    rest = played(np.concatenate([one.picks for one in made[:2]], 1))
    assert [one.round for one in rest] == [3, 4, 5]
    assert all(np.array_equal(one.picks, other.picks) for one, other in zip(rest, made[2:], strict=True))


def test_a_round_says_which_replicates_it_is_about_and_why_they_end(digits_task):
    _, _, made = picks_and_scores(digits_task, "random", [1, 10], rounds=2)
    assert [one.replicates for one in made] == [[0, 1]] * 2
    assert [one.reasons for one in made] == [[None, None], ["all rounds done"] * 2]
    assert [one.ended for one in made] == [None, "all rounds done"]


def test_a_round_says_how_many_classes_each_replicate_has_met(digits_task):
    picks, _, made = picks_and_scores(digits_task, "random", [1, 10], rounds=3)
    labels = digits_task.labels.numpy()
    for one in made:
        assert one.num_classes == [len(set(labels[picks[r, : one.num_labeled]])) for r in (0, 1)]
        assert one.num_abstained == one.num_validation == [0, 0]


def test_schedules():
    assert schedule(4, 10, 5) == [10, 5, 5, 5]
    assert schedule(5, 10, 10, doubling=True) == [10, 10, 20, 40, 80]  # totals 10, 20, 40, 80, 160
    assert schedule(1, 3, 9) == [3]


def test_the_run_ends_with_the_pool_and_says_so(digits_arrays):
    x, y, test_x, test_y = digits_arrays
    task = Task(Features(x[:55]), torch.from_numpy(y[:55]), Features(test_x), torch.from_numpy(test_y), 10)
    picks, _, made = picks_and_scores(task, "margins", [1, 2], rounds=9, step=10)
    assert [one.num_labeled for one in made] == [10, 20, 30, 40, 50, 55]
    assert made[-1].ended == "the pool is exhausted after round 6 of 9" and made[-2].ended is None
    assert all(sorted(row) == list(range(55)) for row in picks)


def test_an_initial_budget_larger_than_the_pool_is_an_error(digits_task):
    with pytest.raises(UserError, match="initial budget asks for 5000"):
        next(run(digits_task, Logistic(), Random(), Random(), [5000], [1]))


def test_a_strategy_without_labels_is_needed_for_a_cold_start(digits_task):
    with pytest.raises(UserError, match="cannot be a cold start"):
        next(run(digits_task, Logistic(), from_config("query_strategy", "margins"), Random(), [10], [1]))


class Fixed(Strategy):
    needs_head = False

    def __init__(self, picks):
        self.picks = torch.tensor(picks)

    def select(self, query, budget):
        return self.picks


def query_of(pool: Features, seeds=(1,)) -> Query:
    R = len(seeds)
    available = torch.ones(R, pool.N, dtype=torch.bool)
    available[:, 5:6] = False
    empty = torch.empty(R, 0, dtype=torch.int64)
    return Query(pool, empty, empty, available, 2, seeds, 1)


def test_short_batches_are_completed_and_counted_once():
    query = query_of(Features(torch.rand(9, 2)), (1, 2))
    picks, filled = ask(Fixed([[3, -1, -1, 0], [1, 2, 6, 7]]), query, 4)
    assert filled == [2, 0]
    assert picks[1].tolist() == [1, 2, 6, 7] and picks[0, :2].tolist() == [3, 0]
    assert len(set(picks[0].tolist())) == 4 and 5 not in picks[0].tolist()
    again, _ = ask(Fixed([[3, -1, -1, 0], [1, 2, 6, 7]]), query, 4)
    assert torch.equal(picks, again)


@pytest.mark.parametrize("wrong", [[[3, 3]], [[5, 1]], [[1, 2, 3]]])
def test_a_strategy_that_repeats_or_takes_what_is_labelled_is_stopped(wrong):
    with pytest.raises(RuntimeError):
        ask(Fixed(wrong), query_of(Features(torch.rand(9, 2))), 2)


def test_a_budget_beyond_what_is_left_takes_what_is_left():
    picks, filled = ask(Random(), query_of(Features(torch.rand(4, 300))), 100)  # and B > D is no error
    assert sorted(picks[0].tolist()) == [0, 1, 2, 3] and filled == [0]
