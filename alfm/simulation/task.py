"""What is learnt in a simulation: a pool with hidden labels, and a test split that only measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from alfm import devices
from alfm.errors import UserError
from alfm.features.features import Features
from alfm.features.spaces import RAW
from alfm.heads.linear import LinearHead
from alfm.heads.passes import logits_of, together, walk
from alfm.metrics import TestLabels, evaluate, evaluate_all
from alfm.threads import side_by_side


@dataclass
class Task:
    """What is learnt: a pool with hidden labels (the simulated oracle), and a test split that only measures.

    labels (N,) and test_labels (T,): int64 on the pool's device, all in [0, num_classes).
    """

    pool: Features
    labels: Tensor
    test: Features
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

    def answers(self, seeds: Sequence[int]) -> Tensor:
        """What the annotator of each seed says of every item, int64 (R, N) on the host, -1 for no answer."""
        return self.labels.cpu().expand(len(seeds), -1)

    def test_logits(self, head: LinearHead) -> Iterator[Tensor]:
        """Logits (T, C) of one replicate after the other."""
        for r in range(head.R):
            yield logits_of(self.test, head, r)

    def unlearnt(self) -> dict[str, float]:
        """The test measures of a model that has seen no label."""
        logits = torch.zeros(self.test.N, self.num_classes, device=self.test_labels.device)
        return evaluate(logits, self.test_labels, self.measured)

    @devices.full_precision()
    def measure(self, head: LinearHead) -> list[dict[str, float]]:
        """The test measures of every replicate: side by side on CPU, several at once on a GPU, as memory allows."""
        self.test.vectors(head.spaces[0] if head.shared else RAW)  # made once, before the jobs ask for it
        there = devices.of(self.test.device)
        if not there.jobs_run_aside:
            parts = together(head.R, there.at_once(head.R, self.test.N * head.C, 1))
            logits = (walk(self.test, head.part(part), lambda seen: seen.logits) for part in parts)
            return evaluate_all(logits, self.test_labels, self.measured)

        def one(r: int) -> dict[str, float]:
            return evaluate(logits_of(self.test, head, r), self.test_labels, self.measured)

        return side_by_side([partial(one, r) for r in range(head.R)], self.test.device)
