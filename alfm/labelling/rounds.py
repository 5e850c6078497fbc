"""Heads and batches of a training set, round by round, as a simulation makes them.

In a simulation a round's fit begins at the head of the round before, so its last digits depend on all of them. Here the
same rounds are gone through: labels that came in one round are one fit. What was gone through is kept, so that one more
round costs one more fit, and a corrected label those since it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch

from alfm.features.features import Features
from alfm.heads.base import Classifier
from alfm.heads.linear import LinearHead
from alfm.learner import Learner
from alfm.strategies.base import Strategy

Group = tuple[int, list[int], list[int]]
"""A round, and the rows and classes that came in it."""


@dataclass(frozen=True)
class TrainingSet:
    """Rows of the pool, their classes and the round in which each came, in training order; closed: not to be asked."""

    rows: Sequence[int]
    targets: Sequence[int]
    rounds: Sequence[int]
    num_classes: int
    closed: Sequence[int] = ()

    def before(self, round: int) -> TrainingSet:
        """What was known before a batch of that round."""
        count = sum(one < round for one in self.rounds)
        return replace(self, rows=self.rows[:count], targets=self.targets[:count], rounds=self.rounds[:count])

    def by_round(self) -> list[Group]:
        """Its rounds, in order."""
        told = zip(self.rounds, self.rows, self.targets, strict=True)
        groups = [(round, list(group)) for round, group in groupby(told, key=lambda one: one[0])]
        return [(round, [row for _, row, _ in group], [y for _, _, y in group]) for round, group in groups]


class Rounds:
    """What `head` and `ask` say is a function of the training set, the round and the seed alone."""

    def __init__(
        self,
        pool: Features,
        *,
        query_strategy: Strategy,
        init_strategy: Strategy,
        classifier: Classifier,
        seed: int,
        warm_start: bool = True,
    ) -> None:
        self._parts = {"query_strategy": query_strategy, "init_strategy": init_strategy, "classifier": classifier}
        self._learner = Learner(pool, seeds=[seed], warm_start=warm_start, **self._parts)  # type: ignore[arg-type]
        self._fitted: list[tuple[Group, LinearHead]] = []
        self._num_classes = 0

    def head(self, training: TrainingSet) -> LinearHead | None:
        """Fitted on it; None while it is empty."""
        heads = self.heads(training)
        return heads[-1] if heads else None

    def heads(self, training: TrainingSet) -> list[LinearHead]:
        """A head for each of its rounds, in order, fitted on what was told in it and before."""
        return [head for _, head in self._through(training)]

    def ask(self, training: TrainingSet, round: int, n: int) -> tuple[list[int], int]:
        """At most n rows in the order wanted, and how many of them the strategy left to chance."""
        self._stand(self._through(training), training, round, training.closed)
        if not self._learner.left[0]:
            return [], 0
        return self._learner.ask(n)[0].tolist(), self._learner.filled[0]

    def _through(self, training: TrainingSet) -> list[tuple[Group, LinearHead]]:
        """Its rounds with their heads; whoever goes back to fewer rounds loses none of the others."""
        if training.num_classes != self._num_classes:
            self._fitted, self._num_classes = [], training.num_classes
        wanted = training.by_round()
        same = 0
        while same < min(len(wanted), len(self._fitted)) and self._fitted[same][0] == wanted[same]:
            same += 1
        if same < len(wanted):
            del self._fitted[same:]
        for group in wanted[same:]:
            round, rows, targets = group
            self._stand(self._fitted, training, round)
            self._learner.tell([rows], [targets])
            self._learner.fit()
            assert self._learner.head is not None
            self._fitted.append((group, self._learner.head))
        return self._fitted[: len(wanted)]

    def _stand(
        self,
        told: Sequence[tuple[Group, LinearHead]],
        training: TrainingSet,
        round: int,
        closed: Sequence[int] = (),
    ) -> None:
        rows = torch.tensor([[row for (_, own, _), _ in told for row in own]], dtype=torch.int64)
        targets = torch.tensor([[target for (_, _, own), _ in told for target in own]], dtype=torch.int64)
        self._learner.stand(
            rows, targets, closed=[closed], round=round, num_classes=training.num_classes,
            head=told[-1][1] if told else None,
        )  # fmt: skip
