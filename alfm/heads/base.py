"""What a classifier is: a recipe that fits heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from alfm.features.features import Features
from alfm.heads.linear import LinearHead


@runtime_checkable
class Classifier(Protocol):
    """A recipe that fits heads (what `classifier=` names).

    fit: rows (R, n) int64 pool rows in the order picked, padded with -1; targets (R, n) int64 classes, or
    (R, n, C) soft labels; weight (R, n) or None; seeds: the R replicates' seeds; round: for random streams;
    previous: the head of the round before (a warm start may change the time, never the result).
    """

    def fit(
        self,
        pool: Features,
        rows: Tensor,
        targets: Tensor,
        num_classes: int,
        seeds: Sequence[int],
        round: int = 0,
        weight: Tensor | None = None,
        previous: LinearHead | None = None,
    ) -> LinearHead: ...


@runtime_checkable
class Reweighted(Protocol):
    """A classifier that also fits M heads on the same rows with weights (R, M, n) of their own, see `Logistic`."""

    def fit_reweighted(
        self,
        pool: Features,
        rows: Tensor,
        targets: Tensor,
        num_classes: int,
        weight: Tensor,
        start: LinearHead,
    ) -> LinearHead: ...


@runtime_checkable
class Chooses(Protocol):
    """A classifier that chooses a head's options, see `alfm.heads.tuned`. It trains on all views by itself."""

    def judge_on(self, seed: int, rows: Tensor, targets: Tensor) -> None:
        """From now on a seed's candidates are judged on these pool rows, int64 (V,), and their classes."""
        ...

    def chosen(self, seed: int) -> Classifier:
        """The classifier with a seed's newest options, as its head was fitted."""
        ...
