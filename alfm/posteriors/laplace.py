"""Last-layer Laplace approximation (MacKay 1992; Daxberger et al. 2021, arXiv 2106.14806)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm.features.features import Features
from alfm.heads.base import Classifier
from alfm.heads.linear import LinearHead
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
        jobs = [partial(self._draw, pool, head, classifier, rows[r], r, seed, round) for r, seed in enumerate(seeds)]
        weights, factors = zip(*side_by_side(jobs, pool.device), strict=True)
        return LaplaceDraws(head, weights, factors)

    def _draw(
        self, pool: Features, head: LinearHead, classifier: Classifier, rows: Tensor, r: int, seed: int, round: int
    ) -> tuple[Tensor, Tensor]:
        """Replicate r's weights (M, C, D') and its lower factor of Sigma^-1."""
        rows = rows[rows >= 0]
        phi = head.spaces[r](pool.gather(rows))
        factor = precision_factor(phi, head.logits(phi, r), self._precision(classifier, head.C, len(rows)))
        noise = stream(seed, round, "laplace").standard_normal((self.passes * head.C, phi.shape[1]))
        # Lambda = L L^T, so L^-T e has covariance Lambda^-1.
        step = torch.linalg.solve_triangular(factor.T, torch.from_numpy(noise).to(factor).T, upper=True).T
        return head.weight[r] + step.to(phi).view(self.passes, head.C, -1), factor

    def _precision(self, classifier: Classifier, num_classes: int, labelled: int) -> float:
        if self.precision != "auto":
            return float(self.precision)
        classifier = getattr(classifier, "classifier", classifier)  # what `Propagated` wraps
        inverse_l2 = getattr(classifier, "inverse_l2", None)
        if inverse_l2 is not None:
            return 1 / inverse_l2(num_classes)
        return max(labelled * getattr(classifier, "weight_decay", 1 / labelled), 1e-6)


def precision_factor(phi: Tensor, logits: Tensor, precision: float) -> Tensor:
    """Lower Cholesky factor (D', D') of precision I + sum p1 (1 - p1) phi phi^T; phi (n, D'), logits (n, C).

    In float64, because the eigenvalues of the sum spread over many decades.
    """
    p1 = torch.softmax(logits, 1).amax(1)
    root = widened(phi) * widened((p1 * (1 - p1)).clamp_min(0).sqrt())[:, None]
    total = root.T @ root
    total.diagonal().add_(precision)
    return torch.linalg.cholesky(total)


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

    def predictive_logits(self, x: Tensor, r: int) -> Tensor:
        """Raw features (b, D) -> (b, C): z / sqrt(1 + pi/8 phi^T Sigma phi), the closed form without draws.

        MacKay 1992; Daxberger et al. 2021 (arXiv 2106.14806), "probit approximation".
        """
        phi = self.head.spaces[r](x)
        factor = self.factors[r]
        white = torch.linalg.solve_triangular(factor, phi.to(factor).T, upper=False)
        variance = white.square().sum(0).to(phi)
        return self.head.logits(phi, r) / (1 + math.pi / 8 * variance).sqrt()[:, None]
