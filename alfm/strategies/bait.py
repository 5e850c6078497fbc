"""BAIT: Ash, Goel, Krishnamurthy & Kakade 2021, "Gone fishing: neural active learning with Fisher embeddings"
(2106.09675); its fast forms: Huseljic et al. 2024, "Fast fishing" (2404.08981)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alfm.geometry.top import top
from alfm.pool import Vectors
from alfm.strategies.base import Query, Strategy, stack_picks
from alfm.strategies.embedding import embedding, per_replicate
from alfm.strategies.fisher import Diagonal, Full, prune, refuse_if_too_large

FRONT = 768  # items among which picks are made ahead
CHUNK = 20  # picks made ahead between two passes over everything
PIECE = 1 << 18  # numbers of the features that a pass visits together on CPU: 1 MB, so that they stay in the caches


@dataclass(eq=False)
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

    `binary` never updates a D x D matrix per pick: gain = w a / (1 + w b), w = q B / (n + B), a = phi^T M^-1 F M^-1
    phi, b = phi^T M^-1 phi; a pick with u = M^-1 phi, g = M^-1 F M^-1 phi changes b by -k (phi.u)^2 and a by
    -2 k (phi.u)(phi.g) + k^2 a_pick (phi.u)^2, k = w / (1 + w b_pick). Picks are made ahead among the best
    few hundred items and verified in one pass for several; the sequence is that of the plain greedy. Cost: 2 or 3
    passes of N D^2 / 2 products, about B / 8 passes of 40 N D; 4 N D + 40 N + 24 D^2 bytes for one replicate
    per core. `full`: N (C D)^2 products, N C^2 (D + C) per pick. `diagonal`: N C D operations, then only the items
    whose gain may still be the largest.
    """

    limits = {"certainty": (0.0, 0.999)}

    variant: Literal["binary", "full", "top_k", "diagonal"] = "binary"
    ridge: float = 1e-4
    certainty: float = 0.95
    k: int = 2
    max_bytes: int = 2 << 30

    def select(self, query: Query, budget: int) -> Tensor:
        if self.variant in ("full", "top_k"):
            refuse_if_too_large(query, self.variant, self.max_bytes)
        picks = per_replicate(query, lambda r: self._picks(query, r, budget))
        return stack_picks(picks, budget, query.pool.device)

    def _picks(self, query: Query, r: int, budget: int) -> Tensor:
        head, phi, labelled, free = query.head, embedding(query, r), query.labelled(r), query.available[r]
        assert head is not None
        n = len(labelled)
        share = budget / (n + budget)
        length = float(phi.sq_norms.double().mean())
        ridge = self.ridge * (length if length > 0 else 1.0)
        forward = min(2 * budget, int(free.sum()))
        sharper = sharpening(head.logits(phi.rows(labelled), r), self.certainty)
        if self.variant == "binary":
            q = torch.cat([binary_information(head.logits(x, r) * sharper) for _, x in phi.blocks(piece(phi))])
            problem = Binary(phi, q, labelled, ridge, share)
        else:
            log_p = torch.cat([torch.log_softmax(head.logits(x, r) * sharper, 1) for _, x in phi.blocks(piece(phi))])
            if self.variant == "diagonal":
                problem = Diagonal(phi, log_p, labelled, ridge, share)
            else:
                k = head.C if self.variant == "full" else min(self.k, head.C)
                problem = Full(phi, log_p, k, labelled, ridge, share)
        order = problem.forward(free, forward)
        return order[problem.keep(order, budget)]


def sharpening(logits: Tensor, certainty: float, largest: float = 100.0) -> float:
    """The least factor >= 1 by which logits (n, C) are scaled for a mean p1 of `certainty`, at most `largest`.

    The mean p1 grows with the factor, so 40 bisections of its logarithm find it to a millionth.
    """
    z = logits.double().cpu()  # a few labelled rows: one transfer instead of one per step

    def confident(factor: float) -> bool:
        return float(torch.softmax(z * factor, 1).amax(1).mean()) >= certainty

    low, high = 1.0, largest
    if confident(low) or not confident(high):
        return low if confident(low) else high
    for _ in range(40):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if confident(middle) else (middle, high)
    return high


def binary_information(logits: Tensor) -> Tensor:
    """q = p1 (1 - p1), logits (b, C) -> (b,); 1 - p1 is summed over the others, exact for certain items."""
    p = torch.softmax(logits, 1)
    rest = p.scatter(1, p.argmax(1, keepdim=True), 0.0).sum(1)
    return (1 - rest) * rest


