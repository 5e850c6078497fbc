"""What every head becomes once fitted: a linear map on a space, one per replicate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alfm.features.spaces import Space


@dataclass(frozen=True, eq=False)
class LinearHead:
    """R fitted heads. logits_r(x) = spaces[r](x) @ weight[r].T + bias[r].

    spaces: R spaces, phi = spaces[r](h) being what a head sees; weight (R, C, D') and bias (R, C), the pool's dtype and
    device. When all replicates share one space that depends on the pool alone, its coordinates may stay resident.
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
