"""Submodular functions beside herding, and the query-conditioned forms that hunt for more of a few examples.

Similarities s >= 0 throughout: negative ones count as 0 (cut and location functions), or only their square matters
(determinants). Query set Q: pool rows that show what is looked for. Formulas: Kothawade et al. 2021 (SIMILAR,
2107.00717, table 1); the incremental determinant: Chen et al. 2018 (1709.05135).

| function of the picks A | here |
|---|---|
| facility location: mean_n max_A s_nj | `herding.prepare` without weights |
| FLVMI (FL1MI): mean_n min(max_A s_nj, eta max_Q s_nq) | `location_information` |
| FLQMI (FL2MI): sum_Q max_A s_qj + eta sum_A max_Q s_jq | `query_location` |
| graph cut: sum_n sum_A s_nj - lambda sum_A sum_A s_ij | `Cut` |
| GCMI: 2 lambda sum_A sum_Q s_jq | `cut_information`, then the top B |
| log det: log det(S_A) | `Volume` |
| LOGDETMI: log det(S_A) - log det(S_A - eta^2 S_AQ S_Q^-1 S_QA) | `determinant_information` |
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alfm.geometry import greedy
from alfm.geometry.herding import Herding, first_gains, prepare
from alfm.geometry.kernels import Joined, Kernel, best_similarities, best_similarity, looks, similarities

if TYPE_CHECKING:
    from alfm.features.features import Vectors

HELD = 4 << 30  # bytes of Cholesky rows that may be held for all items on a GPU; beyond, `Volume` asks it for each pick


# -- facility location about a query set -----------------------------------------------------------------------------


def location_information(
    vectors: Vectors, kernel: Kernel, added: Sequence[Tensor], query: Sequence[Tensor], eta: float = 1.0
) -> list[Herding]:
    """FLVMI, one state per replicate: a target counts only up to eta times its similarity to the query set.

    added, query: pool rows int64 (n_r,), (q_r,) per replicate. One symmetric pass for all replicates.
    """
    cap = best_similarities(vectors, [kernel] * len(query), [q.to(vectors.device) for q in query])
    return prepare(vectors, kernel, added, cap=eta * cap)


def query_location(vectors: Vectors, kernel: Kernel, added: Tensor, query: Tensor, eta: float = 1.0) -> Herding:
    """FLQMI for one replicate, divided by |Q|: the targets are the query set alone, so it costs one thin pass.

    added, query: pool rows int64 (n,), (q,), q >= 1.
    """
    added, query = added.to(vectors.device), query.to(vectors.device)
    kappa = best_similarity(vectors, kernel, added, targets=query)
    bonus = best_similarity(vectors, kernel, query).mul_(eta / len(query))
    gains = first_gains(vectors, kernel, kappa[None], targets=query)[0]
    return Herding(vectors, kernel, kappa, gains, targets=query, bonus=bonus)


# -- graph cut -------------------------------------------------------------------------------------------------------


def total_similarity(vectors: Vectors, kernel: Kernel) -> Tensor:
    """m_x = sum_n s_xn, (N,), one symmetric pass: depends on the pool only."""
    return first_gains(vectors, kernel, vectors.sq_norms.new_zeros(1, vectors.N))[0] * vectors.N


def cut_information(vectors: Vectors, kernel: Kernel, query: Tensor) -> Tensor:
    """GCMI without its constant 2 lambda: sum_q s_xq, (N,). Modular, so the best batch is simply the top B."""
    zero = vectors.sq_norms.new_zeros(1, len(query))
    return first_gains(vectors, kernel, zero, targets=query.to(vectors.device))[0] * len(query)


class Cut:
    """One replicate's graph cut: representative (similar to the pool) but not to what is there already.

    Gains fall as A grows because s >= 0, so lazy greedy is exact for every lambda; they may become negative.
    """

    def __init__(self, vectors: Vectors, kernel: Kernel, total: Tensor, trade: float = 0.5) -> None:
        """total: (N,) from `total_similarity`. trade: lambda >= 0; up to 0.5 the function is monotone."""
        if not trade >= 0:
            raise ValueError(f"lambda must be at least 0, got {trade}")
        self.vectors, self.kernel, self.total, self.trade = vectors, kernel, total, trade
        self.bounds = total.clone()  # leaves out terms that only lower it; kept between rounds
        self.added = torch.zeros(0, dtype=torch.int64, device=vectors.device)
        self._coordinates = vectors.rows(self.added)

    def add(self, rows: Tensor) -> None:
        """Adds pool rows, int64 (m,), to A."""
        rows = rows.to(self.added.device)
        self.added = torch.cat([self.added, rows])
        self._coordinates = torch.cat([self._coordinates, self.vectors.rows(rows)])

    def gains(self, items: Tensor) -> Tensor:
        """Exact gains of int64 (m,) items now, (m,)."""
        return self._gains(items, self.vectors.rows(items))

    def _gains(self, items: Tensor | slice, x: Tensor) -> Tensor:
        sq = self.vectors.sq_norms
        own = self.kernel.diagonal(sq[items])
        cross = torch.zeros_like(own)
        for part, y in zip(self.added.split(1024), self._coordinates.split(1024), strict=True):
            cross += self.kernel(x @ y.T, sq[items], sq[part]).clamp_min_(0.0).sum(1)
        return self.total[items] - self.trade * (2 * cross + own)

    def renew(self, bounds: Tensor) -> bool:
        """Never: a refresh needs no pass over the pool."""
        return False

    def select(self, allowed: Tensor, budget: int) -> Tensor:
        """The next picks, int64 (min(budget, allowed items),), added as they are made. allowed: bool (N,)."""
        # Gains of another round come from products of another shape: a little above them bounds what is found now.
        self.bounds += 64 * torch.finfo(self.total.dtype).eps * self.total.abs()
        return greedy.lazy(self, self.bounds, allowed, budget)

    def alike(self) -> Hashable:
        """See `greedy.Replicate`."""
        return self.vectors, self.trade

    @classmethod
    def together(cls, states: Sequence[Cut], allowed: Tensor, budget: int) -> list[Tensor]:
        """See `greedy.Replicate`: a pick changes all gains by one product with the pool."""
        vectors, trade = states[0].vectors, states[0].trade
        kernel = Joined([state.kernel for state in states], vectors.sq_norms)
        wanted = allowed.sum(1).clamp_max(budget).tolist()
        blocks = list(vectors.blocks())
        gain = torch.stack([torch.cat([state._gains(rows, x) for rows, x in blocks]) for state in states])
        closed, slot = ~allowed, torch.zeros(1, dtype=torch.int64, device=gain.device)
        picks = slot.new_zeros(len(states), max(wanted))

        def step() -> None:
            pick = gain.masked_fill(closed, -torch.inf).argmax(1, keepdim=True)  # the first of equals
            picks.index_copy_(1, slot, pick)
            closed.scatter_(1, pick, True)
            gain.sub_(looks(vectors, kernel, pick)[:, 0].clamp_min_(0.0).mul_(2 * trade))
            slot.add_(1)

        greedy.repeat(step, [gain, closed, slot, picks], max(wanted))
        found = [own[:w] for own, w in zip(picks, wanted, strict=True)]
        for state, own in zip(states, found, strict=True):
            state.add(own)
        return found


# -- determinants ----------------------------------------------------------------------------------------------------


class Volume:
    """One replicate's log det(S_A + ridge I): the volume that the picks span.

    Gain of x: log(s_xx + ridge - s_xA (S_A + ridge I)^-1 s_Ax), the log of what A leaves unexplained. One Cholesky
    factor of A grows with the picks; memory O(|A|^2 + N).
    """

    def __init__(self, vectors: Vectors, kernel: Kernel, ridge: float = 1e-2) -> None:
        if not ridge > 0:
            raise ValueError(f"ridge must be positive, got {ridge}")
        self.vectors, self.kernel, self.ridge = vectors, kernel, ridge
        self.added = torch.zeros(0, dtype=torch.int64, device=vectors.device)
        self._factor = vectors.sq_norms.new_zeros(0, 0)
        self._coordinates = vectors.rows(self.added)
        self.bounds = torch.full_like(vectors.sq_norms, torch.inf)
        self._refreshed = vectors.N  # nothing is known yet: the first select starts with a pass

    @classmethod
    def each(cls, vectors: Vectors, kernel: Kernel, ridge: float, rows: Sequence[Tensor]) -> list[Callable[[], Volume]]:
        """What gives every replicate's, with distinct pool rows, int64 (n_r,), added: made at once where the device
        joins replicates of as many rows."""

        def alone(own: Tensor) -> Volume:
            made = cls(vectors, kernel, ridge)
            made.add(own)
            return made

        if not vectors.pool.joins_replicates or len(set(map(len, rows))) > 1:
            return [partial(alone, own) for own in rows]
        items = torch.stack(list(rows))
        x = vectors.rows(items.flatten()).unflatten(0, items.shape)
        factors = torch.linalg.cholesky(_inner(kernel, x, vectors.sq_norms[items], ridge))

        def among(r: int) -> Volume:
            made = cls(vectors, kernel, ridge)
            made.added, made._factor, made._coordinates = items[r], factors[r], x[r]
            return made

        return [partial(among, r) for r in range(len(rows))]

    def add(self, rows: Tensor) -> None:
        """Adds distinct pool rows, int64 (m,), to A."""
        rows = rows.to(self.added.device)
        x = self.vectors.rows(rows)
        sq = self.vectors.sq_norms[rows]
        inner = _inner(self.kernel, x, sq, self.ridge)
        n, m = len(self.added), len(rows)
        cross = self._explained(x, sq)
        corner = torch.linalg.cholesky(inner - cross.T @ cross)
        factor = inner.new_zeros(n + m, n + m)
        factor[:n, :n], factor[n:, :n], factor[n:, n:] = self._factor, cross.T, corner
        self._factor = factor
        self._coordinates = torch.cat([self._coordinates, x])
        self.added = torch.cat([self.added, rows])

    def gains(self, items: Tensor) -> Tensor:
        """Exact gains of int64 (m,) items now, (m,)."""
        self._refreshed += len(items)
        return self._gains(self.vectors.rows(items), self.vectors.sq_norms[items])

    def renew(self, bounds: Tensor) -> bool:
        """All gains by one pass of large blocks, after a quarter of the pool was refreshed in small ones."""
        if self._refreshed * 4 < self.vectors.N:
            return False
        for rows, x in self.vectors.blocks():
            # Blocks round differently from refreshes: a little above bounds what `gains` will find.
            slack = 16 * torch.finfo(x.dtype).eps / self.ridge
            bounds[rows] = self._gains(x, self.vectors.sq_norms[rows]) + slack
        self._refreshed = 0
        return True

    def select(self, allowed: Tensor, budget: int) -> Tensor:
        """The next picks, int64 (min(budget, allowed items),), added as they are made. allowed: bool (N,)."""
        return greedy.lazy(self, self.bounds, allowed, budget)

    def alike(self) -> Hashable:
        """See `greedy.Replicate`."""
        return self.vectors, self.ridge, len(self.added)

    @classmethod
    def together(cls, states: Sequence[Volume], allowed: Tensor, budget: int) -> list[Tensor]:
        """See `greedy.Replicate`: as many at a time as may hold every row of F^-1 S_A. for all items."""
        held = (len(states[0].added) + budget) * states[0].bounds.nbytes
        if held > HELD:
            return [greedy.lazy(one, one.bounds, free, budget) for one, free in zip(states, allowed, strict=True)]
        size = max(1, HELD // max(1, held))
        parts = [slice(start, start + size) for start in range(0, len(states), size)]
        return [picks for part in parts for picks in cls._enqueued(states[part], allowed[part], budget)]

    @staticmethod
    def _enqueued(states: Sequence[Volume], allowed: Tensor, budget: int) -> list[Tensor]:
        """Plain greedy without a question to the device; the rows of F^-1 S_A. are held for all items, (R, |A|, N)."""
        vectors, ridge, n = states[0].vectors, states[0].ridge, len(states[0].added)
        kernels, sq = [one.kernel for one in states], vectors.sq_norms
        kernel = Joined(kernels, sq)
        factors, added, known = (
            torch.stack([getattr(one, name) for one in states]) for name in ("_factor", "added", "_coordinates")
        )
        wanted = allowed.sum(1).clamp_max(budget).tolist()
        rows = sq.new_zeros(len(states), n + max(wanted), vectors.N)
        for place, x in vectors.blocks():
            cross = kernel(known @ x.T, sq[added], sq[place])
            rows[:, :n, place] = torch.linalg.solve_triangular(factors, cross, upper=False)
        own = kernels[0].diagonal(sq) if kernel.alike else torch.stack([one.diagonal(sq) for one in kernels])
        left = own + ridge - rows[:, :n].square().sum(1)
        closed, slot = ~allowed, torch.zeros_like(allowed[0, :1], dtype=torch.int64)
        picks = slot.new_zeros(len(states), max(wanted))

        def step() -> None:
            gain = left.clamp_min_(ridge).log()
            pick = gain.masked_fill_(closed, -torch.inf).argmax(1, keepdim=True)  # the first of equals
            picks.index_copy_(1, slot, pick)
            closed.scatter_(1, pick, True)
            similar = looks(vectors, kernel, pick)[:, 0]
            similar.scatter_(1, pick, similar.gather(1, pick) + ridge)
            # rows to come are still 0, so a step is of one shape
            before = rows.gather(2, pick[:, None].expand(-1, rows.shape[1], -1))
            row = (similar - (before.mT @ rows)[:, 0]) / left.gather(1, pick).sqrt()
            rows.index_copy_(1, slot + n, row[:, None])
            left.sub_(row.square())
            slot.add_(1)

        greedy.repeat(step, [left, closed, slot, picks, rows], max(wanted))
        found = [own[:w] for own, w in zip(picks, wanted, strict=True)]
        for state, own, mine in zip(states, found, rows, strict=True):
            factor = torch.block_diag(state._factor, mine.new_zeros(len(own), len(own)))
            factor[n:] = mine[: n + len(own)].index_select(1, own).T
            state._factor = factor.tril_()
            state.added = torch.cat([state.added, own])
            state._coordinates = torch.cat([state._coordinates, vectors.rows(own)])
        return found

    def _gains(self, x: Tensor, sq: Tensor) -> Tensor:
        left = self.kernel.diagonal(sq) + self.ridge - self._explained(x, sq).square().sum(0)
        return left.clamp_min(self.ridge).log()

    def _explained(self, x: Tensor, sq: Tensor) -> Tensor:
        """F^-1 S_Ax, (|A|, m), with F the Cholesky factor of S_A + ridge I."""
        cross = self.kernel(self._coordinates @ x.T, self.vectors.sq_norms[self.added], sq)
        return torch.linalg.solve_triangular(self._factor, cross, upper=False)


def _inner(kernel: Kernel, x: Tensor, sq: Tensor, ridge: float) -> Tensor:
    """S_A + ridge I, (.., m, m), of coordinates (.., m, D) with their squared lengths (.., m)."""
    inner = kernel(x @ x.mT, sq, sq)
    inner.diagonal(dim1=-2, dim2=-1).add_(ridge)
    return inner


def determinant_information(
    vectors: Vectors,
    kernel: Kernel,
    query: Tensor,
    allowed: Tensor,
    budget: int,
    eta: float = 1.0,
    ridge: float = 1e-2,
) -> Tensor:
    """LOGDETMI greedy picks, int64 (min(budget, allowed items),), ties to the lower index; A is this batch alone.

    query: pool rows int64 (q,), q >= 1. allowed: bool (N,). eta in [0, 1]. Its gain is a difference of two falling
    terms, so stale values bound nothing: plain greedy with one product per pick, memory O(N (q + 2 budget)).
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta must lie in [0, 1] for the determinant to stay positive, got {eta}")
    query = query.to(vectors.device)
    free = allowed.to(vectors.device, copy=True)
    budget = min(budget, int(free.sum()))
    inside = similarities(vectors, kernel, query, query)
    inside.diagonal().add_(ridge)
    shown = similarities(vectors, kernel, query)
    shown = torch.linalg.solve_triangular(torch.linalg.cholesky(inside), shown, upper=False).mul_(eta)
    own = kernel.diagonal(vectors.sq_norms) + ridge
    left = torch.stack([own, own - shown.square().sum(0)])  # what A alone, and A beside Q, leave of each item
    columns = own.new_zeros(2, budget, vectors.N)  # rows of the two Cholesky factors
    picks = torch.zeros(budget, dtype=torch.int64, device=vectors.device)
    for step in range(budget):
        left.clamp_min_(ridge)
        gain = left[0].log() - left[1].log()
        pick = gain.where(free, -torch.inf).argmax()[None]
        picks[step : step + 1] = pick
        free.index_fill_(0, pick, False)
        column = similarities(vectors, kernel, pick)[0]
        column.index_add_(0, pick, column.new_full((1,), ridge))
        for side, start in enumerate((column, column - shown.index_select(1, pick)[:, 0] @ shown)):
            columns[side, step] = row = _next_row(start, columns[side, :step], left[side], pick)
            left[side] -= row.square()
    return picks


def _next_row(similar: Tensor, before: Tensor, left: Tensor, pick: Tensor) -> Tensor:
    """The row (N,) that `pick`, int64 (1,), adds to a Cholesky factor continued to all items.

    similar (N,): to the pick, the ridge included; before (n, N): the rows so far; left (N,): what they leave of each
    item. `pick` stays on the device: a number as an index would be asked for.
    """
    return (similar - before.index_select(1, pick)[:, 0] @ before) / left.index_select(0, pick).sqrt()
