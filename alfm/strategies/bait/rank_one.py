"""BAIT where an item's Fisher information has rank one (Huseljic et al. 2024, arXiv 2404.08981)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial

import torch
from torch import Tensor

from alfm import devices
from alfm.features.features import Vectors
from alfm.geometry.topk import top
from alfm.heads.passes import visit
from alfm.heads.products import addmm_, addmv_, mm, mv
from alfm.strategies.bait.class_wise import prune
from alfm.threads import each_of

FRONT = 768  # items among which picks are made ahead
CHUNK = 20  # picks made ahead between two passes over everything
PIECES = 8  # of a block of features, which a pass visits one by one: on CPU 1 MB, so that they stay in the caches


def binary_information(logits: Tensor) -> Tensor:
    """q = p1 (1 - p1), logits (.., b, C) -> (.., b); 1 - p1 is summed over the others, exact for certain items."""
    p = torch.softmax(logits, -1)
    rest = p.scatter(-1, p.argmax(-1, keepdim=True), 0.0).sum(-1)
    return (1 - rest) * rest


class Binary:
    """The rank-one problems of R replicates that see the same phi: of each M0^-1 and M0^-1 F M0^-1, both (R, D, D)
    float64, and numbers of every item. R is 1 unless picks are enqueued.

    With phi^T M^-1 phi = b, phi^T M^-1 F M^-1 phi = a and e = 1 / w + b (infinite for w = 0), an item's gain is a / e.
    A pick with u = M^-1 phi / sqrt(e) and g = (2 M^-1 F M^-1 phi - gain M^-1 phi) / sqrt(e) changes M^-1 by -u u^T and
    2 M^-1 F M^-1 by -(u g^T + g u^T), so e of an item by -(phi.u)^2 and its a by -(phi.u)(phi.g).
    """

    def __init__(
        self, phi: Vectors, q: Tensor, F: Tensor, labelled: Tensor, ridge: float, share: Tensor, enqueued: bool = False
    ) -> None:
        """q (R, N); F (R, D, D) float64: the sum of q phi phi^T; labelled (R, n), padded with -1; share (R, 1) float64;
        a and b are still to be found by `quadratic_forms`. enqueued: picks are made by kernels alone, for any R."""
        self.phi, self.ridge, self.kernels_alone = phi, ridge, enqueued
        self.w = q.double() * share
        self.a, self.e = torch.empty_like(self.w), self.w.reciprocal()
        (R, n), D = labelled.shape, F.shape[2]
        rows, there = labelled.clamp_min(0), labelled >= 0
        weight = (q.gather(1, rows).double() * ((1 - share) / there.sum(1, keepdim=True))).sqrt()
        L = phi.rows(rows.flatten(), plain=True).double().view(R, n, D) * weight.where(there, 0)[..., None]
        self.narrow: Tensor | None = None
        if 2 * n < D:  # M0^-1 = (I - E^T E) / ridge, by Woodbury
            G = mm(L, L.mT)
            G.diagonal(dim1=1, dim2=2).add_(ridge)
            E = torch.linalg.solve_triangular(torch.linalg.cholesky(G), L, upper=False)
            self.narrow = E.mT.to(phi.pool.dtype)
            eye = torch.eye(D, dtype=L.dtype, device=L.device).repeat(R, 1, 1)
            self.inverse = addmm_(eye, E.mT, E, alpha=-1).div_(ridge)
            EF = mm(E, F)
            half = mm(E.mT, addmm_(EF, mm(EF, E.mT), E, alpha=-0.5))
            self.middle = (F - half).sub_(half.mT).div_(ridge**2 * phi.N)  # (I - E^T E) F (I - E^T E)
        else:
            M = mm(L.mT, L)
            M.diagonal(dim1=1, dim2=2).add_(ridge)
            self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(M))
            self.middle = mm(mm(self.inverse, F), self.inverse).div_(phi.N)

    def forward(self, free: Tensor, wanted: Sequence[int]) -> Tensor:
        """So many items of each replicate's free ones, bool (R, N), in the order of greedy gain, ties to the lower row:
        int64 (R, max(wanted)), of which the first wanted[r] count.

        Picks are made ahead among the best items, and stand if no other item had a larger gain then. On a GPU all that
        is one step of fixed shapes, and a graph: the host asks only how many stand, once in several steps.
        """
        phi, R, D = self.phi, len(free), self.inverse.shape[2]
        kernels_alone, width = self.kernels_alone, max(wanted)
        out = self.a.new_tensor([[1e300], [-torch.inf]])  # e and a of an item that is out; infinite e would make NaN
        state = torch.stack([self.e, self.a], 1).where(free[:, None], out)
        matrices = torch.cat([self.inverse, 2 * self.middle], 1)
        picks = free.new_zeros(R, width + 1, dtype=torch.int64)  # the last place is for what does not stand
        done, most = free.new_zeros(R, 1, dtype=torch.int64), torch.tensor(wanted, device=free.device)[:, None]
        left = width

        def step() -> None:
            hot = self._front(state[:, 1] / state[:, 0])
            m = min(CHUNK, left, hot.shape[1])
            front = phi.rows(hot.flatten(), plain=True).view(*hot.shape, D)
            every = hot[:, None].expand(-1, 2, -1)
            places, gain, UG = ahead(matrices.to(front.dtype), front, state.gather(2, every), out, m)
            UG = UG.where((gain > -torch.inf)[..., None, None], 0)  # there may be fewer items than that
            found = hot.gather(1, places)
            # Replay on all items: a pick stands if no item outside the front had a larger gain then.
            largest, products = self._replayed(state.scatter(2, every, out.expand_as(every)), UG)
            place = done + torch.arange(m, device=done.device)
            stands = (largest <= gain).to(torch.uint8).cumprod(1).bool() & (place < most)
            picks.scatter_(1, place.where(stands, width), found)
            done.add_(stands.sum(1, keepdim=True))
            good = m if kernels_alone else int(stands.sum())
            if good == left and not kernels_alone:
                return

            def standing(x: Tensor) -> Tensor:
                """Of numbers (R, m, 2, ..) of picks: those of picks that do not stand are left out, or 0."""
                return x.where(stands[..., None, None], 0) if kernels_alone else x[:, :good]

            for rows, product in products:
                state[..., rows] -= standing(product).sum(1, dtype=state.dtype)
            new = found[:, :good].where(stands[:, :good], found[:, :1])[:, None].expand(-1, 2, -1)  # the first stands
            state.scatter_(2, new, out.where(stands[:, :1, None], state.gather(2, new)))
            u, g = standing(UG).to(matrices.dtype).unbind(2)
            addmm_(matrices[:, :D], u.mT, u, alpha=-1)
            addmm_(addmm_(matrices[:, D:], u.mT, g, alpha=-1), g.mT, u, alpha=-1)

        run = devices.of(free).captured(step, [state, matrices, picks, done]) if left and kernels_alone else step
        while left:
            for _ in range(-(-left // CHUNK) if kernels_alone else 1):
                run()
            left = max(int(w - d) for w, d in zip(wanted, done.flatten().tolist(), strict=True))
        return picks[:, :width]

    def _front(self, gains: Tensor) -> Tensor:
        """The items of largest gain, ties to the lower row: (R, N) -> int64 (R, min(N, FRONT)), ascending.

        None that is out, unless picks are enqueued: then as many in any case.
        """
        if self.kernels_alone:
            return (-gains).sort(dim=1, stable=True).indices[:, :FRONT].sort(1).values
        return torch.stack([top(own, own > -torch.inf, FRONT) for own in gains]).sort(1).values

    def _replayed(self, state: Tensor, UG: Tensor) -> tuple[Tensor, list[tuple[slice, Tensor]]]:
        """The largest gain just before each of m picks, (R, m) float64, and what each subtracts from e and a.

        The latter by blocks, (rows, (R, m, 2, b)). state: e and a (R, 2, N) before the first; UG (R, m, 2, D).
        """
        R, m = UG.shape[:2]
        before = torch.ones(m, m, dtype=UG.dtype, device=UG.device).tril_(-1)
        best, products = [], []
        for rows, x in self.phi.blocks(piece(self.phi)):
            product = (UG.flatten(0, 2) @ x.T).view(R, m, 2, -1)
            product = product * product[:, :, :1]
            then = state[:, None, :, rows] - mm(before, product.flatten(2)).view_as(product)
            best.append((then[:, :, 1] / then[:, :, 0]).amax(2))
            products.append((rows, product))
        return torch.stack(best).amax(0), products

    def keep(self, picks: Tensor, budget: int) -> Tensor:
        """Places (R, budget) among the picks (R, m) that stay after backward pruning, ascending."""
        x = self.phi.rows(picks.flatten(), plain=True).double().view(*picks.shape, -1)
        V = x * self.w.gather(1, picks).sqrt()[..., None]
        return prune(mm(mm(V, self.inverse), V.mT), mm(mm(V, self.middle), V.mT), 1, budget)

    def part(self, replicates: Sequence[int]) -> Binary:
        """The problems of some of the replicates, ascending; themselves where these are all."""
        if len(replicates) == len(self.w):
            return self
        some, index = copy(self), torch.tensor(replicates, device=self.w.device)
        some.w, some.inverse, some.middle = (x.index_select(0, index) for x in (self.w, self.inverse, self.middle))
        return some


def ahead(matrices: Tensor, x: Tensor, state: Tensor, out: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Greedy picks among a few items of each of R replicates, without a wait for the device.

    matrices (R, 2 D, D): M^-1 above 2 M^-1 F M^-1; x (R, n, D); state (R, 2, n) float64: e and a, overwritten; out
    (2, 1): those of an item that is out. Returns which of the n, int64 (R, count); gains float64 (R, count); u and g
    (R, count, 2, D).
    """
    R, n, D = x.shape
    every = torch.cat([matrices, x.new_empty(R, 2 * count, D)], 1)  # one product with all of them
    UG = every[:, 2 * D :].view(R, count, 2, D)
    places = torch.empty(R, count, dtype=torch.int64, device=x.device)
    gain = state.new_empty(R, count)
    for t in range(count):
        gains, place = state[:, 1] / state[:, 0], places[:, t : t + 1]
        torch.argmax(gains, 1, keepdim=True, out=place)
        torch.gather(gains, 1, place, out=gain[:, t : t + 1])
        found = mv(every[:, : 2 * D + 2 * t], x.gather(1, place[..., None].expand(-1, 1, D))[:, 0])
        u, g = found[:, :D], found[:, D : 2 * D]
        if t:
            U, G = UG[:, :t].unbind(2)
            xu, xg = found[:, 2 * D :].view(R, t, 2).unbind(2)
            addmv_(u, U.mT, xu, alpha=-1)
            addmv_(addmv_(g, G.mT, xu, alpha=-1), U.mT, xg, alpha=-1)
        g.addcmul_(u, gain[:, t : t + 1].to(x.dtype), value=-1)
        scale = state[:, 0].gather(1, place).rsqrt_().to(x.dtype)[..., None]
        torch.mul(found[:, : 2 * D].view(R, 2, D), scale, out=UG[:, t])
        product = mm(UG[:, t], x.mT)
        state.sub_(product * product[:, :1]).scatter_(2, place[:, None].expand(-1, 2, 1), out.expand(R, 2, 1))
    return places, gain, UG


