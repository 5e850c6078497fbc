"""What every head becomes once fitted: a linear map on a space, one per replicate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alfm.features.features import Features
from alfm.features.spaces import Space
from alfm.heads.passes import apart, walk


@dataclass(frozen=True, eq=False)
class LinearHead:
    """R fitted heads. logits_r(x) = spaces[r](x) @ weight[r].T + bias[r].

    spaces: R spaces, phi = spaces[r](h) being what a head sees; weight (R, C, D') and bias (R, C), the pool's dtype and
    device. When all replicates share one space that depends on the pool alone, its coordinates may stay resident.
    """

    spaces: Sequence[Space]
    weight: Tensor
    bias: Tensor
    apart: bool = False
    """Part of heads that do not share their coordinates: nor does it, so that none of its own are kept resident."""

    @property
    def R(self) -> int:
        return self.weight.shape[0]

    @property
    def C(self) -> int:
        return self.weight.shape[1]

    @property
    def shared(self) -> bool:
        """Do all replicates see the same, pool-wide coordinates?"""
        return not self.apart and self.spaces[0].shared and all(space is self.spaces[0] for space in self.spaces)

    def part(self, replicates: slice) -> LinearHead:
        """The heads of some of the replicates."""
        return LinearHead(self.spaces[replicates], self.weight[replicates], self.bias[replicates], not self.shared)

    def of(self, replicates: Sequence[int]) -> LinearHead:
        """The heads of some of the replicates, in this order."""
        index = torch.tensor(replicates, device=self.weight.device)
        return LinearHead([self.spaces[r] for r in replicates], self.weight[index], self.bias[index], not self.shared)

    @staticmethod
    def joined(heads: Sequence[LinearHead]) -> LinearHead:
        """All heads of several, one behind the other."""
        spaces = [space for head in heads for space in head.spaces]
        return LinearHead(spaces, torch.cat([one.weight for one in heads]), torch.cat([one.bias for one in heads]))

    def embed(self, x: Tensor) -> Tensor:
        """Raw features (b, D) -> each replicate's coordinates (R, b, D')."""
        if self.R == 1:
            return self.spaces[0](x)[None]
        return torch.stack([space(x) for space in self.spaces])

    def logits(self, phi: Tensor, r: int | None = None) -> Tensor:
        """Coordinates (b, D') that all share, or (R, b, D') of their own, -> logits (R, b, C).

        r: of this replicate alone, (b, D') -> (b, C). One replicate's numbers are the same, bit for bit, whether it is
        asked for by r or as a `part` of one; those of several replicates come from one product for all.
        """
        if r is not None:
            return torch.addmm(self.bias[r], phi, self.weight[r].T)
        if self.R == 1:
            return self.logits(phi if phi.ndim == 2 else phi[0], 0)[None]
        if phi.ndim == 3:
            return torch.baddbmm(self.bias[:, None], phi, self.weight.mT)
        flat = torch.addmm(self.bias.flatten(), phi, self.weight.flatten(0, 1).T)
        return flat.view(len(phi), self.R, self.C).transpose(0, 1)

    def at(self, rows: slice | Tensor, phi: Tensor, r: int | None = None) -> Tensor:
        """`logits` of pool rows (a slice, or int64 (b,)) whose coordinates are phi.

        Whoever knows which items it asks about asks here: a model from elsewhere knows its answers by their rows alone.
        """
        return self.logits(phi, r)

    def among(self, items: Tensor) -> LinearHead:
        """The heads for a pool of some pool rows alone, int64 (m,)."""
        return self

    def forward(self, x: Tensor, r: int) -> Tensor:
        """Raw features (b, D) -> logits (b, C) of replicate r."""
        return self.logits(self.spaces[r](x), r)

    def map(self, features: Features, fn: Callable[[Tensor, Tensor, slice, int], Tensor | tuple[Tensor, ...]]) -> Any:
        """See `Features.map`."""
        return walk(features, self, apart(fn), joined=False)
