"""BAIT: Ash, Goel, Krishnamurthy & Kakade 2021, "Gone fishing: neural active learning with Fisher embeddings"
(2106.09675); its fast forms: Huseljic et al. 2024, "Fast fishing" (2404.08981)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alfm import devices
from alfm.features.features import Vectors
from alfm.geometry import greedy
from alfm.heads.passes import Seen, together, walk
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
        if self.variant == "binary" and head.shared:
            picks = self._binary(query, range(query.R), budget)
        elif self.variant == "binary":
            picks = per_replicate(query, lambda r: self._binary(query, [r], budget)[0])
        else:
            picks = self._class_wise(query, budget)
        return stack_picks(picks, budget, query.pool.device)

    def _binary(self, query: Query, replicates: Sequence[int], budget: int) -> list[Tensor]:
        """Picks of replicates whose heads see the same phi: passes over it are shared between the cores by blocks, on a
        GPU by products of all."""
        phi, device, head = embedding(query, replicates[0]), query.pool.device, query.head
        assert head is not None
        ridge, first = self._ridge(phi), replicates[0]
        sharper = self._sharper(query, phi, replicates)
        shares = self._shares(query, replicates, budget)
        enqueued, numbers = greedy.enqueued(phi), phi.dim * (phi.dim + phi.N)
        size = devices.of(device).at_once(len(replicates), numbers, 1) if enqueued else 1
        groups = together(len(replicates), size)
        heads = {which.start: head.part(slice(first + which.start, first + which.stop)) for which in groups}

        def weigh(rows: slice, x: Tensor, which: slice) -> Tensor:
            return binary_information(heads[which.start].at(rows, x) * sharper[which].to(x.dtype)[:, None, None])

        q, F = second_moments(phi, weigh, groups)

        def posed(which: slice) -> Binary:
            own = [query.labelled(first + r) for r in range(which.start, which.stop)]
            labelled = pad_sequence(own, batch_first=True, padding_value=-1)
            return Binary(phi, q[which], F[which], labelled, ridge, shares[which], enqueued)

        problems = side_by_side([partial(posed, which) for which in groups], device)
        quadratic_forms(phi, problems)
        pairs = zip(groups, problems, strict=True)
        solved = side_by_side(
            [partial(self._solved, query, range(first + g.start, first + g.stop), one, budget) for g, one in pairs],
            device,
        )
        return [own for some in solved for own in some]

    def _solved(self, query: Query, replicates: Sequence[int], problem: Binary, budget: int) -> list[Tensor]:
        free = query.some(query.available, replicates)
        wanted = [min(2 * budget, n) for n in free.sum(1).tolist()]
        order, picks = problem.forward(free, wanted), dict[int, Tensor]()
        for count in set(wanted):
            which = [i for i, n in enumerate(wanted) if n == count]
            own = order[:, :count] if len(which) == len(wanted) else order[which, :count]
            picks |= zip(which, own.gather(1, problem.part(which).keep(own, budget)), strict=True)
        return [picks[i] for i in range(len(wanted))]

    def _class_wise(self, query: Query, budget: int) -> list[Tensor]:
        """Picks of the other forms: on a GPU of all replicates whose heads see the same phi, if they have as many."""
        head, numbers, most = query.head, query.pool.N, query.R
        assert head is not None
        numbers *= head.C
        if self.variant != "diagonal":
            most = refuse_if_too_large(query, self.variant, self.max_bytes)
            numbers = 2 * (numbers + (head.C * query.pool.vectors(head.spaces[0]).dim) ** 2)
        wanted = [min(2 * budget, n) for n in query.available.sum(1).tolist()]
        size = min(most, devices.of(query.pool.device).at_once(query.R, numbers, 1))
        groups = together(query.R, size if head.shared and len(set(wanted)) == 1 else 1)

        def picked(which: slice) -> Tensor:
            phi, replicates = embedding(query, which.start), range(query.R)[which]
            labelled = pad_sequence([query.labelled(r) for r in replicates], batch_first=True, padding_value=-1)
            ridge, share = self._ridge(phi), self._shares(query, replicates, budget)
            sharper = self._sharper(query, phi, replicates).to(query.pool.dtype)[:, None, None]

            def logits(seen: Seen) -> Tensor:
                return torch.log_softmax(seen.logits * sharper[seen.replicates], -1)

            log_p = walk(phi, head.part(which), logits, size=piece(phi))
            problem: Diagonal | Full
            if self.variant == "diagonal":
                problem = Diagonal(phi, log_p, labelled, ridge, share)
            else:
                k = head.C if self.variant == "full" else min(self.k, head.C)
                problem = Full(phi, log_p, k, labelled, ridge, share)
            order = problem.forward(query.available[which], wanted[which.start])
            return order.gather(1, problem.keep(order, budget))

        if head.shared:
            query.pool.vectors(head.spaces[0])  # made once, before the jobs that share it
        found = side_by_side([partial(picked, which) for which in groups], query.pool.device)
        return [own for some in found for own in some]

    def _shares(self, query: Query, replicates: Sequence[int], budget: int) -> Tensor:
        """B / (n + B), (R', 1) float64."""
        shares = [budget / (query.counts[r] + budget) for r in replicates]
        return torch.tensor(shares, dtype=torch.float64, device=query.pool.device)[:, None]

    def _ridge(self, phi: Vectors) -> float:
        length = float(phi.sq_norms.double().mean())
        return self.ridge * (length if length > 0 else 1.0)

    def _sharper(self, query: Query, phi: Vectors, replicates: Sequence[int]) -> Tensor:
        """How many times sharper logits are of each replicate, (R',) float64."""
        head = query.head
        assert head is not None
        own = [query.labelled(r) for r in replicates]
        pairs = zip(own, replicates, strict=True)
        logits = torch.cat([head.at(rows, phi.rows(rows, plain=True), r) for rows, r in pairs]).double().cpu()
        found = [sharpening(z, self.certainty) for z in logits.split([len(rows) for rows in own])]
        return torch.tensor(found, dtype=torch.float64, device=query.pool.device)


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
