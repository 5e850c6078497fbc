"""The active-learning loop: fit the heads, measure, ask the strategy, ask the oracle, repeat.

It knows no files and no strategy by name. A round's outcome is yielded as soon as it is known, so that the caller
can store it, show it, or stop.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alfm.errors import UserError
from alfm.heads.base import Classifier, LinearHead
from alfm.heads.views import on_all_views
from alfm.metrics import TestLabels, evaluate, evaluate_all
from alfm.pool import Pool
from alfm.spaces import RAW
from alfm.strategies.base import Query, Strategy, ask
from alfm.threads import side_by_side


@dataclass
class Task:
    """What is learnt: a pool with hidden labels (the simulated oracle), and a test split that only measures.

    labels (N,) and test_labels (T,): int64 on the pool's device, all in [0, num_classes).
    """

    pool: Pool
    labels: Tensor
    test: Pool
    test_labels: Tensor
    num_classes: int

    def __post_init__(self) -> None:
        if len(self.labels.unique()) < 2:
            raise UserError("The pool holds items of one class only: there is nothing to learn.")
        if len(self.labels) != self.pool.N or len(self.test_labels) != self.test.N:
            raise UserError("Features and labels differ in length.")
        if self.test.D != self.pool.D:
            raise UserError(f"The test features have dimension {self.test.D}, the pool's {self.pool.D}.")
        self.measured = TestLabels.prepare(self.test_labels, self.num_classes)

    def test_logits(self, head: LinearHead) -> Iterator[Tensor]:
        """Logits (T, C) of one replicate after the other."""
        for r in range(head.R):
            yield self._logits(head, r)

    def measure(self, head: LinearHead) -> list[dict[str, float]]:
        """The test measures of every replicate: side by side on CPU, with one transfer to the host on a GPU."""
        source = self.test.vectors(head.spaces[0] if head.shared else RAW)  # made once, before the jobs ask for it
        if source.device.type != "cpu":
            return evaluate_all(self.test_logits(head), self.test_labels, self.measured)

        def one(r: int) -> dict[str, float]:
            return evaluate(self._logits(head, r), self.test_labels, self.measured)

        return side_by_side([partial(one, r) for r in range(head.R)], source.device)

    def _logits(self, head: LinearHead, r: int) -> Tensor:
        source = self.test.vectors(head.spaces[0] if head.shared else RAW)
        parts = [head.logits(x if head.shared else head.spaces[r](x), r) for _, x in source.blocks()]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


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
        clock = _Clock(device)
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


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far, over all runs of the process: on CUDA by torch's allocator, else its resident set.

    0 where the system does not tell (Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class _Clock:
    """Wall time between laps, with the device's queue drained at each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.last = self._now()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def lap(self) -> float:
        now = self._now()
        seconds, self.last = now - self.last, now
        return seconds