class Binary:
    """The rank-one problem of one replicate: M0 and F (D, D) float64, and a and b of every item.

    Below, phi stands for sqrt(w) phi wherever it meets M^-1: then gain = a / c with c = 1 + b, and a pick with u, g and
    k = 1 / c changes a by k (phi.u) (gain phi.u - 2 phi.g) and c by -k (phi.u)^2.
    """

    def __init__(self, phi: Vectors, q: Tensor, labelled: Tensor, ridge: float, share: float) -> None:
        self.phi = phi
        self.scale = (q.double() * share).sqrt()
        F = second_moment(phi, q) / phi.N
        L = phi.rows(labelled).double() * (q[labelled].double() * ((1 - share) / len(labelled))).sqrt()[:, None]
        n, D = L.shape
        if 2 * n < D:  # M0^-1 = (I - E^T E) / ridge, by Woodbury
            G = L @ L.T
            G.diagonal().add_(ridge)
            E = torch.linalg.solve_triangular(torch.linalg.cholesky(G), L, upper=False)
            self.inverse = torch.eye(D, dtype=L.dtype, device=L.device).addmm_(E.T, E, alpha=-1).div_(ridge)
            narrow = E.T.to(phi.pool.dtype)
            inside = torch.cat([(x @ narrow).square_().sum(1) for _, x in phi.blocks(piece(phi))])
            b = (phi.sq_norms.double() - inside) / ridge
        else:
            M = L.T @ L
            M.diagonal().add_(ridge)
            self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(M))  # M0^-1
            b = quadratic_form(phi, self.inverse)
        self.middle = self.inverse @ F @ self.inverse  # M0^-1 F M0^-1
        w = self.scale.square()
        self.a, self.c = w * quadratic_form(phi, self.middle), 1 + w * b

    def forward(self, free: Tensor, count: int) -> Tensor:
        """`count` items in the order of greedy gain, ties to the lower row; int64 (count,)."""
        a, c, free = torch.where(free, self.a, -torch.inf), self.c, free.clone()
        picks = torch.empty(count, dtype=torch.int64, device=free.device)
        ahead = Ahead(self.inverse, self.middle, count, self.phi.pool.dtype)
        done = 0
        while done < count:
            hot = top(a / c, free, FRONT).sort().values
            new = slice(done, done + min(CHUNK, count - done, len(hot)))
            front = self.phi.rows(hot) * self.scale[hot, None].to(self.phi.pool.dtype)
            picks[new] = hot[ahead.picks(front, a[hot], c[hot], new)]
            # Replay on all items: a pick stands if no item outside the front had a larger gain then.
            UG = ahead.UG[new].transpose(0, 1).flatten(0, 1)
            products = [(rows, UG @ x.T) for rows, x in self.phi.blocks(piece(self.phi))]
            outside = a.index_fill(0, hot, -torch.inf)
            stands = self._largest(outside, c, products, ahead.k[new, None], ahead.gain[new, None]) <= ahead.gain[new]
            good = int(torch.cumprod(stands.to(torch.uint8), 0).sum())
            now = slice(done, done + good)
            done += good
            if done < count:
                a, c = self._after(a, c, products, ahead.k[now, None], ahead.gain[now, None])
                a.index_fill_(0, picks[now], -torch.inf)
                free.index_fill_(0, picks[now], False)
        return picks

    def _largest(self, a: Tensor, c: Tensor, products: Products, k: Tensor, gain: Tensor) -> Tensor:
        """The largest gain just before each of m picks, (m,) float64; a is -Inf for items that do not count."""
        before = torch.ones(len(k), len(k), dtype=a.dtype, device=a.device).tril_(-1)
        best = []
        for rows, product in products:
            da, dc = changes(product.double() * self.scale[rows], k, gain)
            then = torch.addmm(a[rows], before, da)
            best.append(then.div_(torch.addmm(c[rows], before, dc)).amax(1))
        return torch.stack(best).amax(0)

    def _after(self, a: Tensor, c: Tensor, products: Products, k: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """a and c of all items after the first m picks."""
        parts = []
        for rows, product in products:
            both = product.view(2, -1, product.shape[1])[:, : len(k)].double() * self.scale[rows]
            da, dc = changes(both.flatten(0, 1), k, gain)
            parts.append((a[rows] + da.sum(0), c[rows] + dc.sum(0)))
        a, c = (torch.cat(part) for part in zip(*parts, strict=True))
        return a, c

    def keep(self, picks: Tensor, budget: int) -> Tensor:
        """Places (budget,) among the picks (m,) that stay after backward pruning, ascending."""
        V = self.phi.rows(picks).double() * self.scale[picks, None]
        return prune(V @ self.inverse @ V.T, V @ self.middle @ V.T, 1, budget)


Products = list[tuple[slice, Tensor]]
"""Blocks (rows, (2 m, b)): phi.u of m picks, then their phi.g."""


class Ahead:
    """Greedy picks among a few items, and what every pick so far did to M^-1 and M^-1 F M^-1 (D, D).

    At the time of pick t: its `gain` and k (count,) float64, and u = M^-1 phi, g = M^-1 F M^-1 phi, UG[t] (2, D) in
    the pool's dtype. Picks beyond those that stood are written again.
    """

    def __init__(self, inverse: Tensor, middle: Tensor, count: int, dtype: torch.dtype) -> None:
        self.matrices = torch.cat([inverse, middle]).to(dtype)
        self.UG = self.matrices.new_zeros(count, 2, len(inverse))
        self.gain, self.k = inverse.new_zeros(2, count)

    def picks(self, x: Tensor, a: Tensor, c: Tensor, new: slice) -> Tensor:
        """Picks `new` among m items x (m, D), scaled, with a, c (m,) float64: which of the m, int64.

        No wait for the device. M^-1 v and M^-1 F M^-1 v are those of M0 and what the picks so far changed.
        """
        a, c = a.clone(), c.clone()
        gain, k = self.gain.to(x.dtype), self.k.to(x.dtype)
        places = []
        for t in range(new.start, new.stop):
            every = a / c
            i = every.argmax(0, keepdim=True)
            places.append(i)
            now = slice(t, t + 1)
            torch.index_select(every, 0, i, out=self.gain[now])
            torch.reciprocal(c.index_select(0, i), out=self.k[now])
            gain[now], k[now] = self.gain[now], self.k[now]
            v = x.index_select(0, i)[0]
            u, g = torch.mv(self.matrices, v).view(2, -1)
            if t:
                U, G = self.UG[:t].unbind(1)
                ku, kg = (torch.mv(self.UG[:t].flatten(0, 1), v).view(t, 2) * k[:t, None]).unbind(1)
                u = torch.addmv(u, U.T, ku, alpha=-1)
                g = torch.addmv(g, G.T, ku, alpha=-1).addmv_(U.T, gain[:t] * ku - kg)
            self.UG[t, 0], self.UG[t, 1] = u, g
            da, dc = changes((self.UG[t] @ x.T).double(), self.k[now], self.gain[now])
            a.add_(da[0]).index_fill_(0, i, -torch.inf)
            c.add_(dc[0])
        return torch.cat(places)


def changes(products: Tensor, k: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """What m picks add to a and to c of items, each (m, b); products (2 m, b): phi.u of the picks, then phi.g."""
    pu, pg = products.chunk(2)
    ku = k * pu
    return torch.mul(gain, pu).sub_(pg, alpha=2).mul_(ku), ku.mul_(pu).neg_()


# -- pool passes of N D^2, at 10/16 of their products since the matrices are symmetric -------------------------------


def _columns(D: int) -> list[slice]:
    size = max(16, -(-D // 4))
    return [slice(start, min(start + size, D)) for start in range(0, D, size)]


def piece(phi: Vectors) -> int | None:
    """Items that a pass visits together; None: the pool's own blocks."""
    return max(256, PIECE // phi.pool.D) if phi.device.type == "cpu" else None


def second_moment(phi: Vectors, weight: Tensor) -> Tensor:
    """sum_i weight_i phi_i phi_i^T, (D, D) float64, blocks in the pool's dtype."""
    D = phi.dim
    out = torch.zeros(D, D, dtype=torch.float64, device=phi.device)
    for rows, x in phi.blocks():
        size = piece(phi) or len(x)
        block = x.new_zeros(D, D)
        for part, w in zip(x.split(size), weight[rows].split(size), strict=True):
            y = part * w[:, None]
            for J in _columns(D):
                block[: J.stop, J].addmm_(part[:, : J.stop].T, y[:, J])
        out += block
    return out.triu() + out.triu(1).T


def quadratic_form(phi: Vectors, A: Tensor) -> Tensor:
    """phi_i^T A phi_i for a symmetric matrix A (D, D) float64: (N,) float64."""
    A = A.to(phi.pool.dtype)
    # the part above the diagonal blocks counts twice
    parts = [(J, torch.cat([2 * A[: J.start, J], A[J, J]])) for J in _columns(phi.dim)]
    total = torch.zeros(phi.N, dtype=torch.float64, device=phi.device)
    for rows, x in phi.blocks(piece(phi)):
        for J, part in parts:
            total[rows] += torch.linalg.vecdot(x[:, : J.stop] @ part, x[:, J])
    return total
