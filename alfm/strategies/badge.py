"""BADGE: Ash et al. 2020, "Deep batch active learning by diverse, uncertain gradient lower bounds" (1906.03671)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alfm.features.features import Vectors
from alfm.geometry.d2_sampling import Factors, d2_sample_each
from alfm.heads.passes import Seen
from alfm.strategies.base import Strategy
from alfm.strategies.parts.gradients import prediction_error
from alfm.strategies.query import Query, stack_picks


@dataclass(eq=False)
class Badge(Strategy):
    """k-means++ (D^2) sampling on the gradient embeddings g = (p - e_y) x phi, y the predicted class (algorithm 1).

    The first pick is the item of largest |g|, as in the paper; the others are drawn with probability D^2. g has rank
    one, <g_i, g_j> = <d_i, d_j> <phi_i, phi_j>, so nothing of size N C D is made.
    Cost: O(N D C + B^2 (D + C)); memory O(N).
    """

    needs = ("embedding", "probabilities")
    stochastic = True

    def joins_parts(self, items: int) -> bool:
        return True

    def select(self, query: Query, budget: int) -> Tensor:
        head = query.head
        assert head is not None

        def sq_norm(seen: Seen) -> Tensor:
            error = prediction_error(seen.logits)
            return torch.linalg.vecdot(error, error) * torch.linalg.vecdot(seen.phi, seen.phi)

        sq_norms = query.walk(sq_norm)

        def factors(which: slice) -> Factors:
            own, r = head.part(which), which.start
            phi = [query.pool.vectors(space) for space in own.spaces]

            def of_one(rows: Tensor) -> tuple[Tensor, Tensor]:
                x = phi[0].rows(rows, plain=True)
                return prediction_error(head.at(rows, x, r)), x

            def of_several(rows: Tensor) -> tuple[Tensor, Tensor]:
                x = _rows_of_each(phi, rows)
                return prediction_error(own.at(rows, x)), x

            return of_one if own.R == 1 else of_several

        rngs = [query.rng(r, "badge") for r in range(query.R)]
        resident = query.pool.memory == "device"
        given = list(sq_norms), factors, list(query.available), query.budgets(budget), rngs
        picks = d2_sample_each(*given, resident=resident)
        return stack_picks(picks, budget, query.pool.device)


def _rows_of_each(phi: Sequence[Vectors], rows: Tensor) -> Tensor:
    """Each replicate's coordinates of its own rows (R, m): (R, m, D')."""
    if all(one is phi[0] for one in phi):
        return phi[0].rows(rows.flatten(), plain=True).view(*rows.shape, -1)
    return torch.stack([one.rows(own, plain=True) for one, own in zip(phi, rows, strict=True)])
