"""The active-learning loop: ask the strategy, look the labels up, fit the heads, measure, repeat.

It knows no files and no strategy by name. A round's outcome is yielded as soon as it is known, so that the caller
can store it, show it, or stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from alfm import devices
from alfm.errors import UserError
from alfm.heads.base import Classifier
from alfm.learner import Learner
from alfm.simulation.task import Task
from alfm.simulation.validation import Validation
from alfm.strategies.base import Strategy

Stop = Callable[[Learner], Mapping[int, str]]
"""Replicates that shall go on no more, and why. Asked after every fit of a run, those of replayed rounds too."""


@dataclass
class Round:
    """One round of R replicates. picks (R, B): what was labelled to reach it; metrics: one dict per replicate.

    Seconds are wall time of all replicates together. ended: why the run stops here, or None. replicates: which of the
    run's replicates these are; reasons: why each of them ends here, or None. num_labeled: labels paid for, answered or
    not; abstained, classes, validation: see `rounds_file.LATER`.
    """

    round: int
    num_labeled: int
    picks: np.ndarray
    num_filled: list[int]
    metrics: list[dict[str, float]]
    fit_seconds: float
    query_seconds: float
    eval_seconds: float
    peak_memory_bytes: int
    ended: str | None = None
    replicates: list[int] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)
    num_abstained: list[int] = field(default_factory=list)
    num_classes: list[int] = field(default_factory=list)
    num_validation: list[int] = field(default_factory=list)


def schedule(rounds: int, init: int, step: int, doubling: bool = False) -> list[int]:
    """Items to label in each round: the initial set, then `step` each, doubling from query to query if asked."""
    return [init] + [step * 2 ** min(i, 62) if doubling else step for i in range(rounds - 1)]  # 2^62: any pool's end


def run(
    task: Task,
    classifier: Classifier,
    init_strategy: Strategy,
    query_strategy: Strategy,
    budgets: Sequence[int],
    seeds: Sequence[int],
    done: np.ndarray | None = None,
    warm_start: bool = True,
) -> Iterator[Round]:
    """Run R = len(seeds) replicates side by side; yields a `Round` after each of len(budgets) rounds. See `play`."""
    yield from play(
        learners_of(task, classifier, init_strategy, query_strategy, seeds, warm_start), task, budgets, done
    )


def learners_of(
    task: Task,
    classifier: Classifier,
    init_strategy: Strategy,
    query_strategy: Strategy,
    seeds: Sequence[int],
    warm_start: bool = True,
) -> Learner:
    """Learners of a task, who know how many classes it has; only `oracle` strategies see more of it."""
    return Learner(
        task.pool, seeds=seeds, query_strategy=query_strategy, init_strategy=init_strategy, classifier=classifier,
        num_classes=task.num_classes, warm_start=warm_start, oracle=task,
    )  # fmt: skip


def play(
    learner: Learner,
    task: Task,
    budgets: Sequence[int],
    done: np.ndarray | None = None,
    stop: Stop | None = None,
    validation: Validation | None = None,
) -> Iterator[Round]:
    """Rounds of learners who are told a task's labels, until each has ended.

    budgets: items to label per round and replicate, the initial set first. done: int64 (R, n), picks of rounds
    already made; these are replayed (heads are fitted again, so that warm starts are as they were, but nothing is
    asked or measured) and not yielded. The last round takes what is left of the pool and says so. validation: what is
    paid for besides the budgets and not trained on; it stands first among the picks, and takes nothing that the cold
    start lists.

    Raises UserError when the initial budget exceeds the pool.
    """
    if budgets[0] > task.pool.N:
        raise UserError(
            f"The initial budget asks for {budgets[0]} items but the pool has {task.pool.N}: lower budget.init, or the "
            "first of budget.schedule (they are per class unless budget.unit=labels)."
        )
    told, device = task.answers(learner.seeds), task.pool.device
    paid, unanswered = 0, torch.zeros(learner.R, dtype=torch.int64)
    replayed = np.empty((learner.R, 0), np.int64) if done is None else done
    held = torch.empty(learner.R, 0, dtype=torch.int64)
    if validation is not None:
        paid = validation.size
        if replayed.shape[1]:
            held, replayed = torch.from_numpy(replayed[:, :paid]), replayed[:, paid:]
        else:
            given = learner.ask(budgets[0]) if learner.init_strategy.lists_rows else None
            held = validation.rows(learner.seeds, task.pool.N, given)
        learner.hold_out(held, told.gather(1, held))
        unanswered = (told.gather(1, held) < 0).sum(1)
    for number, budget in enumerate(budgets, 1):
        replicates = learner.going
        clock = devices.Clock(device)
        replay, replayed = torch.from_numpy(replayed[:, :budget]), replayed[:, budget:]
        picks = replay if replay.shape[1] else learner.ask(budget)
        query_seconds = clock.lap()
        answers = told.gather(1, picks.clamp_min(0))
        learner.tell(picks, answers)
        paid, unanswered = paid + picks.shape[1], unanswered + ((picks >= 0) & (answers < 0)).sum(1)
        learner.fit()
        fit_seconds = clock.lap()
        ends = {} if stop is None else stop(learner)
        for r in replicates:
            if why := ends.get(r) or _end(learner, r, number, len(budgets)):
                learner.end(r, why)
        reasons = [learner.ended[r] for r in replicates]
        if not replay.shape[1]:
            metrics = _measured(learner, task, replicates)
            yield Round(
                number, paid, (torch.cat([held, picks], 1) if number == 1 else picks)[replicates].numpy(),
                [learner.filled[r] for r in replicates], metrics, fit_seconds, query_seconds, clock.lap(),
                devices.of(device).peak_bytes(),
                "; ".join(dict.fromkeys(filter(None, reasons))) if all(reasons) else None, replicates, reasons,
                unanswered[replicates].tolist(), [learner.classes(r) for r in replicates],
                [held.shape[1]] * len(replicates),
            )  # fmt: skip
        if all(reasons):
            return


def _measured(learner: Learner, task: Task, replicates: Sequence[int]) -> list[dict[str, float]]:
    """Test measures of these replicates; one that nobody has answered yet says every class of everything alike."""
    found = dict(zip(learner.fitted, task.measure(learner.head) if learner.head is not None else [], strict=True))
    return [found[r] if r in found else task.unlearnt() for r in replicates]


def _end(learner: Learner, r: int, number: int, rounds: int) -> str | None:
    """Why a run ends by itself."""
    if number == rounds:
        return "all rounds done"
    return None if learner.left[r] else f"the pool is exhausted after round {number} of {rounds}"
