"""CAL: Margatina et al. 2021, "Active learning by acquiring contrastive examples" (2109.03764)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alfm.geometry.knn import nearest
from alfm.heads.passes import Seen, walk
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
            labelled.append((known, torch.linalg.vecdot(known, known), p, (p * log_p).sum(1)))

        def contrast(seen: Seen) -> Tensor:
            known, sq, p, negentropy = (_stacked(own) for own in zip(*labelled[seen.replicates], strict=True))
            origin = pool.origin(head.spaces[seen.replicates.start])  # of all: only raw features have one
            phi = seen.phi if origin is None else seen.phi - origin
            # |x|^2 is the same for all neighbours of x and changes no order
            near = nearest(_less_square(phi, known, sq).flatten(0, 1), self.neighbours)
            if len(known) > 1:  # their places among all that are known
                first = torch.arange(0, sq.numel(), sq.shape[1], device=near.device)
                near = (near.view(len(known), -1, near.shape[1]) + first[:, None, None]).flatten(0, 1)
            mean = torch.nn.functional.embedding_bag(near, p.flatten(0, 1), mode="mean").view_as(seen.logits)
            known_of = negentropy.flatten()[near].mean(1).view(seen.logits.shape[:2])
            return known_of - torch.linalg.vecdot(mean, torch.log_softmax(seen.logits, 2))

        return walk(pool, head, contrast, joined=len(set(query.counts)) == 1)


def _stacked(own: Sequence[Tensor]) -> Tensor:
    return own[0][None] if len(own) == 1 else torch.stack(list(own))


def _less_square(phi: Tensor, known: Tensor, sq: Tensor) -> Tensor:
    """|x - y|^2 - |x|^2, (R, b, n), of coordinates (b, D) or (R, b, D) to known ones (R, n, D) and their squares."""
    if len(known) == 1:
        return torch.addmm(sq[0], phi if phi.ndim == 2 else phi[0], known[0].T, alpha=-2.0)[None]
    return torch.baddbmm(sq[:, None], phi.expand(len(known), -1, -1), known.mT, alpha=-2.0)
