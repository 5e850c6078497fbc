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

from alfm.geometry.top import top
from alfm.options import Bytes, Count, checked
from alfm.pool import Vectors, batched
from alfm.strategies.base import Query, Strategy, stack_picks
from alfm.strategies.embedding import embedding, per_replicate
from alfm.strategies.fisher import Diagonal, Full, prune, refuse_if_too_large
from alfm.threads import side_by_side

FRONT = 768  # items among which picks are made ahead
CHUNK = 20  # picks made ahead between two passes over everything
PIECE = 1 << 18  # numbers of the features that a pass visits together on CPU: 1 MB, so that they stay in the caches


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
    matter. Its authors use 1 on unscaled features whose squared length is in the hundreds. On three real caches (five
    seeds, five rounds of one label per class) mean accuracy rose from 1 to 1e-4 by 15 to 23 points and was flat from
    3e-4 to 1e-5: a large ridge hides which directions the labels have covered.

    certainty: logits are scaled up, never down, until the mean p1 of the labelled items is at least this (0: as they
    are). The paper's networks are fitted without a penalty and are certain of their training items; a regularised head
    is not, and from its flat probabilities every item looks equally informative. On four real caches (five seeds,
    default head) 0.95 raised the area under the accuracy curve by 2.6, 2.0 and 2.1 points and left it as it was on
    the fourth (CIFAR-10). 0.97 and 0.99 are within 0.3 points of it on the three; 0.8 is 1.5 to 1.7 below on two, 0.99
    a point below on CIFAR-10.

    `binary` never updates a D x D matrix per pick: gain = a / e, e = 1 / w + b, w = q B / (n + B), a = phi^T M^-1 F
    M^-1 phi, b = phi^T M^-1 phi; a pick with u = M^-1 phi and g = 2 M^-1 F M^-1 phi - gain u changes e by
    -(phi.u)^2 / e_pick and a by -(phi.u)(phi.g) / e_pick. Picks are made ahead among the best few hundred items and
    verified in one pass for several; the sequence is that of the plain greedy. Cost: 2 or 3 passes of N D^2 / 2
    products, about B / 8 passes of 40 N D; 28 N + 24 D^2 bytes per replicate and 200 N per core (4 N D more where
    heads see phi of their own). `full`: N (C D)^2 products, N C^2 (D + C) per pick. `diagonal`: N C D operations,
    then only the items whose gain may still be the largest.
    """

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
        log_p = torch.cat([torch.log_softmax(head.logits(x, r) * sharper, 1) for _, x in phi.blocks(piece(phi))])
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
        return sharpening(query.head.logits(phi.rows(query.labelled(r)), r), self.certainty)

    def _information(self, query: Query, phi: Vectors, r: int) -> Callable[[Tensor], Tensor]:
        """phi (b, D) -> q (b,) of replicate r."""
        head, sharper = query.head, self._sharper(query, phi, r)
        assert head is not None
        return lambda x: binary_information(head.logits(x, r) * sharper)


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


def binary_information(logits: Tensor) -> Tensor:
    """q = p1 (1 - p1), logits (b, C) -> (b,); 1 - p1 is summed over the others, exact for certain items."""
    p = torch.softmax(logits, 1)
    rest = p.scatter(1, p.argmax(1, keepdim=True), 0.0).sum(1)
    return (1 - rest) * rest


class Binary:
    """The rank-one problem of one replicate: M0^-1 and M0^-1 F M0^-1 (D, D) float64, and numbers of every item.

    With phi^T M^-1 phi = b, phi^T M^-1 F M^-1 phi = a and e = 1 / w + b (infinite for w = 0), an item's gain is a / e.
    A pick with u = M^-1 phi / sqrt(e) and g = (2 M^-1 F M^-1 phi - gain M^-1 phi) / sqrt(e) changes M^-1 by -u u^T and
    2 M^-1 F M^-1 by -(u g^T + g u^T), so e of an item by -(phi.u)^2 and its a by -(phi.u)(phi.g).
    """

    def __init__(self, phi: Vectors, q: Tensor, F: Tensor, labelled: Tensor, ridge: float, share: float) -> None:
        """q (N,); F (D, D) float64: the sum of q phi phi^T; a and b are still to be found by `quadratic_forms`."""
        self.phi, self.ridge = phi, ridge
        self.w = q.double() * share
        self.a, self.e = torch.empty_like(self.w), self.w.reciprocal()
        L = phi.rows(labelled).double() * (q[labelled].double() * ((1 - share) / len(labelled))).sqrt()[:, None]
        n, D = L.shape
        self.narrow: Tensor | None = None
        if 2 * n < D:  # M0^-1 = (I - E^T E) / ridge, by Woodbury
            G = L @ L.T
            G.diagonal().add_(ridge)
            E = torch.linalg.solve_triangular(torch.linalg.cholesky(G), L, upper=False)
            self.narrow = E.T.to(phi.pool.dtype)
            self.inverse = torch.eye(D, dtype=L.dtype, device=L.device).addmm_(E.T, E, alpha=-1).div_(ridge)
            EF = E @ F
            half = E.T @ EF.addmm(EF @ E.T, E, alpha=-0.5)
            self.middle = (F - half).sub_(half.T).div_(ridge**2 * phi.N)  # (I - E^T E) F (I - E^T E)
        else:
            M = L.T @ L
            M.diagonal().add_(ridge)
            self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(M))
            self.middle = (self.inverse @ F @ self.inverse).div_(phi.N)

    def forward(self, free: Tensor, count: int) -> Tensor:
        """`count` items in the order of greedy gain, ties to the lower row; int64 (count,)."""
        phi, D = self.phi, len(self.inverse)
        out = self.a.new_tensor([[1e300], [-torch.inf]])  # e and a of an item that is out; infinite e would make NaN
        state = torch.stack([self.e, self.a]).where(free, out)
        matrices = torch.cat([self.inverse, 2 * self.middle])
        picks = torch.empty(count, dtype=torch.int64, device=free.device)
        done = 0
        while done < count:
            hot = top(state[1] / state[0], state[1] > -torch.inf, FRONT).sort().values
            m = min(CHUNK, count - done, len(hot))
            front = phi.rows(hot)
            places, gain, UG = ahead(matrices.to(front.dtype), front, state.index_select(1, hot), out, m)
            picks[done : done + m] = hot[places]
            # Replay on all items: a pick stands if no item outside the front had a larger gain then.
            largest, products = self._replayed(state.index_copy(1, hot, out.expand(-1, len(hot))), UG)
            good = int(torch.cumprod((largest <= gain).to(torch.uint8), 0).sum())
            new = picks[done : done + good]
            done += good
            if done < count:
                for rows, product in products:
                    state[:, rows] -= product[:good].sum(0, dtype=state.dtype)
                state.index_copy_(1, new, out.expand(-1, good))
                u, g = UG[:good].to(matrices.dtype).unbind(1)
                matrices[:D].addmm_(u.T, u, alpha=-1)
                matrices[D:].addmm_(u.T, g, alpha=-1).addmm_(g.T, u, alpha=-1)
        return picks

    def _replayed(self, state: Tensor, UG: Tensor) -> tuple[Tensor, list[tuple[slice, Tensor]]]:
        """The largest gain just before each of m picks, (m,) float64, and what each subtracts from e and a.

        The latter by blocks, (rows, (m, 2, b)). state: e and a (2, N) before the first; UG (m, 2, D).
        """
        m = len(UG)
        before = torch.ones(m, m, dtype=UG.dtype, device=UG.device).tril_(-1)
        best, products = [], []
        for rows, x in self.phi.blocks(piece(self.phi)):
            product = (UG.flatten(0, 1) @ x.T).view(m, 2, -1)
            product = product * product[:, :1]
            then = state[:, rows] - (before @ product.flatten(1)).view_as(product)
            best.append((then[:, 1] / then[:, 0]).amax(1))
            products.append((rows, product))
        return torch.stack(best).amax(0), products

    def keep(self, picks: Tensor, budget: int) -> Tensor:
        """Places (budget,) among the picks (m,) that stay after backward pruning, ascending."""
        V = self.phi.rows(picks).double() * self.w[picks].sqrt()[:, None]
        return prune(V @ self.inverse @ V.T, V @ self.middle @ V.T, 1, budget)


def ahead(matrices: Tensor, x: Tensor, state: Tensor, out: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Greedy picks among a few items, without a wait for the device.

    matrices (2 D, D): M^-1 above 2 M^-1 F M^-1; x (n, D); state (2, n) float64: e and a, overwritten; out (2, 1): those
    of an item that is out. Returns which of the n, int64 (count,); gains float64 (count,); u and g (count, 2, D).
    """
    D = x.shape[1]
    every = torch.cat([matrices, x.new_empty(2 * count, D)])  # one product with all of them
    UG = every[2 * D :].view(count, 2, D)
    places = torch.empty(count, dtype=torch.int64, device=x.device)
    gain = state.new_empty(count)
    for t in range(count):
        gains, place = state[1] / state[0], places[t : t + 1]
        torch.argmax(gains, 0, keepdim=True, out=place)
        torch.index_select(gains, 0, place, out=gain[t : t + 1])
        found = torch.mv(every[: 2 * D + 2 * t], x.index_select(0, place)[0])
        u, g = found[:D], found[D : 2 * D]
        if t:
            U, G = UG[:t].unbind(1)
            xu, xg = found[2 * D :].view(t, 2).unbind(1)
            u.addmv_(U.T, xu, alpha=-1)
            g.addmv_(G.T, xu, alpha=-1).addmv_(U.T, xg, alpha=-1)
        g.addcmul_(u, gain[t], value=-1)
        torch.mul(found[: 2 * D].view(2, D), state[0].index_select(0, place).rsqrt_()[0], out=UG[t])
        product = UG[t] @ x.T
        state.sub_(product * product[0]).index_copy_(1, place, out)
    return places, gain, UG