# -- pool passes of N D^2, at 10/16 of their products since the matrices are symmetric -------------------------------


def _columns(D: int) -> list[slice]:
    size = max(16, -(-D // 4))
    return [slice(start, min(start + size, D)) for start in range(0, D, size)]


def piece(phi: Vectors) -> int:
    """Items that a pass visits together."""
    return max(256, phi.pool.block_numbers // PIECES // phi.pool.D)


Weigh = Callable[[slice, Tensor, slice], Tensor]
"""Pool rows, their phi (b, D) and which of the replicates, R' -> their weights (R', b)."""


def second_moments(phi: Vectors, weigh: Weigh, groups: Sequence[slice]) -> tuple[Tensor, Tensor]:
    """The weights of all items, (R, N), and sum_i weight_i phi_i phi_i^T, (R, D, D) float64.

    groups: which replicates go together. Sums over a block of the pool are in the pool's dtype.
    """
    D, R, dtype, device = phi.dim, groups[-1].stop, phi.pool.dtype, phi.device
    values = torch.empty(R, phi.N, dtype=dtype, device=device)
    sums = torch.zeros(R, D, D, dtype=torch.float64, device=device)

    def block_sum(rows: slice, x: Tensor, which: slice) -> Tensor:
        pieces, own = max(1, round(len(x) / piece(phi))), which.stop - which.start
        out, at = x.new_zeros(own, D, D), rows.start
        y = x.new_empty(own, -(-len(x) // pieces), D)
        for part in x.tensor_split(pieces):
            here = slice(at, at + len(part))
            at = here.stop
            w = values[which, here].copy_(weigh(here, part, which))
            scaled = torch.mul(part, w[..., None], out=y[:, : len(part)])
            for J in _columns(D):
                addmm_(out[:, : J.stop, J], part[:, : J.stop].T, scaled[..., J])
        return out

    jobs = (partial(block_sum, rows, x, which) for rows, x in phi.blocks() for which in groups)
    for i, (_, part) in enumerate(each_of(jobs, lambda job: job(), device, 4 * len(groups))):
        sums[groups[i % len(groups)]] += part
    return values, sums.triu() + sums.triu(1).mT


def quadratic_forms(phi: Vectors, problems: Sequence[Binary]) -> None:
    """a of every item, and b added to its e, in all problems."""
    dtype = phi.pool.dtype
    parts = [(upper(p.middle, dtype), p.narrow if p.narrow is not None else upper(p.inverse, dtype)) for p in problems]
    most = max(len(p.w) for p in problems)

    def forms(rows: slice, x: Tensor, which: slice) -> tuple[Tensor, Tensor]:
        a, b, room = [], [], x.new_empty(most * x.numel())
        for problem, (middle, inverse) in zip(problems, parts, strict=True):
            a.append(quadratic_form(x, middle, room).double())
            if isinstance(inverse, Tensor):
                inside = mm(x, inverse, room[: len(inverse) * len(x) * inverse.shape[2]].view(len(inverse), len(x), -1))
                inside = torch.linalg.vecdot(inside, inside)
                b.append((phi.sq_norms[rows].double() - inside) / problem.ridge)
            else:
                b.append(quadratic_form(x, inverse, room).double())
        return torch.cat(a), torch.cat(b)

    every = slice(0, sum(len(p.w) for p in problems))
    a, b = visit(phi.blocks(piece(phi)), [every], forms, phi.N, phi.device)
    sizes = [len(p.w) for p in problems]
    for problem, own, more in zip(problems, a.split(sizes), b.split(sizes), strict=True):
        problem.a = own
        problem.e += more


def upper(A: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Columns of symmetric matrices (R, D, D) down to the diagonal's blocks; what lies above them counts twice."""
    A = A.to(dtype)
    return [torch.cat([2 * A[:, : J.start, J], A[:, J, J]], 1) for J in _columns(A.shape[2])]


def quadratic_form(x: Tensor, parts: Sequence[Tensor], room: Tensor) -> Tensor:
    """x_i^T A x_i for x (b, D), A (R, D, D) by its `upper` parts: (R, b); room: at least R b D numbers, overwritten."""
    R = len(parts[0])
    product = room[: R * x.numel()].view(R, *x.shape)
    for J, part in zip(_columns(x.shape[1]), parts, strict=True):
        mm(x[:, : J.stop], part, out=product[..., J])
    return torch.linalg.vecdot(product, x)
