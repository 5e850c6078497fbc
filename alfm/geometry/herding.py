"""Herding and facility location: pick items so that every target has something similar among the picks.

Objective: mean_n w_n max_{s in S} k(u_n, u_s) over the targets n. Greedy gain of x: mean_n w_n [k(x, n) - kappa_n]_+,
kappa_n the TARGET's best similarity so far. It is monotone submodular: a gain that was right some picks ago bounds
today's from above, so refreshing only the candidates with the largest bounds gives exactly the plain greedy sequence
(Minoux 1978). Memory: O(N D + R N), blocks, and at most `column_bytes` of similarities of recent candidates. Once few
pairs can still gain, `herding_lists` answers the same question from lists of them.

Sources: Bae et al. 2024 (MaxHerding, 2407.12212), 2025 (UHerding, 2412.20644); Kothawade et al. 2021 (SIMILAR,
2107.00717) for facility location and its query-conditioned forms.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alfm.geometry import greedy, nearer_pairs
from alfm.geometry.kernels import (
    RBF,
    WIDTH,
    Joined,
    Kernel,
    best_similarities,
    best_similarity,
    looks,
    similarities,
    target_blocks,
)
from alfm.geometry.pairs import block_pairs, in_parts, pair_block, products

if TYPE_CHECKING:
    from alfm.features.features import Vectors

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
    sq, groups = vectors.sq_norms, dict[Kernel | Joined, list[int | slice]]()
    for part in in_parts(vectors, replicates, block or pair_block(vectors)):
        own = Joined(kernels[part], sq) if isinstance(part, slice) else kernels[part]
        groups.setdefault(own, []).append(part)
    gains = kappa.new_zeros(replicates, vectors.N)

    def add(similar: Tensor, own: int | slice, items: slice, over: slice) -> None:
        """Gains (.., a) of `items` for one replicate, or several, from the targets `over`; similar: (.., a, b)."""
        reach = similar if cap is None else torch.minimum(similar, cap[own, over].unsqueeze(-2))
        rest = torch.sub(reach, kappa[own, over].unsqueeze(-2)).relu_()
        gains[own, items] += rest.sum(-1) if weight is None else products(rest, weight[own, over])

    for rows, x, columns, y, sq_y in _pairs(vectors, targets, block):
        dots = x @ y.T
        for i, (one, members) in enumerate(groups.items()):
            similar = one(dots if i == len(groups) - 1 else dots.clone(), sq[rows], sq_y)
            for part in members:
                add(similar, part, rows, columns)
                if targets is None and rows != columns:
                    add(similar.mT, part, columns, rows)
    return gains / kappa.shape[1]


def _pairs(
    vectors: Vectors, targets: Tensor | None, block: int | None
) -> Iterator[tuple[slice, Tensor, slice, Tensor, Tensor]]:
    if targets is None:
        for rows, x, columns, y in block_pairs(vectors, block):
            yield rows, x, columns, y, vectors.sq_norms[columns]
        return
    for rows, x in vectors.blocks(block):
        for place, y, sq_y in target_blocks(vectors, targets):
            yield rows, x, place, y, sq_y


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
        self._added: list[Tensor] = []
        self.bounds = self._above(bounds)
        self._column_bytes = column_bytes
        self._columns: OrderedDict[int, int] = OrderedDict()  # item -> its row of _store, least recent first
        self._cached = torch.zeros(vectors.N, dtype=torch.bool, device=bounds.device)
        self._store = self._room = self.kappa.new_empty(0, len(self.kappa))
        self._made = 0  # similarities' rows made since all bounds were last right
        self.pairs: nearer_pairs.Together | None = None  # of this and other replicates, in the order they were prepared

    @property
    def added(self) -> Tensor:
        """Rows added and picked so far, int64 (n,), in that order, from `prepare` on."""
        return torch.cat(self._added) if self._added else torch.zeros(0, dtype=torch.int64, device=self.kappa.device)

    def add(self, rows: Tensor) -> None:
        """Raises kappa to the similarity with pool rows, int64 (m,)."""
        self._added.append(rows)
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
        return _above(gains, self.bonus)

    def select(self, allowed: Tensor, budget: int, batch: int = WIDTH) -> Tensor:
        """The next picks, int64 (min(budget, allowed items),), added as they are made. allowed: bool (N,)."""
        picks = greedy.lazy(self, self.bounds, allowed, budget, batch, self._choose)
        self._columns.clear()
        self._cached.zero_()
        self._store = self._room = self._store[:0].clone()  # room for the next replicate
        return picks

    def alike(self) -> Hashable:
        """See `greedy.Replicate`."""
        return self.vectors, id(self.targets), self.weight is None, self.cap is None, self.bonus is None

    @classmethod
    def together(cls, states: Sequence[Herding], allowed: Tensor, budget: int) -> list[Tensor]:
        """See `greedy.Replicate`."""
        every = _Together(states)
        found = greedy.stepwise(every, every.bounds, allowed, budget)
        for r, (state, picks) in enumerate(zip(states, found, strict=True)):
            state.kappa, state.bounds, state._made = every.kappa[r], every.bounds[r], every.made
            state._added.append(picks)
        return found

    def _choose(self, stale: Tensor, batch: int) -> Tensor:
        """Candidates whose similarities are at hand if the best is one of them, else a full product of others."""
        known = self._cached if bool(self._cached[stale.argmax()]) else ~self._cached
        return greedy.largest(stale.where(known, -torch.inf), batch)

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


class _Together:
    """Replicates' herding on the same coordinates and targets, for `greedy.stepwise`."""

    def __init__(self, states: Sequence[Herding]) -> None:
        def stacked(name: str) -> Tensor | None:
            return None if getattr(states[0], name) is None else torch.stack([getattr(one, name) for one in states])

        self.vectors, self.targets = states[0].vectors, states[0].targets
        self.kernels = [one.kernel for one in states]
        self.kernel = Joined(self.kernels, self.vectors.sq_norms)
        self.kappa = torch.stack([one.kappa for one in states])
        self.bounds = torch.stack([one.bounds for one in states])
        self.weight, self.cap, self.bonus = stacked("weight"), stacked("cap"), stacked("bonus")
        self.made = max(one._made for one in states)
        self.pairs = states[0].pairs if all(one.pairs is states[0].pairs for one in states) else None
        if self.pairs is not None and self.pairs.R != len(states):
            self.pairs = None  # some go another way
        self.state = [self.kappa]

    def look(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """See `greedy.Stepwise`: gains (R, m), and what kappa would rise to, (R, m, T)."""
        similar = looks(self.vectors, self.kernel, items, self.targets)
        if self.cap is not None:
            similar = torch.minimum(similar, self.cap[:, None])
        rest = (similar - self.kappa[:, None]).relu_()
        gain = rest.sum(2) if self.weight is None else torch.linalg.vecdot(rest, self.weight[:, None])
        gain = gain / rest.shape[2]
        return gain if self.bonus is None else gain + self.bonus.gather(1, items), similar

    def take(self, rows: Tensor, live: Tensor) -> None:
        """See `greedy.Stepwise`."""
        torch.maximum(self.kappa, torch.where(live, rows, -torch.inf), out=self.kappa)

    def renew(self, bounds: Tensor, steps: int) -> bool:
        """See `Herding.renew`; sums over pairs cost less than a step of stale bounds loses."""
        self.made += steps * greedy.refreshed(len(bounds))
        if self.pairs is None and self.made * 4 < self.vectors.N:
            return False
        gains = _gains(self.pairs, self.vectors, self.kernels, self.kappa, self.weight, self.targets, self.cap)
        bounds.copy_(_above(gains, self.bonus))
        self.made = 0
        return True


def _above(gains: Tensor, bonus: Tensor | None) -> Tensor:
    # First gains come from products of another shape: a little above them bounds what `gains` will find.
    bounds = gains * (1 + 64 * torch.finfo(gains.dtype).eps)
    return bounds if bonus is None else bounds + bonus


def prepare(
    vectors: Vectors,
    kernel: Kernel | Sequence[Kernel],
    added: Sequence[Tensor],
    weight: Tensor | None = None,
    targets: Tensor | None = None,
    cap: Tensor | None = None,
    pairs: nearer_pairs.Together | None = None,
) -> list[Herding]:
    """One state per replicate with the pool rows added[r], int64 (n_r,), and first gains from one shared pass.

    kernel: one or one per replicate. weight, cap: (R, T) or None; targets: int64 (T,) or None, as in `first_gains`.
    pairs: those that can still gain, of all these replicates, instead of passes; without targets or caps.
    """
    kernels = [kernel] * len(added) if callable(kernel) else list(kernel)
    kappa = best_similarities(vectors, kernels, [rows.to(vectors.device) for rows in added], targets)
    if cap is not None:
        kappa = torch.minimum(kappa, cap)
    gains = _gains(pairs, vectors, kernels, kappa, weight, targets, cap)

    def row(t: Tensor | None, r: int) -> Tensor | None:
        return None if t is None else t[r]

    states = [
        Herding(vectors, k, kappa[r], gains[r], row(weight, r), targets, row(cap, r)) for r, k in enumerate(kernels)
    ]
    for state, rows in zip(states, added, strict=True):
        state._added.append(rows)
        state.pairs = pairs
    return states


def _gains(
    pairs: nearer_pairs.Together | None,
    vectors: Vectors,
    kernels: Sequence[Kernel],
    kappa: Tensor,
    weight: Tensor | None,
    targets: Tensor | None,
    cap: Tensor | None,
) -> Tensor:
    """`first_gains`, from the pairs that can still gain where they are known."""
    own = [one for one in kernels if isinstance(one, RBF)]
    if pairs is None or len(own) < len(kernels) or len({type(one) for one in own}) > 1:
        return first_gains(vectors, kernels, kappa, weight, targets, cap)
    return pairs.gains(own, kappa, weight)
