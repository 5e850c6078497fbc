"""The active-learning loop: fit the heads, measure, ask the strategy, ask the oracle, repeat.

It knows no files and no strategy by name. A round's outcome is yielded as soon as it is known, so that the caller
can store it, show it, or stop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alfm.devices import Clock, peak_memory
from alfm.errors import UserError
from alfm.heads.base import Classifier
from alfm.heads.linear import LinearHead
from alfm.heads.views import on_all_views
from alfm.simulation.task import Task
from alfm.strategies.ask import ask
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query


@dataclass
class Round:
    """One round of R replicates. picks (R, B): what was labelled to reach it; metrics: one dict per replicate.

    Seconds are wall time of all replicates together. ended: why the run stops here, or None.
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
    """Run R = len(seeds) replicates side by side; yields a `Round` after each of len(budgets) rounds.

    budgets: items to label per round and replicate, the initial set first. done: int64 (R, n), picks of rounds
    already made; these are replayed (heads are fitted again, so that warm starts are as they were, but nothing is
    asked or measured) and not yielded. The last round takes what is left of the pool and says so.

    Raises UserError when the initial budget exceeds the pool.
    """
    pool, R = task.pool, len(seeds)
    if budgets[0] > pool.N:
        raise UserError(
            f"The initial budget asks for {budgets[0]} items but the pool has {pool.N}: lower budget.init "
            "(it is per class unless budget.per_class=false)."
        )
    classifier = on_all_views(classifier, pool)
    device = pool.device
    rows = torch.empty(R, 0, dtype=torch.int64, device=device)
    available = torch.ones(R, pool.N, dtype=torch.bool, device=device)
    known = 0 if done is None else done.shape[1]
    head: LinearHead | None = None
    carry: dict[str, Any] = {}
    for number, budget in enumerate(budgets, 1):
        strategy = init_strategy if number == 1 else query_strategy
        budget = min(budget, pool.N - rows.shape[1])
        replay = rows.shape[1] < known
        clock = Clock(device)
        if replay:
            assert done is not None
            picks = torch.from_numpy(done[:, rows.shape[1] : rows.shape[1] + budget]).to(device)
            filled = [0] * R
        else:
            query = Query(
                pool, rows, task.labels[rows], available, task.num_classes, seeds, number, head, classifier,
                carry if number > 1 else {}, task if strategy.oracle else None,
            )  # fmt: skip
            picks, filled = ask(strategy, query, budget)
        query_seconds = clock.lap()
        rows = torch.cat([rows, picks], 1)
        available.scatter_(1, picks, False)
        previous = head if warm_start else None
        head = classifier.fit(pool, rows, task.labels[rows], task.num_classes, seeds, number, previous=previous)
        fit_seconds = clock.lap()
        if replay:
            continue
        metrics = task.measure(head)
        left = pool.N - rows.shape[1]
        ended = None
        if number == len(budgets):
            ended = "all rounds done"
        elif left == 0:
            ended = f"the pool is exhausted after round {number} of {len(budgets)}"
        yield Round(
            number, rows.shape[1], picks.cpu().numpy(), filled, metrics, fit_seconds, query_seconds, clock.lap(),
            peak_memory(device), ended,
        )  # fmt: skip
        if ended:
            return
