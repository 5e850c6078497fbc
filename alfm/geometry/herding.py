"""Herding and facility location: pick items so that every target has something similar among the picks.

Objective: mean_n w_n max_{s in S} k(u_n, u_s) over the targets n. Greedy gain of x: mean_n w_n [k(x, n) - kappa_n]_+,
kappa_n the TARGET's best similarity so far. It is monotone submodular: a gain that was right some picks ago bounds
today's from above, so refreshing only the candidates with the largest bounds gives exactly the plain greedy sequence
(Minoux 1978). Memory: O(N D + R N), blocks, and at most `column_bytes` of similarities of recent candidates. Once few
pairs can still gain, `closer` answers the same question from lists of them.

Sources: Bae et al. 2024 (MaxHerding, 2407.12212), 2025 (UHerding, 2412.20644); Kothawade et al. 2021 (SIMILAR,
2107.00717) for facility location and its query-conditioned forms.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from alfm.geometry import steps
from alfm.geometry.coverage import block_pairs
from alfm.spaces import Centred

if TYPE_CHECKING:
    from alfm.pool import Vectors

# Candidates per product, padded to it: with one shape for every product a similarity is the same number, to the last
# bit, in whatever batch it is computed, so that kappa is a function of the set added and a resumed run picks alike.
WIDTH = 32


# -- similarities ----------------------------------------------------------------------------------------------------


class Kernel(Protocol):
    """Similarity from inner products; overwrites and returns `dots`. Kernels that are equal are computed once.

    floor: the closeness of a target to nothing at all; nothing: the similarity.
    """

    floor: ClassVar[float]

    @property
    def nothing(self) -> float: ...

    def __call__(self, dots: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
        """dots: <x_i, y_j> (a, b); sq_x: |x_i|^2 (a,); sq_y: |y_j|^2 (b,). Returns (a, b)."""
        ...

    def closeness(self, dots: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
        """What the similarity rises with, whatever the kernel's parameters; arguments as above, overwrites `dots`."""
        ...

    def similarity(self, closeness: np.ndarray) -> np.ndarray:
        """The similarity at some closeness, never falling; same shape and type."""
        ...

    def diagonal(self, sq: Tensor) -> Tensor:
        """k(x_i, x_i), (a,), from |x_i|^2 (a,)."""
        ...


