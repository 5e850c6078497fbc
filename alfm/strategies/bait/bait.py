"""BAIT: Ash, Goel, Krishnamurthy & Kakade 2021, "Gone fishing: neural active learning with Fisher embeddings"
(2106.09675); its fast forms: Huseljic et al. 2024, "Fast fishing" (2404.08981)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm.features.features import Vectors
from alfm.heads.passes import walk
from alfm.options import Bytes, Count, checked
from alfm.strategies.bait.class_wise import Diagonal, Full, refuse_if_too_large
from alfm.strategies.bait.rank_one import Binary, binary_information, piece, quadratic_forms, second_moments
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query, embedding, per_replicate, stack_picks
from alfm.threads import side_by_side


@dataclass(eq=False)
@checked
class Bait(Strategy):
    """The batch S that minimises tr((F_L + F_S)^-1 F), F the mean Fisher information of the whole pool (algorithm 1).

    Forward greedy to 2 B items, then backward to B. F_L is lambda I + n / (n + B) times the mean over the n labelled
    items, and a candidate's information counts B / (n + B), as in the authors' code. Expectations over classes are
    taken under the head's own predictions.

    variant:
    `binary` (Huseljic et al., section 4.2): the head seen as predicting "the first class or not". Both gradients are
      multiples of phi, so an item's information is the rank-one q phi phi^T, q = p1 (1 - p1), of size D.
    `full`: all classes, x_c = sqrt(p_c) (e_c - p) (outer) phi, information of rank C - 1 and size C D.
    `top_k` (section 4.1): x_c of the `k` likeliest classes of each item only: lower rank, same size. Both need three
      matrices of (C D)^2 float64 numbers and refuse above `max_bytes`.
    `diagonal`: the diagonal of the full information; size C D, no matrix.

    ridge: the paper's lambda as a share of the pool's mean |phi|^2, so that the scale of the embeddings does not
    matter. Its authors use 1 on unscaled features whose squared length is in the hundreds; a large ridge hides which
    directions the labels have covered.

    certainty: logits are scaled up, never down, until the mean p1 of the labelled items is at least this (0: as they
    are). The paper's networks are fitted without a penalty and are certain of their training items; a regularised head
    is not, and from its flat probabilities every item looks equally informative. Both defaults were chosen on real
    caches: benchmarks/notes/strategies.md.

    `binary` never updates a D x D matrix per pick: gain = a / e, e = 1 / w + b, w = q B / (n + B), a = phi^T M^-1 F
    M^-1 phi, b = phi^T M^-1 phi; a pick with u = M^-1 phi and g = 2 M^-1 F M^-1 phi - gain u changes e by
    -(phi.u)^2 / e_pick and a by -(phi.u)(phi.g) / e_pick. Picks are made ahead among the best few hundred items and
    verified in one pass for several; the sequence is that of the plain greedy.
    Cost: O(N D^2 + B N D); memory O(N + D^2).
    `full`: N (C D)^2 products, N C^2 (D + C) per pick. `diagonal`: N C D operations, then only the items whose gain may
    still be the largest.
    """

    needs = ("embedding", "probabilities", "labels")
    variant: Literal["binary", "full", "top_k", "diagonal"] = "binary"
    ridge: Annotated[float, Ge(1e-8), Le(1e6)] = 1e-4
    certainty: Annotated[float, Ge(0), Le(0.999)] = 0.95
    k: Count = 2
    max_bytes: Bytes = 2 << 30

    def select(self, query: Query, budget: int) -> Tensor:
        head = query.head
        assert head is not None
        if self.variant in ("full", "top_k"):
            refuse_if_too_large(query, self.variant, self.max_bytes)
        if self.variant == "binary" and head.shared:
            picks = self._binary(query, range(query.R), budget)
        elif self.variant == "binary":
            picks = per_replicate(query, lambda r: self._binary(query, [r], budget)[0])
        else:
            picks = per_replicate(query, lambda r: self._picks(query, r, budget))
        return stack_picks(picks, budget, query.pool.device)

    def _binary(self, query: Query, replicates: Sequence[int], budget: int) -> list[Tensor]:
        """Picks of replicates whose heads see the same phi: passes over it are shared between the cores by blocks."""
        phi, device = embedding(query, replicates[0]), query.pool.device
        rows = [query.labelled(r) for r in replicates]
        shares = [self._share(n, budget) for n in rows]
        ridge = self._ridge(phi)
        weights = side_by_side([partial(self._information, query, phi, r) for r in replicates], device)
        moments = second_moments(phi, weights)
        given = zip(moments, rows, shares, strict=True)
        problems = side_by_side([partial(Binary, phi, q, F, n, ridge, share) for (q, F), n, share in given], device)
        quadratic_forms(phi, problems)
        pairs = zip(replicates, problems, strict=True)
        return side_by_side([partial(self._solved, query, r, problem, budget) for r, problem in pairs], device)

    def _picks(self, query: Query, r: int, budget: int) -> Tensor:
        head, phi, labelled = query.head, embedding(query, r), query.labelled(r)
        assert head is not None
        ridge, share, sharper = self._ridge(phi), self._share(labelled, budget), self._sharper(query, phi, r)
        own = head.part(slice(r, r + 1))
        log_p = walk(phi, own, lambda seen: torch.log_softmax(seen.logits * sharper, -1), size=piece(phi))[0]
        if self.variant == "diagonal":
            return self._solved(query, r, Diagonal(phi, log_p, labelled, ridge, share), budget)
        k = head.C if self.variant == "full" else min(self.k, head.C)
        return self._solved(query, r, Full(phi, log_p, k, labelled, ridge, share), budget)

    def _solved(self, query: Query, r: int, problem: Binary | Diagonal | Full, budget: int) -> Tensor:
        free = query.available[r]
        order = problem.forward(free, min(2 * budget, int(free.sum())))
        return order[problem.keep(order, budget)]

    def _share(self, labelled: Tensor, budget: int) -> float:
        return budget / (len(labelled) + budget)

    def _ridge(self, phi: Vectors) -> float:
        length = float(phi.sq_norms.double().mean())
        return self.ridge * (length if length > 0 else 1.0)

    def _sharper(self, query: Query, phi: Vectors, r: int) -> float:
        assert query.head is not None
        rows = query.labelled(r)
        return sharpening(query.head.at(rows, phi.rows(rows), r), self.certainty)

    def _information(self, query: Query, phi: Vectors, r: int) -> Callable[[slice, Tensor], Tensor]:
        """Pool rows and their phi (b, D) -> q (b,) of replicate r."""
        head, sharper = query.head, self._sharper(query, phi, r)
        assert head is not None
        return lambda rows, x: binary_information(head.at(rows, x, r) * sharper)


def sharpening(logits: Tensor, certainty: float, largest: float = 100.0) -> float:
    """The least factor >= 1 by which logits (n, C) are scaled for a mean p1 of `certainty`, at most `largest`.

    The mean p1 grows with the factor, so 24 bisections of its logarithm find it to a millionth.
    """
    z = logits.double().cpu()  # a few labelled rows: one transfer instead of one per step

    def confident(factor: float) -> bool:
        return float(torch.softmax(z * factor, 1).amax(1).mean()) >= certainty

    low, high = 1.0, largest
    if confident(low) or not confident(high):
        return low if confident(low) else high
    for _ in range(24):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if confident(middle) else (middle, high)
    return high
