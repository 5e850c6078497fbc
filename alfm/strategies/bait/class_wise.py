"""BAIT's other forms: all classes, some classes, the diagonal; and the backward step that all matrix forms share.

Ash et al. 2021 (2106.09675), algorithm 1; Huseljic et al. 2024 (2404.08981). See `alfm/strategies/bait/bait.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from alfm import devices
from alfm.errors import UserError
from alfm.features.features import Vectors
from alfm.geometry import greedy
from alfm.heads.passes import together
from alfm.heads.products import addmm_, mm
from alfm.strategies.query import Query
from alfm.threads import at_once

ELEMENTS = 1 << 22  # of a temporary, at least: 32 MB in float64


def refuse_if_too_large(query: Query, variant: str, max_bytes: int) -> int:
    """Replicates of which `max_bytes` holds what they have at their peak, at least as many as run at once.

    Each holds about eight (C D, C D) float64 matrices (F, M, its factor, inverses and temporaries) and two (N, C, C).
    Raises UserError when those that run at once need more.
    """
    head = query.head
    assert head is not None
    D = query.pool.vectors(head.spaces[0]).dim
    each = 8 * (8 * (head.C * D) ** 2 + 2 * query.pool.N * head.C**2)
    need = each * at_once(query.R, query.pool.device)
    if need > max_bytes:
        raise UserError(
            f"BAIT variant={variant} needs {need / 2**30:.1f} GiB for {head.C} classes x {D} "
            f"dimensions and {query.pool.N} items, above max_bytes = {max_bytes / 2**30:.1f} GiB: use variant=binary "
            "(or diagonal), or raise query_strategy.max_bytes."
        )
    return max_bytes // each


def _pieces(count: int, phi: Vectors, each: int) -> list[slice]:
    """So many items, of each of which a temporary holds `each` numbers, in slices."""
    return together(count, max(1, max(ELEMENTS, phi.pool.block_numbers // 4) // each))


class Full:
    """Rank-k information of R replicates that see the same phi: x_c = sqrt(p_c) (e_c - p) (outer) phi for the k
    likeliest classes c.

    With s_c = sqrt(p_c) (e_c - p) as the columns of S_i (C, k), an item's quadratic form in a matrix A (C D, C D) is
    S_i^T A_i S_i, where A_i (C, C) holds phi_i^T A[c, c'] phi_i. The A_i of M^-1 and of M^-1 F M^-1 are what a pick
    changes, by products of phi with k columns. Everything is float64.
    """

    def __init__(self, phi: Vectors, log_p: Tensor, k: int, labelled: Tensor, ridge: float, share: Tensor) -> None:
        """log_p (R, N, C); labelled (R, n), padded with -1; share (R, 1) float64."""
        self.phi, self.k, self.share = phi, k, share
        self.p = log_p.double().exp()
        self.classes = torch.sort(self.p, dim=2, descending=True, stable=True).indices[..., :k]
        R, N, C = self.p.shape
        self.shape, self.own = (R, C, phi.dim), torch.arange(R, device=phi.device)[:, None]
        self.eye = torch.eye(k, dtype=self.p.dtype, device=phi.device)
        F = self._moment(torch.arange(N, device=phi.device).expand(R, N))
        M = self._moment(labelled) * (1 - share)[..., None]
        M.diagonal(dim1=1, dim2=2).add_(ridge)
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(M))
        self.middle = mm(mm(self.inverse, F), self.inverse)
        self.b, self.a = self._forms(self.inverse), self._forms(self.middle)

    def factor(self, rows: Tensor) -> Tensor:
        """S of pool rows (R, m), scaled by sqrt(share): (R, m, C, k)."""
        p, c = self.p[self.own, rows], self.classes[self.own, rows]
        S = -p[..., None].expand(-1, -1, -1, self.k).clone()
        S.scatter_add_(2, c[:, :, None], torch.ones_like(c, dtype=p.dtype)[:, :, None])
        return S * (p.gather(2, c) * self.share[..., None]).sqrt()[:, :, None]

    def stacked(self, rows: Tensor) -> Tensor:
        """x of pool rows (R, m), scaled: (R, m k, C D)."""
        x = self.phi.rows(rows.flatten(), plain=True).double().view(*rows.shape, 1, 1, -1)
        return (self.factor(rows).mT[..., None] * x).flatten(1, 2).flatten(2)

    def _moment(self, rows: Tensor) -> Tensor:
        """Mean information of pool rows (R, m), padded with -1, unscaled: (R, C D, C D)."""
        R, C, D = self.shape
        out = self.p.new_zeros(R, C * D, C * D)
        there = rows >= 0
        for part in _pieces(rows.shape[1], self.phi, R * self.k * C * D):
            x = self.stacked(rows[:, part].clamp_min(0))
            x = x.where(there[:, part].repeat_interleave(self.k, 1)[..., None], 0)
            addmm_(out, x.mT, x)
        return out / (self.share * there.sum(1, keepdim=True))[..., None]

    def _blocks(self, each: int) -> Iterator[tuple[slice, Tensor]]:
        """All items, (rows, (m, D) float64), of each of which a temporary holds `each` numbers for a replicate."""
        for rows in _pieces(self.phi.N, self.phi, self.shape[0] * each):
            yield rows, self.phi.at(rows).double()

    def _forms(self, A: Tensor) -> Tensor:
        """phi_i^T A[c, c'] phi_i, (R, N, C, C)."""
        R, C, D = self.shape
        out = self.p.new_empty(R, self.phi.N, C, C)
        for rows, x in self._blocks(C * D):
            for c in range(C):
                y = mm(x, A[:, c * D : (c + 1) * D]).view(R, len(x), C, D)
                out[:, rows, c] = torch.einsum("rmcd,md->rmc", y, x)
        return out

    def _gains(self) -> Tensor:
        """tr((I + S^T b S)^-1 S^T a S) of every item, (R, N)."""
        R, C, _ = self.shape
        out = self.p.new_empty(R, self.phi.N)
        for rows in _pieces(self.phi.N, self.phi, R * 4 * C * self.k):
            S = self.factor(torch.arange(rows.start, rows.stop, device=out.device).expand(R, -1))
            inner = torch.linalg.solve_ex(self.eye + S.mT @ self.b[:, rows] @ S, S.mT @ self.a[:, rows] @ S)[0]
            out[:, rows] = inner.diagonal(dim1=2, dim2=3).sum(2)
        return out

    def forward(self, free: Tensor, count: int) -> Tensor:
        """`count` items of each replicate's free ones, bool (R, N), in the order of greedy gain, ties to the lower row:
        int64 (R, count). A pick is a step without a question, and a graph."""
        R, C, D = self.shape
        free, k = free.clone(), self.k
        inverse, middle = self.inverse.clone(), self.middle.clone()
        picks = torch.empty(R, count, dtype=torch.int64, device=free.device)
        place = picks.new_zeros(1, 1)

        def step() -> None:
            pick = torch.where(free, self._gains(), -torch.inf).argmax(1, keepdim=True)
            picks.scatter_(1, place.expand(R, 1), pick)
            place.add_(1)
            free.scatter_(1, pick, False)
            V = self.stacked(pick)
            U, G = mm(inverse, V.mT), mm(middle, V.mT)
            K = torch.linalg.inv_ex(self.eye + mm(V, U))[0]  # _ex: no wait for the device
            UK, VG = mm(U, K), mm(V, G)
            inner = mm(mm(UK, VG), UK.mT)
            inverse.sub_(mm(UK, U.mT))
            middle.add_(inner - mm(UK, G.mT) - mm(G, UK.mT))
            for rows, x in self._blocks(4 * C * (C + k)):
                columns = [A.view(R, C, D, k).transpose(1, 2).reshape(R, D, -1) for A in (U, G)]
                xu, xg = (mm(x, A).view(R, len(x), C, k) for A in columns)
                xuk = mm(xu.flatten(1, 2), K).view_as(xu)
                xuvg = mm(xuk.flatten(1, 2), VG).view_as(xu)
                self.b[:, rows].sub_(xuk @ xu.mT)
                self.a[:, rows].add_(xuvg @ xuk.mT - xuk @ xg.mT - xg @ xuk.mT)

        if count == 1:
            step()
        elif count:
            again = devices.of(free).repeated(step)
            for _ in range(count - 1):
                again()
        return picks

    def keep(self, picks: Tensor, budget: int) -> Tensor:
        """Places (R, budget) among the picks (R, m) that stay after backward pruning, ascending."""
        V = self.stacked(picks)
        return prune(mm(mm(V, self.inverse), V.mT), mm(mm(V, self.middle), V.mT), self.k, budget)


class Diagonal:
    """The diagonal of the full information of R replicates that see the same phi: f_i[c, d] = p_c (1 - p_c) phi_d^2,
    all (R, C, D) float64.

    The objective is sum F / (M + f). The gain of an item, sum F f / (M (M + f)), only falls as M grows, so a gain
    found earlier bounds it and lazy greedy is exact.
    """

    def __init__(self, phi: Vectors, log_p: Tensor, labelled: Tensor, ridge: float, share: Tensor) -> None:
        """log_p (R, N, C); labelled (R, n), padded with -1; share (R, 1) float64."""
        self.phi, self.share = phi, share
        p = log_p.double().exp()
        self.v = p * -torch.expm1(log_p.double())
        R, N, _ = self.v.shape
        self.own = torch.arange(R, device=p.device)[:, None]
        self.F = self._sum(torch.arange(N, device=p.device).expand(R, N)) / N
        mean = ((1 - share) / (labelled >= 0).sum(1, keepdim=True))[..., None]
        self.M = self.now = ridge + mean * self._sum(labelled)

    def _sum(self, rows: Tensor) -> Tensor:
        """Of pool rows (R, m), padded with -1, unscaled."""
        R, dim = len(rows), self.phi.dim
        out = self.v.new_zeros(R, self.v.shape[2], dim)
        for part in _pieces(rows.shape[1], self.phi, R * dim):
            some = rows[:, part].clamp_min(0)
            v = self.v[self.own, some].where(rows[:, part, None] >= 0, 0)
            out += mm(v.mT, self.phi.rows(some.flatten(), plain=True).double().square().view(*some.shape, dim))
        return out

    def _information(self, rows: Tensor) -> Tensor:
        """f of pool rows (R, m), scaled: (R, m, C, D)."""
        v = self.v[self.own, rows] * self.share[..., None]
        x = self.phi.rows(rows.flatten(), plain=True).double().square()
        return v[..., None] * x.view(*rows.shape, 1, -1)

    def _gains(self, f: Tensor) -> Tensor:
        """Of items with information f (R, m, C, D): (R, m)."""
        return (f / (f + self.now[:, None])).mul_((self.F / self.now)[:, None]).flatten(2).sum(2)

    def look(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """For `greedy.stepwise`: gains of pool rows (R, m) now, and their information (R, m, C D)."""
        f = self._information(items)
        return self._gains(f), f.flatten(2)

    @property
    def state(self) -> list[Tensor]:
        """For `greedy.stepwise`."""
        return [self.now]

    def take(self, rows: Tensor, live: Tensor) -> None:
        """For `greedy.stepwise`: adds the information rows (R, C D) if live."""
        self.now += (rows * live).view_as(self.now)

    def renew(self, bounds: Tensor, steps: int) -> bool:
        """For `greedy.stepwise`: never cheaper than looking at the largest."""
        return False

    def forward(self, free: Tensor, count: int) -> Tensor:
        """`count` items of each replicate's free ones, bool (R, N), in the order of greedy gain, ties to the lower row:
        int64 (R, count)."""
        self.now = self.M.clone()
        every = torch.arange(self.phi.N, device=free.device).expand(len(free), -1)
        pieces = _pieces(self.phi.N, self.phi, self.F.numel())
        bounds = torch.cat([self._gains(self._information(every[:, rows])) for rows in pieces], 1)
        return torch.stack(greedy.stepwise(self, bounds, free, count))

    def keep(self, picks: Tensor, budget: int) -> Tensor:
        """Places (R, budget) among the picks (R, m) that stay after backward pruning, ascending. A drop is a step
        without a question, and a graph."""
        pieces = [picks[:, part] for part in _pieces(picks.shape[1], self.phi, self.F.numel())]
        M = self.M + sum(self._information(part).sum(1) for part in pieces)
        kept = torch.ones_like(picks, dtype=torch.bool)

        def drop() -> None:
            # dropping f raises the objective by sum F f / (M (M - f))
            costs = []
            for part in pieces:
                f = self._information(part)
                costs.append((f / (M[:, None] - f) * (self.F / M)[:, None]).flatten(2).sum(2))
            j = torch.where(kept, torch.cat(costs, 1), torch.inf).argmin(1, keepdim=True)
            kept.scatter_(1, j, False)
            M.sub_(self._information(picks.gather(1, j))[:, 0])

        greedy.repeat(drop, [M, kept], picks.shape[1] - budget)
        return (~kept).to(torch.uint8).sort(dim=1, stable=True).indices[:, :budget]


def prune(P0: Tensor, Q0: Tensor, m: int, budget: int) -> Tensor:
    """Places (R, budget) of the items that stay when the others are dropped one by one, each the cheapest to drop.

    Of R replicates, float64: V (items x m, .) stacks the picks' scaled x; P0 = V M0^-1 V^T, Q0 = V M0^-1 F M0^-1 V^T.
    With M = M0 + V^T V, P = V M^-1 V^T = (I + P0)^-1 P0 and Q = (I + P0)^-1 Q0 (I + P0)^-1; dropping item j raises
    tr(M^-1 F) by tr((I - P_jj)^-1 Q_jj). Ties: the earlier pick goes. A drop is a step without a question, and a graph.
    """
    R, size, device = len(P0), P0.shape[1], P0.device
    items = size // m
    eye = torch.eye(size, dtype=P0.dtype, device=device)
    inner = torch.linalg.inv(eye + P0)
    inner = (inner + inner.mT) / 2
    P, Q = eye - inner, mm(mm(inner, Q0), inner)
    small = eye[:m, :m]
    dropped = torch.zeros(R, items, dtype=torch.bool, device=device)
    place = torch.arange(m, device=device)
    diagonals = [_diagonal_blocks(A, m) for A in (P, Q)]  # views of what changes in place

    def drop() -> None:
        cost = _traces(small - diagonals[0], diagonals[1]).where(~dropped, torch.inf)
        j = cost.argmin(1, keepdim=True)
        dropped.scatter_(1, j, True)
        block = j * m + place
        columns, rows = block[:, None].expand(-1, size, -1), block[..., None].expand(-1, -1, m)
        p, q = P.gather(2, columns), Q.gather(2, columns)
        pK = mm(p, torch.linalg.inv_ex(small - p.gather(1, rows))[0])
        half = mm(pK, addmm_(q.clone(), pK, q.gather(1, rows), alpha=0.5).mT)
        Q.add_(half).add_(half.mT)
        addmm_(P, pK, p.mT)

    greedy.repeat(drop, [P, Q, dropped], items - budget)
    return dropped.to(torch.uint8).sort(dim=1, stable=True).indices[:, :budget]


def _traces(A: Tensor, B: Tensor) -> Tensor:
    """tr(A_i^-1 B_i) of matrices (R, n, m, m), without a wait for the device."""
    if A.shape[-1] == 1:
        return (B / A)[..., 0, 0]
    return torch.linalg.solve_ex(A, B)[0].diagonal(dim1=-2, dim2=-1).sum(-1)


def _diagonal_blocks(A: Tensor, m: int) -> Tensor:
    """(R, items m, items m) -> (R, items, m, m)."""
    R, items = len(A), A.shape[1] // m
    return A.view(R, items, m, items, m).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
