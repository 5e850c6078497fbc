"""Last-layer Laplace approximation (MacKay 1992; Daxberger et al. 2021, arXiv 2106.14806)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm import devices
from alfm.features.features import Features
from alfm.heads.base import Classifier
from alfm.heads.linear import LinearHead
from alfm.heads.passes import together
from alfm.heads.products import mm
from alfm.host_ops import widened
from alfm.options import Fits, checked
from alfm.streams import stream
from alfm.threads import side_by_side


@dataclass(frozen=True)
@checked
class Laplace:
    """Draws W ~ N(W_map, Sigma), Sigma^-1 = precision I + sum_i p1_i (1 - p1_i) phi_i phi_i^T over the labelled items.

    One D x D covariance for all classes (Huseljic et al. 2022, arXiv 2210.06112); the bias stays where it is.
    precision: the Gaussian prior's, or `auto` = what the head was regularised with: 1/c for `logistic`, n weight_decay
    for heads trained with weight decay on a mean loss, 1 for any other. Works on any head, in its last space.
    Cost: O(n D^2 + D^3) a round, then O(M N D C).
    """

    passes: Fits = 20
    precision: Annotated[float, Ge(1e-9), Le(1e9)] | Literal["auto"] = "auto"

    joint = True

    def bind(
        self,
        pool: Features,
        head: LinearHead,
        classifier: Classifier,
        rows: Tensor,
        targets: Tensor,
        seeds: Sequence[int],
        round: int,
    ) -> LaplaceDraws:
        """See `alfm.posteriors.base.Posterior`."""
        counts, n, D = (rows >= 0).sum(1).tolist(), rows.shape[1], pool.D
        groups = together(
            len(seeds), devices.of(pool.device).at_once(len(seeds), (n + D + self.passes * head.C) * D, 1)
        )

        def drawn(which: slice) -> tuple[Tensor, Tensor]:
            own = rows[which, : max(counts[which])]
            precisions = [self._precision(classifier, head.C, count) for count in counts[which]]
            return self._draw(pool, head.part(which), own, precisions, seeds[which], round)

        found = side_by_side([partial(drawn, which) for which in groups], pool.device)
        weights, factors = ([own for some in part for own in some] for part in zip(*found, strict=True))
        return LaplaceDraws(head, weights, factors)

    def _draw(
        self,
        pool: Features,
        head: LinearHead,
        rows: Tensor,
        precisions: Sequence[float],
        seeds: Sequence[int],
        round: int,
    ) -> tuple[Tensor, Tensor]:
        """Weights (R, M, C, D') and the lower factors (R, D', D') of Sigma^-1 of some replicates, all in one product;
        rows (R, n): labelled, padded with -1 at their end."""
        phi = in_spaces(head, pool.gather(rows.clamp_min(0).flatten(), plain=True).unflatten(0, rows.shape))
        factor = precision_factor(phi, head.logits(phi), torch.tensor(precisions, dtype=torch.float64), rows >= 0)
        shape = self.passes * head.C, phi.shape[2]
        noise = np.stack([stream(seed, round, "laplace").standard_normal(shape) for seed in seeds])
        # Lambda = L L^T, so L^-T e has covariance Lambda^-1.
        step = torch.linalg.solve_triangular(factor.mT, torch.from_numpy(noise).to(factor).mT, upper=True).mT
        return head.weight[:, None] + step.to(phi).reshape(len(rows), self.passes, head.C, -1), factor

    def _precision(self, classifier: Classifier, num_classes: int, labelled: int) -> float:
        if self.precision != "auto":
            return float(self.precision)
        classifier = getattr(classifier, "classifier", classifier)  # what `Propagated` wraps
        inverse_l2 = getattr(classifier, "inverse_l2", None)
        if inverse_l2 is not None:
            return 1 / inverse_l2(num_classes)
        return max(labelled * getattr(classifier, "weight_decay", 1 / labelled), 1e-6)


def precision_factor(phi: Tensor, logits: Tensor, precision: Tensor, labelled: Tensor | None = None) -> Tensor:
    """Lower Cholesky factors (R, D', D') of precision I + sum p1 (1 - p1) phi phi^T; phi (R, n, D'), logits (R, n, C),
    precision (R,), labelled (R, n): which rows there are, by default all.

    In float64, because the eigenvalues of the sum spread over many decades.
    """
    p1 = torch.softmax(logits, -1).amax(-1)
    share = p1 * (1 - p1) if labelled is None else (p1 * (1 - p1)).where(labelled, 0)
    root = widened(phi) * widened(share.clamp_min(0).sqrt())[..., None]
    total = mm(root.mT, root)
    total.diagonal(dim1=1, dim2=2).add_(precision.to(total)[:, None])
    return torch.linalg.cholesky(total)


def in_spaces(head: LinearHead, x: Tensor) -> Tensor:
    """Coordinates (R, b, D') of items of each replicate's own, raw features (R, b, D)."""
    if head.R == 1 or head.shared:
        return head.spaces[0](x.flatten(0, 1)).unflatten(0, x.shape[:2])
    return torch.stack([space(own) for space, own in zip(head.spaces, x, strict=True)])


class LaplaceDraws:
    """Draws of `Laplace`. weights: R tensors (M, C, D'); factors: R lower factors (D', D') of Sigma^-1."""

    joint = True

    def __init__(self, head: LinearHead, weights: Sequence[Tensor], factors: Sequence[Tensor]) -> None:
        self.head, self.weights, self.factors = head, weights, factors
        self.passes = weights[0].shape[0]
        self.R, self.C = head.R, head.C

    def logits(self, rows: slice | Tensor, x: Tensor, r: int) -> Tensor:
        """See `alfm.posteriors.base.Draws`."""
        phi = self.head.spaces[r](x)
        flat = torch.mm(phi, self.weights[r].flatten(0, 1).T).view(len(phi), self.passes, self.C)
        return (flat + self.head.bias[r]).transpose(0, 1).contiguous()

    def of_several(self, rows: slice | Tensor, x: Tensor, replicates: slice) -> Tensor:
        """See `alfm.heads.passes.JoinedDraws`; raw features of each replicate's own, (R', b, D), serve too."""
        own = self.head.part(replicates)
        phi = in_spaces(own, x) if x.ndim == 3 else own.spaces[0](x) if self.head.shared else own.embed(x)
        flat = phi @ torch.stack(list(self.weights[replicates])).flatten(1, 2).mT  # (R', b, M C)
        return (flat.unflatten(2, (self.passes, self.C)) + own.bias[:, None, None]).transpose(1, 2).contiguous()

    def of_own(self, rows: Tensor, x: Tensor, replicates: slice) -> Tensor:
        """See `alfm.heads.passes.OwnDraws`."""
        return self.of_several(rows, x, replicates)

    def predictive_logits(self, x: Tensor, r: int) -> Tensor:
        """Raw features (b, D) -> (b, C): z / sqrt(1 + pi/8 phi^T Sigma phi), the closed form without draws.

        MacKay 1992; Daxberger et al. 2021 (arXiv 2106.14806), "probit approximation".
        """
        phi = self.head.spaces[r](x)
        factor = self.factors[r]
        white = torch.linalg.solve_triangular(factor, phi.to(factor).T, upper=False)
        variance = white.square().sum(0).to(phi)
        return self.head.logits(phi, r) / (1 + math.pi / 8 * variance).sqrt()[:, None]
