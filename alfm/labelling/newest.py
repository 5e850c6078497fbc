"""The newest head: refitted after every few labels, for suggestions only. Batches come from `rounds`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from alfm.devices import full_precision
from alfm.features.features import Features
from alfm.heads.base import Classifier
from alfm.heads.linear import LinearHead
from alfm.heads.views import on_all_views
from alfm.labelling.rounds import TrainingSet


@dataclass(frozen=True)
class Suggestions:
    """labels int64 (N,): places in `classes`; confidence float32 (N,): the largest probability. Unpacks as those."""

    labels: np.ndarray
    confidence: np.ndarray
    classes: Sequence[str]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.labels, self.confidence))

    def name(self, row: int) -> str:
        """The suggested class of a row."""
        return self.classes[int(self.labels[row])]


class NewestHead:
    """A head that follows the labels. Fits one at a time; each begins at the one before."""

    def __init__(self, pool: Features, classifier: Classifier, seed: int) -> None:
        self.pool, self.classifier, self.seed = pool, on_all_views(classifier, pool), seed
        self.head: LinearHead | None = None
        self._of: TrainingSet | None = None
        self._found: tuple[LinearHead, np.ndarray, np.ndarray] | None = None
        self._fitting = Lock()

    def fit(self, training: TrainingSet) -> LinearHead | None:
        """The head of a training set; None while that holds labels of fewer than two classes."""
        with self._fitting:
            return self._fit(training)

    def suggestions(self, training: TrainingSet, own: Sequence[str], classes: Sequence[str]) -> Suggestions | None:
        """What its head says of every item. own: the training set's classes; classes: what labels are to count."""
        with self._fitting:
            head = self._fit(training)
            if head is None:
                return None
            if self._found is None or self._found[0] is not head:
                self._found = (head, *largest(self.pool, head))
            _, labels, confidence = self._found
        place = np.array([classes.index(name) for name in own])
        return Suggestions(place[labels], confidence, list(classes))

    @full_precision()
    def _fit(self, training: TrainingSet) -> LinearHead | None:
        if len(set(training.targets)) < 2:
            return None
        if self.head is None or training != self._of:
            start = self.head if self.head is not None and training.num_classes == self.head.C else None
            rows = torch.tensor([training.rows], device=self.pool.device)
            targets = torch.tensor([training.targets], device=self.pool.device)
            number = max(training.num_classes, 2)
            round = max(training.rounds)
            self.head = self.classifier.fit(self.pool, rows, targets, number, [self.seed], round, previous=start)
            self._of = training
        return self.head


@full_precision()
def largest(pool: Features, head: LinearHead) -> tuple[np.ndarray, np.ndarray]:
    """Each item's most probable class, int64 (N,), and its probability, float32 (N,): one pass, block by block."""

    def top(phi: Tensor, logits: Tensor, rows: slice, r: int) -> tuple[Tensor, Tensor]:
        most, which = logits.max(1)
        return which, (most - logits.logsumexp(1)).exp()

    which, p = pool.map(top, head)
    return which[0].cpu().numpy(), p[0].float().cpu().numpy()


@full_precision()
def probabilities(pool: Features, head: LinearHead, rows: Tensor | None = None) -> np.ndarray:
    """float32 (n, C) of some rows int64 (n,), by default of all."""
    if rows is None:
        found = pool.map(lambda phi, logits, block, r: logits.softmax(1), head)[0]
    else:
        found = head.forward(pool.gather(rows.to(pool.device), plain=True), 0).softmax(1)
    return found.float().cpu().numpy()
