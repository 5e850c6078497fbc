"""Residual adapter before the linear head, trained by the dropout head's recipe.

A bottleneck network mixes the features before they are normalised, h = (1 - g) x + g f(x), as in CLIP-Adapter (Gao et
al. 2021, arXiv 2110.04544); the mixing gate g = sigmoid(alpha) is learnt and starts small, so that training begins
near the plain dropout head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn.functional import gelu

from alfm.features.features import Features
from alfm.heads.dropout import Recipe, linear_start, train
from alfm.heads.linear import LinearHead
from alfm.options import Count, checked


@dataclass(frozen=True, eq=False)
class Adapted:
    """phi = (mix(x) - shift) / scale of one replicate; parameters as in `Bottleneck`, shift and scale (D,)."""

    params: Sequence[Tensor]
    shift: Tensor
    scale: Tensor
    shared: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        mixed = mix([p[None] for p in self.params], x[None])[0]
        return (mixed - self.shift) / self.scale


def mix(params: Sequence[Tensor], x: Tensor) -> Tensor:
    """(1 - g) x + g gelu(gelu(x A^T + a) B^T + b), g = sigmoid(alpha); parameters (R, ...), x and result (R, n, D)."""
    A, a, B, b, alpha = params
    hidden = gelu(torch.baddbmm(a[:, None, :], x, A.mT))
    return torch.lerp(x, gelu(torch.baddbmm(b[:, None, :], hidden, B.mT)), torch.sigmoid(alpha)[:, :, None])


@dataclass(frozen=True)
class Bottleneck:
    """Parameters A (H, D), a (H,), B (D, H), b (D,), alpha (1,) with H = D // scale, at least 1."""

    scale: int
    alpha: float

    def start(self, rng: np.random.Generator, dim: int) -> list[np.ndarray]:
        width = max(1, dim // self.scale)
        return [*linear_start(rng, dim, width), *linear_start(rng, width, dim), np.array([self.alpha])]

    def embed(self, params: list[Tensor], x: Tensor) -> Tensor:
        return mix(params, x)


@dataclass(frozen=True)
@checked
class Adapter(Recipe):
    """Input dropout, residual adapter, batch normalisation without affine, linear.

    scale: D -> D / scale -> D. alpha: start of the gate's logit. The rest is the recipe of `Dropout`; the fitted space
    is the normalised output of the adapter, so everything that works on a linear head works here.
    Cost per epoch and replicate: about 1 + D / (2 C) times the dropout head's.
    """

    scale: Count = 4
    alpha: Annotated[float, Ge(-100), Le(100)] = -2.0

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
    ) -> LinearHead:
        """See `alfm.heads.base.Classifier`. A fresh fit each round. Raises UserError when a replicate has no label."""
        network = Bottleneck(self.scale, self.alpha)
        done = train(self, network, pool, rows, targets, num_classes, seeds, round, weight)
        spaces = [Adapted([p[r] for p in done.inner], done.shift[r], done.scale[r]) for r in range(len(done.bias))]
        return LinearHead(spaces, done.weight, done.bias)
