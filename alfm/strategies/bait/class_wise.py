"""BAIT's other forms: all classes, some classes, the diagonal; and the backward step that all matrix forms share.

Ash et al. 2021 (2106.09675), algorithm 1; Huseljic et al. 2024 (2404.08981). See `alfm/strategies/bait/bait.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from alfm.errors import UserError
from alfm.features.features import Vectors
from alfm.geometry import greedy
from alfm.heads.products import addmm_, mm
from alfm.strategies.query import Query
from alfm.threads import at_once

ELEMENTS = 1 << 22  # of a temporary: 32 MB in float64


def refuse_if_too_large(query: Query, variant: str, max_bytes: int) -> None:
    """Raises UserError when what the replicates that run at once hold at their peak exceeds `max_bytes`.

    Each holds about eight (C D, C D) float64 matrices (F, M, its factor, inverses and temporaries) and two (N, C, C).
    """
    head = query.head
    assert head is not None
    D = query.pool.vectors(head.spaces[0]).dim
    size = head.C * D
    need = 8 * (8 * size**2 + 2 * query.pool.N * head.C**2) * at_once(query.R, query.pool.device)
    if need > max_bytes:
        raise UserError(
            f"BAIT variant={variant} needs {need / 2**30:.1f} GiB for {head.C} classes x {D} "
            f"dimensions and {query.pool.N} items, above max_bytes = {max_bytes / 2**30:.1f} GiB: use variant=binary "
            "(or diagonal), or raise query_strategy.max_bytes."
        )


class Full:
    """Rank-k information of one replicate: x_c = sqrt(p_c) (e_c - p) (outer) phi for the k likeliest classes c.

    With s_c = sqrt(p_c) (e_c - p) as the columns of S_i (C, k), an item's quadratic form in a matrix A (C D, C D) is
    S_i^T A_i S_i, where A_i (C, C) holds phi_i^T A[c, c'] phi_i. The A_i of M^-1 and of M^-1 F M^-1 are what a pick
    changes, by products of phi with k columns. Everything is float64.
    """

    def __init__(self, phi: Vectors, log_p: Tensor, k: int, labelled: Tensor, ridge: float, share: float) -> None:
        self.phi, self.k, self.share = phi, k, share
        self.p = log_p.double().exp()
        self.classes = torch.sort(self.p, dim=1, descending=True, stable=True).indices[:, :k]
        C, D = self.p.shape[1], phi.dim
        self.shape = (C, D)
        F = self._moment(torch.arange(phi.N, device=phi.device))
        M = self._moment(labelled) * (1 - share)
        M.diagonal().add_(ridge)
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(M))
        self.middle = self.inverse @ F @ self.inverse
        self.b, self.a = self._forms(self.inverse), self._forms(self.middle)

    def factor(self, rows: Tensor) -> Tensor:
        """S of pool rows (m,), scaled by sqrt(share): (m, C, k)."""
        p, c = self.p[rows], self.classes[rows]
        S = -p[:, :, None].expand(-1, -1, self.k).clone()
        S.scatter_add_(1, c[:, None], torch.ones_like(c, dtype=p.dtype)[:, None])
        return S * (p.gather(1, c) * self.share).sqrt()[:, None]

    def stacked(self, rows: Tensor) -> Tensor:
        """x of pool rows (m,), scaled: (m k, C D)."""
        S, x = self.factor(rows), self.phi.rows(rows).double()
        return torch.einsum("mck,md->mkcd", S, x).reshape(len(rows) * self.k, -1)

    def _pieces(self, rows: Tensor, per_row: int) -> Iterator[Tensor]:
        return iter(rows.split(max(1, ELEMENTS // per_row)))

    def _moment(self, rows: Tensor) -> Tensor:
        """Mean information of pool rows, unscaled: (C D, C D)."""
        C, D = self.shape
        out = self.p.new_zeros(C * D, C * D)
        for part in self._pieces(rows, self.k * C * D):
            x = self.stacked(part)
            out.addmm_(x.T, x)
        return out / (self.share * len(rows))

    def _forms(self, A: Tensor) -> Tensor:
        """phi_i^T A[c, c'] phi_i, (N, C, C)."""
        C, D = self.shape
        out = self.p.new_empty(self.phi.N, C, C)
        for rows in self._pieces(torch.arange(self.phi.N, device=A.device), C * D):
            x = self.phi.rows(rows).double()
            for c in range(C):
                y = (x @ A[c * D : (c + 1) * D]).view(len(rows), C, D)
                out[rows, c] = torch.einsum("mcd,md->mc", y, x)
        return out

    def _gains(self) -> Tensor:
        """tr((I + S^T b S)^-1 S^T a S) of every item, (N,)."""
        out = self.p.new_empty(self.phi.N)
        eye = torch.eye(self.k, dtype=out.dtype, device=out.device)
        for rows in self._pieces(torch.arange(self.phi.N, device=out.device), 4 * self.shape[0] * self.k):
            S = self.factor(rows)
            inner = torch.linalg.solve_ex(eye + S.mT @ self.b[rows] @ S, S.mT @ self.a[rows] @ S)[0]
            out[rows] = inner.diagonal(dim1=1, dim2=2).sum(1)
        return out

    def forward(self, free: Tensor, count: int) -> Tensor:
        """`count` items in the order of greedy gain, ties to the lower row; int64 (count,)."""
        C, D = self.shape
        free = free.clone()
        inverse, middle = self.inverse.clone(), self.middle.clone()
        picks = torch.empty(count, dtype=torch.int64, device=free.device)
        eye = torch.eye(self.k, dtype=inverse.dtype, device=free.device)
        for t in range(count):
            pick = torch.where(free, self._gains(), -torch.inf).argmax(0, keepdim=True)
            picks[t : t + 1] = pick
            free.index_fill_(0, pick, False)
            V = self.stacked(pick)
            U, G = inverse @ V.T, middle @ V.T
            K = torch.linalg.inv_ex(eye + V @ U)[0]  # _ex: no wait for the device
            UK = U @ K
            inner = UK @ (V @ G) @ UK.T
            inverse -= UK @ U.T
            middle += inner - UK @ G.T - G @ UK.T
            for rows in self._pieces(torch.arange(self.phi.N, device=free.device), 4 * C * (C + self.k)):
                x = self.phi.rows(rows).double()
                xu, xg = (
                    (x @ A.view(C, D, self.k).transpose(0, 1).reshape(D, -1)).view(len(rows), C, self.k) for A in (U, G)
                )
                xuk = xu @ K
                self.b[rows] -= xuk @ xu.mT
                self.a[rows] += xuk @ (V @ G) @ xuk.mT - xuk @ xg.mT - xg @ xuk.mT
        return picks

    def keep(self, picks: Tensor, budget: int) -> Tensor:
        """Places (budget,) among the picks (m,) that stay after backward pruning, ascending."""
        V = self.stacked(picks)
        return prune((V @ self.inverse @ V.T)[None], (V @ self.middle @ V.T)[None], self.k, budget)[0]


class Diagonal:
    """The diagonal of the full information of one replicate: f_i[c, d] = p_c (1 - p_c) phi_d^2, all (C D,) float64.

    The objective is sum F / (M + f). The gain of an item, sum F f / (M (M + f)), only falls as M grows, so a gain
    found earlier bounds it and lazy greedy is exact.
    """

    def __init__(self, phi: Vectors, log_p: Tensor, labelled: Tensor, ridge: float, share: float) -> None:
        self.phi, self.share = phi, share
        p = log_p.double().exp()
        self.v = p * -torch.expm1(log_p.double())
        self.F = self._sum(torch.arange(phi.N, device=p.device)) / phi.N
        self.M = self.now = ridge + (1 - share) / len(labelled) * self._sum(labelled)

    def _sum(self, rows: Tensor) -> Tensor:
        out = self.v.new_zeros(self.v.shape[1], self.phi.dim)
        for part in rows.split(max(1, ELEMENTS // self.phi.dim)):
            out += self.v[part].T @ self.phi.rows(part).double().square()
        return out

    def _information(self, rows: Tensor) -> Tensor:
        """f of pool rows (m,), scaled: (m, C, D)."""
        v = self.v.index_select(0, rows) * self.share
        return v[:, :, None] * self.phi.rows(rows, plain=True).double().square()[:, None]

    def _gains(self, f: Tensor) -> Tensor:
        """Of items with information f (m, C, D): (m,)."""
        return (f / (f + self.now)).mul_(self.F / self.now).flatten(1).sum(1)

    def look(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """For `greedy.stepwise`: gains of pool rows (1, m) now, and their information (1, m, C D)."""
        f = self._information(items[0])
        return self._gains(f)[None], f.flatten(1)[None]

    @property
    def state(self) -> list[Tensor]:
        """For `greedy.stepwise`."""
        return [self.now]

    def take(self, rows: Tensor, live: Tensor) -> None:
        """For `greedy.stepwise`: adds the information rows (1, C D) if live."""
        self.now += (rows * live).view_as(self.now)

    def renew(self, bounds: Tensor, steps: int) -> bool:
        """For `greedy.stepwise`: never cheaper than looking at the largest."""
        return False

    def forward(self, free: Tensor, count: int) -> Tensor:
        """`count` items in the order of greedy gain, ties to the lower row; int64 (count,)."""
        self.now = self.M.clone()
        pieces = torch.arange(self.phi.N, device=free.device).split(max(1, ELEMENTS // self.F.numel()))
        bounds = torch.cat([self._gains(self._information(rows)) for rows in pieces])
        return greedy.stepwise(self, bounds[None], free[None], count)[0]

    def keep(self, picks: Tensor, budget: int) -> Tensor:
        """Places (budget,) among the picks (m,) that stay after backward pruning, ascending."""
        pieces = picks.split(max(1, ELEMENTS // self.F.numel()))
        M = self.M + sum(self._information(part).sum(0) for part in pieces)
        kept = torch.ones(len(picks), dtype=torch.bool, device=picks.device)
        for _ in range(len(picks) - budget):
            # dropping f raises the objective by sum F f / (M (M - f))
            costs = []
            for part in pieces:
                f = self._information(part)
                costs.append((f / (M - f) * (self.F / M)).flatten(1).sum(1))
            j = torch.where(kept, torch.cat(costs), torch.inf).argmin(0, keepdim=True)
            kept.index_fill_(0, j, False)
            M -= self._information(picks.index_select(0, j))[0]
        return kept.nonzero()[:, 0]


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
