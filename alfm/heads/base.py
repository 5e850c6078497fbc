"""What every head becomes once fitted: a linear map on a space, one per replicate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from alfm.pool import Pool
from alfm.spaces import Space


@dataclass(frozen=True, eq=False)
class LinearHead:
    """R fitted heads. logits_r(x) = spaces[r](x) @ weight[r].T + bias[r].

    spaces: R spaces (METHODS' phi is spaces[r](h)); weight (R, C, D') and bias (R, C), the pool's dtype and device.
    When all replicates share one space that depends on the pool alone, its coordinates may stay resident.
    """

    spaces: Sequence[Space]
    weight: Tensor
    bias: Tensor

    @property
    def R(self) -> int:
        return self.weight.shape[0]

    @property
    def C(self) -> int:
        return self.weight.shape[1]

    @property
    def shared(self) -> bool:
        """Do all replicates see the same, pool-wide coordinates?"""
        return self.spaces[0].shared and all(space is self.spaces[0] for space in self.spaces)

    def logits(self, phi: Tensor, r: int) -> Tensor:
        """Coordinates (b, D') of spaces[r] -> logits (b, C) of replicate r."""
        return torch.addmm(self.bias[r], phi, self.weight[r].T)

    def forward(self, x: Tensor, r: int) -> Tensor:
        """Raw features (b, D) -> logits (b, C) of replicate r."""
        return self.logits(self.spaces[r](x), r)


@runtime_checkable
class Classifier(Protocol):
    """A recipe that fits heads (what `classifier=` names).

    fit: rows (R, n) int64 pool rows in the order picked, padded with -1; targets (R, n) int64 classes, or
    (R, n, C) soft labels; weight (R, n) or None; seeds: the R replicates' seeds; round: for random streams;
    previous: the head of the round before (a warm start may change the time, never the result).
    """

    def fit(
        self,
        pool: Pool,
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
        pool: Pool,
        rows: Tensor,
        targets: Tensor,
        num_classes: int,
        weight: Tensor,
        start: LinearHead,
    ) -> LinearHead: ...