# -- pool passes of N D^2, at 10/16 of their products since the matrices are symmetric -------------------------------


def _columns(D: int) -> list[slice]:
    size = max(16, -(-D // 4))
    return [slice(start, min(start + size, D)) for start in range(0, D, size)]


def piece(phi: Vectors) -> int | None:
    """Items that a pass visits together; None: the pool's own blocks."""
    return max(256, PIECE // phi.pool.D) if phi.device.type == "cpu" else None


def second_moments(phi: Vectors, weights: Sequence[Callable[[Tensor], Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """For each weight, phi (b, D) -> (b,): its values (N,), and sum_i weight_i phi_i phi_i^T, (D, D) float64.

    Sums over a block of the pool are in the pool's dtype.
    """
    D, dtype, device = phi.dim, phi.pool.dtype, phi.device
    values = [torch.empty(phi.N, dtype=dtype, device=device) for _ in weights]
    sums = [torch.zeros(D, D, dtype=torch.float64, device=device) for _ in weights]

    def block_sum(rows: slice, x: Tensor, r: int) -> Tensor:
        pieces = max(1, round(len(x) / (piece(phi) or len(x))))
        out, at = x.new_zeros(D, D), rows.start
        y = x.new_empty(-(-len(x) // pieces), D)
        for part in x.tensor_split(pieces):
            w = values[r][at : at + len(part)].copy_(weights[r](part))
            at += len(part)
            scaled = torch.mul(part, w[:, None], out=y[: len(part)])
            for J in _columns(D):
                out[: J.stop, J].addmm_(part[:, : J.stop].T, scaled[:, J])
        return out

    for blocks in batched(phi.blocks(), 4 if device.type == "cpu" else 1):
        jobs = [partial(block_sum, rows, x, r) for rows, x in blocks for r in range(len(weights))]
        for i, part in enumerate(side_by_side(jobs, device)):
            sums[i % len(weights)] += part
    return [(value, total.triu() + total.triu(1).T) for value, total in zip(values, sums, strict=True)]


def quadratic_forms(phi: Vectors, problems: Sequence[Binary]) -> None:
    """a of every item, and b added to its e, in all problems."""
    parts = [
        (upper(p.middle, phi.pool.dtype), p.narrow if p.narrow is not None else upper(p.inverse, phi.pool.dtype))
        for p in problems
    ]

    def visit(rows: slice, x: Tensor) -> None:
        room = torch.empty_like(x)
        for problem, (middle, inverse) in zip(problems, parts, strict=True):
            problem.a[rows] = quadratic_form(x, middle, room)
            if isinstance(inverse, Tensor):
                inside = torch.mm(x, inverse, out=room.view(-1)[: len(x) * inverse.shape[1]].view(len(x), -1))
                inside = torch.linalg.vecdot(inside, inside)
                problem.e[rows] += (phi.sq_norms[rows].double() - inside) / problem.ridge
            else:
                problem.e[rows] += quadratic_form(x, inverse, room)

    for blocks in batched(phi.blocks(piece(phi)), 16 if phi.device.type == "cpu" else 1):
        side_by_side([partial(visit, rows, x) for rows, x in blocks], phi.device)


def upper(A: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Columns of a symmetric matrix (D, D) down to the diagonal's blocks; what lies above them counts twice."""
    A = A.to(dtype)
    return [torch.cat([2 * A[: J.start, J], A[J, J]]) for J in _columns(len(A))]


def quadratic_form(x: Tensor, parts: Sequence[Tensor], room: Tensor) -> Tensor:
    """x_i^T A x_i for x (b, D), A by its `upper` parts: (b,); overwrites room (b, D)."""
    for J, part in zip(_columns(x.shape[1]), parts, strict=True):
        torch.mm(x[:, : J.stop], part, out=room[:, J])
    return torch.linalg.vecdot(room, x)
