"""BAIT where an item's Fisher information has rank one (Huseljic et al. 2024, arXiv 2404.08981)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from alfm.features.features import Vectors
from alfm.geometry.topk import top
from alfm.heads.passes import visit
from alfm.strategies.bait.class_wise import prune
from alfm.threads import each_of

FRONT = 768  # items among which picks are made ahead
CHUNK = 20  # picks made ahead between two passes over everything
PIECES = 8  # of a block of features, which a pass visits one by one: on CPU 1 MB, so that they stay in the caches


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


def piece(phi: Vectors) -> int:
    """Items that a pass visits together."""
    return max(256, phi.pool.block_numbers // PIECES // phi.pool.D)


def second_moments(phi: Vectors, weights: Sequence[Callable[[slice, Tensor], Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """For each weight, rows and phi (b, D) -> (b,): its values (N,), and sum_i weight_i phi_i phi_i^T, (D, D) float64.

    Sums over a block of the pool are in the pool's dtype.
    """
    D, dtype, device = phi.dim, phi.pool.dtype, phi.device
    values = [torch.empty(phi.N, dtype=dtype, device=device) for _ in weights]
    sums = [torch.zeros(D, D, dtype=torch.float64, device=device) for _ in weights]

    def block_sum(rows: slice, x: Tensor, r: int) -> Tensor:
        pieces = max(1, round(len(x) / piece(phi)))
        out, at = x.new_zeros(D, D), rows.start
        y = x.new_empty(-(-len(x) // pieces), D)
        for part in x.tensor_split(pieces):
            own = slice(at, at + len(part))
            w = values[r][own].copy_(weights[r](own, part))
            at = own.stop
            scaled = torch.mul(part, w[:, None], out=y[: len(part)])
            for J in _columns(D):
                out[: J.stop, J].addmm_(part[:, : J.stop].T, scaled[:, J])
        return out

    jobs = (partial(block_sum, rows, x, r) for rows, x in phi.blocks() for r in range(len(weights)))
    for i, (_, part) in enumerate(each_of(jobs, lambda job: job(), device, 4 * len(weights))):
        sums[i % len(weights)] += part
    return [(value, total.triu() + total.triu(1).T) for value, total in zip(values, sums, strict=True)]


def quadratic_forms(phi: Vectors, problems: Sequence[Binary]) -> None:
    """a of every item, and b added to its e, in all problems."""
    parts = [
        (upper(p.middle, phi.pool.dtype), p.narrow if p.narrow is not None else upper(p.inverse, phi.pool.dtype))
        for p in problems
    ]

    def forms(rows: slice, x: Tensor, which: slice) -> tuple[Tensor, Tensor]:
        a, b, room = [], [], torch.empty_like(x)
        for problem, (middle, inverse) in zip(problems, parts, strict=True):
            a.append(quadratic_form(x, middle, room).double())
            if isinstance(inverse, Tensor):
                inside = torch.mm(x, inverse, out=room.view(-1)[: len(x) * inverse.shape[1]].view(len(x), -1))
                inside = torch.linalg.vecdot(inside, inside)
                b.append((phi.sq_norms[rows].double() - inside) / problem.ridge)
            else:
                b.append(quadratic_form(x, inverse, room).double())
        return torch.stack(a), torch.stack(b)

    a, b = visit(phi.blocks(piece(phi)), [slice(0, len(problems))], forms, phi.N, phi.device)
    for problem, own, more in zip(problems, a, b, strict=True):
        problem.a = own
        problem.e += more


def upper(A: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Columns of a symmetric matrix (D, D) down to the diagonal's blocks; what lies above them counts twice."""
    A = A.to(dtype)
    return [torch.cat([2 * A[: J.start, J], A[J, J]]) for J in _columns(len(A))]


def quadratic_form(x: Tensor, parts: Sequence[Tensor], room: Tensor) -> Tensor:
    """x_i^T A x_i for x (b, D), A by its `upper` parts: (b,); overwrites room (b, D)."""
    for J, part in zip(_columns(x.shape[1]), parts, strict=True):
        torch.mm(x[:, : J.stop], part, out=room[:, J])
    return torch.linalg.vecdot(room, x)
