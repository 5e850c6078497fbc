"""The ceiling of a task: what a head fitted on all labels of the pool reaches, and k nearest neighbours beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from alfm import devices
from alfm.heads import neighbours
from alfm.heads.base import Classifier
from alfm.heads.blockwise import fit_in_blocks
from alfm.heads.linear import LinearHead
from alfm.heads.logistic import Logistic
from alfm.heads.views import on_all_views
from alfm.metrics import evaluate
from alfm.simulation.task import Task
from alfm.streams import stream

SEED = 1
"""Of heads whose fit draws."""
OF_PREDICTIONS = ("accuracy", "balanced_accuracy", "macro_f1")
"""Metrics that votes have too: shares of k votes are no probabilities to be scored."""


@dataclass(frozen=True)
class Ceiling:
    """labels: how many the head was fitted on; how: the same in words; head, knn: test metrics by name; k: chosen."""

    labels: int
    how: str
    head: dict[str, float]
    knn: dict[str, float]
    k: int
    seconds: float


def ceiling_of(task: Task, classifier: Classifier, most_bytes: int | None = None) -> Ceiling:
    """Fit on everything, measure on the test split. most_bytes: what a fit may take, by default half of what is free.

    Where a fit of all items at once would take more, the logistic head is fitted block by block on the plain items, to
    the same objective; any other head on as many random items as fit.
    """
    clock = devices.Clock(task.pool.device)
    head, labels, how = _fitted(task, classifier, most_bytes)
    seconds = clock.lap()
    metrics = task.measure(head)[0]
    k = neighbours.choose_k(task.pool, task.labels, task.num_classes)
    shares = neighbours.shares(task.pool, task.labels, task.num_classes, task.test, k)
    votes = evaluate(shares, task.test_labels, task.measured)
    return Ceiling(labels, how, metrics, {name: votes[name] for name in OF_PREDICTIONS}, k, seconds)


def _fitted(task: Task, classifier: Classifier, most_bytes: int | None) -> tuple[LinearHead, int, str]:
    pool, N = task.pool, task.pool.N
    most = devices.of(pool.device).free_bytes() // 2 if most_bytes is None else most_bytes
    views = 1 if pool.views is None else pool.views.shape[1] + 1
    each = views * (4 * pool.D + 8 * task.num_classes) * 4  # copies of features and of logits that a fit holds
    rows, how = torch.arange(N, device=pool.device), f"all {N} labels"
    if N * each > most:
        if isinstance(classifier, Logistic):
            blocks = f"{how}, block by block" + (", plain items without their views" if views > 1 else "")
            return fit_in_blocks(classifier, pool, task.labels, task.num_classes), N, blocks
        count = max(1, min(N, most // each))
        some = stream(SEED, 0, "probe").permutation(N)[:count]
        rows, how = (
            torch.from_numpy(np.sort(some)).to(pool.device),
            f"{count} random labels of {N}, as fit in memory",
        )
    fitted = on_all_views(classifier, pool).fit(pool, rows[None], task.labels[rows][None], task.num_classes, [SEED])
    return fitted, len(rows), how
