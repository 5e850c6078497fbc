"""CAL: Margatina et al. 2021, "Active learning by acquiring contrastive examples" (2109.03764)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alfm.geometry.knn import nearest
from alfm.options import Count, checked
from alfm.strategies.base import Strategy
from alfm.strategies.parts.candidates import best
from alfm.strategies.query import Query


@dataclass(eq=False)
@checked
class Cal(Strategy):
    """Largest mean KL(p_neighbour || p_x) over the `neighbours` (10) nearest labelled items (algorithm 1, eqs. 1-2).

    Neighbours are found in phi, all labelled items when there are fewer; ties go to the lower pool row. Both sides
    of the divergence are the head's own predictions, as in the paper. mean_l KL = mean_l sum_c p_l log p_l - sum_c
    (mean_l p_l) log p_x, so that the neighbours' mean is one matrix and nothing of size N k C is made.
    Cost: O(N D (C + n) + N n C); memory O(N).
    """

    needs = ("embedding", "probabilities", "labels")
    measures = ("head",)

    neighbours: Count = 10

    def select(self, query: Query, budget: int) -> Tensor:
        return best(query, self.score(query), budget)

    def score(self, query: Query) -> Tensor:
        """Mean divergences (R, N)."""
        head, pool = query.head, query.pool
        assert head is not None
        labelled = []
        for r in range(query.R):
            rows = query.labelled(r).sort().values
            phi = pool.vectors(head.spaces[r]).rows(rows)
            log_p = torch.log_softmax(head.at(rows, phi, r), 1)
            p = log_p.exp()
            origin = pool.origin(head.spaces[r])
            known = phi if origin is None else phi - origin
            labelled.append((known, origin, torch.linalg.vecdot(known, known), p, (p * log_p).sum(1)))

        def contrast(phi: Tensor, logits: Tensor, rows: slice, r: int) -> Tensor:
            known, origin, sq, p, negentropy = labelled[r]
            phi = phi if origin is None else phi - origin
            # |x|^2 is the same for all neighbours of x and changes no order
            near = nearest(torch.addmm(sq, phi, known.T, alpha=-2.0), self.neighbours)
            mean = torch.nn.functional.embedding_bag(near, p, mode="mean")
            return negentropy[near].mean(1) - torch.linalg.vecdot(mean, torch.log_softmax(logits, 1))

        return pool.map(contrast, head)