@dataclass(frozen=True)
class RBF:
    """exp(-(|x - y| / width)^2)."""

    floor: ClassVar[float] = -math.inf
    nothing: ClassVar[float] = 0.0
    width: float = 1.0

    def __call__(self, dots: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
        scale = 1.0 / self.width**2
        dots.mul_(2.0 * scale).sub_((sq_x * scale)[:, None]).sub_(sq_y * scale)
        return dots.clamp_max_(0.0).exp_()

    def closeness(self, dots: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
        return dots.mul_(2.0).sub_(sq_x[:, None]).sub_(sq_y).clamp_max_(0.0)

    def similarity(self, closeness: np.ndarray) -> np.ndarray:
        # In float64: rounded to float32 it never falls where the closeness rises, which exp in float32 may.
        return np.exp(closeness.astype(np.float64) / self.width**2).astype(closeness.dtype)

    def diagonal(self, sq: Tensor) -> Tensor:
        return torch.ones_like(sq)


@dataclass(frozen=True)
class RBFLessOne(RBF):
    """exp(-(|x - y| / width)^2) - 1, for items so near each other that the exponential is 1 but for rounding.

    Herding's gains are differences of similarities, so they are the same. nothing: at most any similarity.
    """

    nothing: float = -1.0  # type: ignore[misc]

    def __call__(self, dots: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
        return self.closeness(dots, sq_x, sq_y).div_(self.width**2).expm1_()

    def similarity(self, closeness: np.ndarray) -> np.ndarray:
        return np.expm1(closeness.astype(np.float64) / self.width**2).astype(closeness.dtype)

    def diagonal(self, sq: Tensor) -> Tensor:
        return torch.zeros_like(sq)


def rbf(vectors: Vectors, width: float) -> RBF:
    """The RBF kernel of this width in the form that keeps its digits on these coordinates."""
    if not isinstance(vectors.space, Centred) or vectors.level > width**2:
        return RBF(width)
    # no two items are farther apart than twice the largest length
    return RBFLessOne(width=width, nothing=math.expm1(-4 * float(vectors.sq_norms.max()) / width**2))


@dataclass(frozen=True)
class Dot:
    """<x, y>: the cosine on unit features."""

    floor: ClassVar[float] = 0.0
    nothing: ClassVar[float] = 0.0

    def __call__(self, dots: Tensor, sq_x: Tensor, sq_y: Tensor) -> Tensor:
        return dots

    closeness = __call__

    def similarity(self, closeness: np.ndarray) -> np.ndarray:
        return closeness

    def diagonal(self, sq: Tensor) -> Tensor:
        return sq.clone()


def similarities(
    vectors: Vectors, kernel: Kernel, items: Tensor, targets: Tensor | None = None, out: Tensor | None = None
) -> Tensor:
    """k(items, targets), (m, T) for int64 (m,) items and int64 (T,) targets (None: the whole pool)."""
    if out is None:
        out = vectors.sq_norms.new_empty(len(items), vectors.N if targets is None else len(targets))
    for place, start, part in _item_products(vectors, kernel, items, targets):
        out[start : start + part.shape[1], place] = part.T
    return out


def best_similarity(vectors: Vectors, kernel: Kernel, rows: Tensor, targets: Tensor | None = None) -> Tensor:
    """kappa (T,): each target's largest similarity to the items of int64 (m,) rows, at least `kernel.nothing`."""
    kappa = vectors.sq_norms.new_full((vectors.N if targets is None else len(targets),), kernel.nothing)
    for place, _, part in _item_products(vectors, kernel, rows, targets):
        kappa[place] = torch.maximum(kappa[place], part.amax(1))
    return kappa


def _item_products(
    vectors: Vectors, kernel: Kernel, items: Tensor, targets: Tensor | None
) -> Iterator[tuple[slice, int, Tensor]]:
    """(places among the targets, first item, k(targets, items) (b, at most WIDTH)) for all blocks and items."""
    if not len(items):
        return
    short = -len(items) % WIDTH
    padded = torch.cat([items, items[:1].expand(short)])
    q, sq_q = vectors.rows(padded, plain=True), vectors.sq_norms[padded]
    for place, x, sq_x in _target_blocks(vectors, targets):
        for start in range(0, len(items), WIDTH):
            part = slice(start, start + WIDTH)
            # X @ Q.T: a third faster than Q @ X.T when Q is small.
            yield place, start, kernel(x @ q[part].T, sq_x, sq_q[part])[:, : len(items) - start]


def _target_blocks(vectors: Vectors, targets: Tensor | None) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(places among the targets, coordinates (b, D'), squared lengths (b,))."""
    if targets is None:
        for rows, x in vectors.blocks():
            yield rows, x, vectors.sq_norms[rows]
        return
    size = 2048
    for start in range(0, len(targets), size):
        part = targets[start : start + size]
        yield slice(start, start + len(part)), vectors.rows(part, plain=True), vectors.sq_norms[part]


# -- first gains -----------------------------------------------------------------------------------------------------


def first_gains(
    vectors: Vectors,
    kernel: Kernel | Sequence[Kernel],
    kappa: Tensor,
    weight: Tensor | None = None,
    targets: Tensor | None = None,
    cap: Tensor | None = None,
    block: int | None = None,
) -> Tensor:
    """Every item's gain given what is covered, (R, N): mean_n w_n [min(k(x, n), cap_n) - kappa_n]_+.

    kernel: one for all replicates or one per replicate. kappa, weight, cap: (R, T), None = 1 and no cap. targets: pool
    rows int64 (T,), None = the whole pool (T = N). A subset is exact when the other targets weigh nothing, otherwise
    the stated approximation for large pools (a sample of targets).

    Whole pool: one symmetric pass, a pair's product made once for both directions and all replicates; the rest is
    two elementwise passes and a matrix-vector product per replicate and direction on a block in the cache.
    """
    replicates = len(kappa)
    kernels = [kernel] * replicates if callable(kernel) else list(kernel)
    groups: dict[Kernel, list[int]] = {}
    for r, one in enumerate(kernels):
        groups.setdefault(one, []).append(r)
    sq = vectors.sq_norms
    gains = kappa.new_zeros(replicates, vectors.N)

    def add(similar: Tensor, r: int, items: slice, over: slice, across: bool) -> None:
        """Gains of `items` from the targets `over`; across: items are the columns of `similar`, not its rows."""
        turn = (lambda v: v[:, None]) if across else (lambda v: v)
        level = turn(kappa[r, over])
        reach = similar if cap is None else torch.minimum(similar, turn(cap[r, over]))
        rest = torch.sub(reach, level).relu_()
        if weight is None:
            gains[r, items] += rest.sum(0 if across else 1)
        else:
            gains[r, items] += weight[r, over] @ rest if across else rest @ weight[r, over]

    for rows, x, columns, y, sq_y in _pairs(vectors, targets, block):
        dots = x @ y.T
        for i, (one, members) in enumerate(groups.items()):
            similar = one(dots if i == len(groups) - 1 else dots.clone(), sq[rows], sq_y)
            for r in members:
                add(similar, r, rows, columns, across=False)
                if targets is None and rows != columns:
                    add(similar, r, columns, rows, across=True)
    return gains / kappa.shape[1]


def _pairs(
    vectors: Vectors, targets: Tensor | None, block: int | None
) -> Iterator[tuple[slice, Tensor, slice, Tensor, Tensor]]:
    if targets is None:
        for rows, x, columns, y in block_pairs(vectors, block):
            yield rows, x, columns, y, vectors.sq_norms[columns]
        return
    for rows, x in vectors.blocks(block):
        for place, y, sq_y in _target_blocks(vectors, targets):
            yield rows, x, place, y, sq_y


# -- lazy greedy -----------------------------------------------------------------------------------------------------


class Objective(Protocol):
    """A monotone submodular function of a growing set of picks."""

    def gains(self, items: Tensor) -> Tensor:
        """What each of the items, int64 (m,), would add to the picks so far: (m,)."""
        ...

    def add(self, rows: Tensor) -> None:
        """Adds items, int64 (m,), to the picks."""
        ...

    def renew(self, bounds: Tensor) -> bool:
        """Asked before every refresh: lowers all bounds (N,) in place where that is cheaper by now, says if it did."""
        ...


def largest(bounds: Tensor, batch: int) -> Tensor:
    """int64 (min(batch, N),) items of the largest bounds (N,); the first again in place of those at -Inf."""
    values, items = bounds.topk(min(batch, len(bounds)))
    return torch.where(values > -torch.inf, items, items[0])


def lazy_greedy(
    objective: Objective,
    bounds: Tensor,
    allowed: Tensor,
    budget: int,
    batch: int = WIDTH,
    choose: Callable[[Tensor, int], Tensor] = largest,
) -> Tensor:
    """Picks int64 (min(budget, allowed items),): repeatedly the allowed item of largest gain, ties lower index.

    bounds: (N,), at least each item's gain; overwritten with gains as they are found, so it stays valid for the next
    call. allowed: bool (N,). `batch` stale items are refreshed until the largest bound of all is fresh; `choose` finds
    them from the stale bounds (-Inf elsewhere) and always answers with the same number of items.
    """
    free = allowed.to(bounds.device, copy=True)
    picks: list[Tensor] = []
    for _ in range(min(budget, int(free.sum()))):
        fresh = torch.zeros_like(free)
        renewed = False
        while True:
            open_bounds = bounds.where(free, -torch.inf)
            best = open_bounds.argmax()[None]  # the first of equals
            if bool(fresh[best]):
                break
            # Once per pick: a renewal makes nothing fresh, so among many equals a second one could undo the refreshes.
            if not renewed and objective.renew(bounds):
                renewed = True
                fresh.zero_()
                open_bounds = bounds.where(free, -torch.inf)
            items = choose(open_bounds.where(~fresh, -torch.inf), batch)
            bounds[items] = objective.gains(items)
            fresh[items] = True
        objective.add(best)
        free[best] = False
        picks.append(best)
    return torch.cat(picks) if picks else torch.zeros(0, dtype=torch.int64, device=bounds.device)


class Herding:
    """One replicate's herding: `add` what is labelled, `select` what comes next; both may alternate for ever.

    kappa (T,): each target's best similarity to everything added, a function of the set added alone. bounds (N,): upper
    bounds of the gains, kept between rounds, so that only the first round of a replicate needs `first_gains`. That
    holds as long as weights do not grow; with new weights (UHerding) start a new state.
    """

    def __init__(
        self,
        vectors: Vectors,
        kernel: Kernel,
        kappa: Tensor,
        bounds: Tensor,
        weight: Tensor | None = None,
        targets: Tensor | None = None,
        cap: Tensor | None = None,
        bonus: Tensor | None = None,
        column_bytes: int = 128 << 20,
    ) -> None:
        """kappa (T,), weight (T,), cap (T,), targets (T,): as in `first_gains`, without the replicates' dimension.

        bounds: (N,), the row of `first_gains` for this kappa or anything larger. bonus: (N,), a gain of its own for
        each item, added here (facility location about a query set). Neither kappa nor bounds is written to.
        """
        self.vectors, self.kernel, self.targets = vectors, kernel, targets
        self.weight, self.cap, self.bonus = weight, cap, bonus
        self.kappa = kappa.clone()
        self.added: list[Tensor] = []  # pool rows int64 (m,) each, in order: from `prepare` on
        self.bounds = self._above(bounds)
        self._column_bytes = column_bytes
        self._columns: OrderedDict[int, int] = OrderedDict()  # item -> its row of _store, least recent first
        self._cached = torch.zeros(vectors.N, dtype=torch.bool, device=bounds.device)
        self._store = self._room = self.kappa.new_empty(0, len(self.kappa))
        self._made = 0  # similarities' rows made since all bounds were last right

    def add(self, rows: Tensor) -> None:
        """Raises kappa to the similarity with pool rows, int64 (m,)."""
        self.added.append(rows)
        if len(rows) == 1 and int(rows) in self._columns:
            best = self._store[self._columns[int(rows)]]
        else:
            best = best_similarity(self.vectors, self.kernel, rows.to(self.kappa.device), self.targets)
        self.kappa = torch.maximum(self.kappa, best if self.cap is None else torch.minimum(best, self.cap))

    def gains(self, items: Tensor) -> Tensor:
        """Exact gains of int64 (m,) items now, (m,).

        A row at a time, in the caches, and in memory made once: it is the same for every batch, and of a few megabytes
        made and given back for each of them threads would keep many times as much.
        """
        rest = torch.empty_like(self.kappa)
        totals = []
        for similar in self._similar(items):
            if self.cap is not None:
                similar = torch.minimum(similar, self.cap, out=rest)
            torch.sub(similar, self.kappa, out=rest).relu_()
            totals.append(rest.sum() if self.weight is None else rest @ self.weight)
        gain = torch.stack(totals) / len(rest)
        return gain if self.bonus is None else gain + self.bonus[items]

    def look(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """See `steps.Stepwise`: gains (m,), and what kappa would rise to, (m, T)."""
        self._made += len(items)
        similar = similarities(self.vectors, self.kernel, items, self.targets)
        if self.cap is not None:
            similar = torch.minimum(similar, self.cap)
        rest = (similar - self.kappa).relu_()
        gain = (rest.sum(1) if self.weight is None else rest @ self.weight) / rest.shape[1]
        return gain if self.bonus is None else gain + self.bonus[items], similar

    def take(self, row: Tensor, live: Tensor) -> None:
        """See `steps.Stepwise`."""
        self.kappa = torch.where(live, torch.maximum(self.kappa, row), self.kappa)

    def renew(self, bounds: Tensor) -> bool:
        """Exact gains for all by `first_gains`, after a quarter of the pool went through products of WIDTH.

        A pass costs about a fifth of those products (symmetry, and three times their rate). From nothing gains fall so
        fast that stale bounds alone would visit the whole pool several times.
        """
        if self._made * 4 < self.vectors.N:
            return False
        weight, cap = (None if t is None else t[None] for t in (self.weight, self.cap))
        gains = first_gains(self.vectors, self.kernel, self.kappa[None], weight, self.targets, cap)
        bounds.copy_(self._above(gains[0]))
        self._made = 0
        return True

    def _above(self, gains: Tensor) -> Tensor:
        # First gains come from products of another shape: a little above them bounds what `gains` will find.
        bounds = gains * (1 + 64 * torch.finfo(gains.dtype).eps)
        return bounds if self.bonus is None else bounds + self.bonus

    def select(self, allowed: Tensor, budget: int, batch: int = WIDTH) -> Tensor:
        """The next picks, int64 (min(budget, allowed items),), added as they are made. allowed: bool (N,)."""
        if steps.enqueued(self.vectors):
            picks = steps.greedy(self, self.bounds, allowed, budget)
            self.added.append(picks)
            return picks
        picks = lazy_greedy(self, self.bounds, allowed, budget, batch, self._choose)
        self._columns.clear()
        self._cached.zero_()
        self._store = self._room = self._store[:0].clone()  # room for the next replicate
        return picks

    def _choose(self, stale: Tensor, batch: int) -> Tensor:
        """Candidates whose similarities are at hand if the best is one of them, else a full product of others."""
        known = self._cached if bool(self._cached[stale.argmax()]) else ~self._cached
        return largest(stale.where(known, -torch.inf), batch)

    def _similar(self, items: Tensor) -> Iterator[Tensor]:
        """k(item, targets), (T,), item by item: one that is refreshed again and again has its product made once."""
        wanted = items.tolist()
        if len(wanted) > len(self._room):  # the first batch is the largest
            row_bytes = self.kappa.nbytes
            self._store = self.kappa.new_empty(max(len(wanted), self._column_bytes // row_bytes), len(self.kappa))
            self._room = self._store.new_empty(len(wanted), len(self.kappa))
            self._columns.clear()
            self._cached.zero_()
        known = [i for i in wanted if i in self._columns]
        missing = [i for i in dict.fromkeys(wanted) if i not in self._columns]
        for i in known:
            self._columns.move_to_end(i)
        if missing:
            room = self._room[: len(missing)]
            similarities(self.vectors, self.kernel, items.new_tensor(missing), self.targets, out=room)
            self._made += len(missing)
            for i, column in zip(missing, room, strict=True):
                place = len(self._columns)
                if place == len(self._store):
                    oldest, place = self._columns.popitem(last=False)
                    self._cached[oldest] = False
                self._columns[i], self._cached[i] = place, True
                self._store[place] = column
        return (self._store[self._columns[i]] for i in wanted)


def prepare(
    vectors: Vectors,
    kernel: Kernel | Sequence[Kernel],
    added: Sequence[Tensor],
    weight: Tensor | None = None,
    targets: Tensor | None = None,
    cap: Tensor | None = None,
) -> list[Herding]:
    """One state per replicate with the pool rows added[r], int64 (n_r,), and first gains from one shared pass.

    kernel: one or one per replicate. weight, cap: (R, T) or None; targets: int64 (T,) or None, as in `first_gains`.
    """
    kernels = [kernel] * len(added) if callable(kernel) else list(kernel)
    kappa = torch.stack(
        [best_similarity(vectors, k, rows.to(vectors.device), targets) for k, rows in zip(kernels, added, strict=True)]
    )
    if cap is not None:
        kappa = torch.minimum(kappa, cap)
    gains = first_gains(vectors, kernels, kappa, weight, targets, cap)

    def row(t: Tensor | None, r: int) -> Tensor | None:
        return None if t is None else t[r]

    states = [
        Herding(vectors, k, kappa[r], gains[r], row(weight, r), targets, row(cap, r)) for r, k in enumerate(kernels)
    ]
    for state, rows in zip(states, added, strict=True):
        state.added.append(rows)
    return states
