"""BADGE: Ash et al. 2020, "Deep batch active learning by diverse, uncertain gradient lower bounds" (1906.03671)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alfm.geometry.d2_sampling import d2_sample
from alfm.heads.passes import Seen
from alfm.strategies.base import Strategy
from alfm.strategies.parts.gradients import prediction_error
from alfm.strategies.query import Query


@dataclass(eq=False)
class Badge(Strategy):
    """k-means++ (D^2) sampling on the gradient embeddings g = (p - e_y) x phi, y the predicted class (algorithm 1).

    The first pick is the item of largest |g|, as in the paper; the others are drawn with probability D^2. g has rank
    one, <g_i, g_j> = <d_i, d_j> <phi_i, phi_j>, so nothing of size N C D is made.
    Cost: O(N D C + B^2 (D + C)); memory O(N).
    """

    needs = ("embedding", "probabilities")
    stochastic = True

    def select(self, query: Query, budget: int) -> Tensor:
        head = query.head
        assert head is not None

        def sq_norm(seen: Seen) -> Tensor:
            error = prediction_error(seen.logits)
            return torch.linalg.vecdot(error, error) * torch.linalg.vecdot(seen.phi, seen.phi)

        sq_norms = query.walk(sq_norm)

        def sample(r: int) -> Tensor:
            phi = query.pool.vectors(head.spaces[r])

            def factors(rows: Tensor) -> tuple[Tensor, Tensor]:
                x = phi.rows(rows, plain=True)
                return prediction_error(head.at(rows, x, r)), x

            return d2_sample(sq_norms[r], factors, query.available[r], budget, query.rng(r, "badge"))

        return query.each(sample, budget)
