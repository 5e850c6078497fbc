"""k-center greedy (farthest first), lazy and exact.

Distances to the nearest centre only fall as centres are added, so an old distance is an upper bound. A row whose bound
is up to date and is the largest of all bounds is the farthest item, whatever the other bounds hide. Only a block of the
largest bounds is therefore kept up to date; it is refilled when a bound outside it becomes the largest.

Farthest-first traversal: Gonzalez 1985. As a query strategy: Sener & Savarese 2018 (arXiv 1708.00489).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.features.features import Vectors
from alfm.features.spaces import unit_rows
from alfm.geometry import greedy
from alfm.threads import one_thread

# Below this many units of rounding |x|^2 + |c|^2 - 2xc is noise, and is taken again from the differences.
_ROUNDING = 32
# Centres that all rows meet in the first pass: enough for good bounds, and few (benchmarks/notes/neighbours.md).
_FIRST = 64


class FarthestFirst:
    """Distances of a pool's items to a growing set of centres; one replicate's, kept between rounds.

    vectors: the pool in one space. metric: "l2", or "cosine" (l2 between unit vectors: the same order as 1 - cos).
    Centres are only ever added. `evaluated` counts the distances computed.
    """

    def __init__(self, vectors: Vectors, metric: Literal["l2", "cosine"] = "l2") -> None:
        if metric not in ("l2", "cosine"):
            raise ValueError(f"metric must be l2 or cosine, got {metric!r}")
        self.vectors, self.metric = vectors, metric
        self.N, self.device = vectors.N, vectors.device
        self.dtype = vectors.pool.dtype
        # (capacity, D); the first `count` rows are in use
        self.centres = torch.empty(0, vectors.dim, dtype=self.dtype, device=self.device)
        self.count = 0
        self.evaluated = 0
        self._added: list[Tensor] = []
        self.is_centre = torch.zeros(self.N, dtype=torch.bool, device=self.device)
        # Upper bounds of the squared distance to the nearest centre, and how many centres each bound has met.
        self.bound = torch.full((self.N,), torch.inf, dtype=self.dtype, device=self.device)
        self.met = torch.zeros(self.N, dtype=torch.int32, device=self.device)
        self._seen = 0  # centres that every row has met, as far as the host knows
        # Rows kept up to date: 1 % of the pool. Fewer are refilled too often, and a refill partitions all bounds.
        self.block = min(1 << 14, max(128, self.N // 100))
        self.floor = _ROUNDING * torch.finfo(self.dtype).eps

    @property
    def added(self) -> Tensor:
        """Rows added and picked so far, int64 (n,), in that order."""
        return torch.cat(self._added) if self._added else self.is_centre.nonzero()[:0, 0]

    def add(self, rows: Tensor) -> None:
        """Append centres by pool row, int64 (m,). Rows that are centres already are passed over; no distance yet."""
        self._added.append(rows.to(self.device))
        rows = rows.to(self.device)
        if devices.of(self.device).looks_are_free:  # elsewhere a centre that is there twice costs less than to look
            rows = torch.unique(rows)
            rows = rows[~self.is_centre[rows]]
        if len(rows):
            self._append(rows)

    def select(self, allowed: Tensor, budget: int) -> Tensor:
        """Farthest-first picks among the allowed, which become centres: int64 (m,), m = min(budget, allowed.sum()).

        allowed: (N,) bool. Ties, all at distance 0 included: the lower index. With no centre yet, the first pick is
        the allowed item farthest from the mean of the pool.
        """
        budget = min(budget, int(allowed.sum()))
        if budget <= 0:
            return allowed.nonzero()[:0, 0]
        first: list[Tensor] = []
        if self.count == 0:
            first = [self._farthest_from_mean(allowed)]
            self._append(first[0])
            allowed = allowed.clone()
            allowed[first[0]] = False
            budget -= 1
        if budget and not self._seen:
            self._first_pass()
        picks = torch.cat([*first, self._lazy(allowed, budget)])
        self._added.append(picks)
        return picks

    def alike(self) -> Hashable:
        """See `greedy.Replicate`."""
        return self.N, self.centres.shape[1], self.dtype, self.metric

    # -- the two ways to pick ------------------------------------------------------------------------------------

    @classmethod
    def together(cls, states: Sequence[FarthestFirst], allowed: Tensor, budget: int) -> list[Tensor]:
        """See `greedy.Replicate`: a product of the pool with every replicate's newest centre per pick."""
        left = allowed.sum(1, keepdim=True).clamp_max(budget)
        wanted = left.flatten().tolist()
        picks = left.new_zeros(len(states), max(wanted) + 1)  # the last place is for replicates that are done
        closed, slot = ~allowed, torch.zeros_like(left)
        made = [0] * len(states)
        for r, state in enumerate(states):
            if wanted[r] and not state.count:
                picks[r, :1] = first = state._farthest_from_mean(allowed[r])
                state._append(first)
                closed[r].index_fill_(0, first, True)
                slot[r] += 1
                made[r] = 1
        cls._catch_up([state for state, w in zip(states, wanted, strict=True) if w])
        bound = torch.stack([state.bound for state in states])
        shared = all(state.vectors is states[0].vectors for state in states)
        ways = [state._way() for state in (states[:1] if shared else states)]

        def step() -> None:
            pick = bound.masked_fill(closed, -torch.inf).argmax(1, keepdim=True)  # the first of equals
            live = slot < left
            picks.scatter_(1, torch.where(live, slot, picks.shape[1] - 1), pick)
            closed.scatter_(1, pick, True)
            slot.add_(live)
            distance = torch.cat([way(rows) for way, rows in zip(ways, pick[:, 0].chunk(len(ways)), strict=True)])
            distance.scatter_(1, pick, 0.0)
            torch.minimum(bound, torch.where(live, distance, torch.inf), out=bound)

        greedy.repeat(step, [picks, closed, slot, bound], max(w - m for w, m in zip(wanted, made, strict=True)))
        found = [own[:w] for own, w in zip(picks, wanted, strict=True)]
        for r, (state, own) in enumerate(zip(states, found, strict=True)):
            if len(own):
                state.bound = bound[r]
                state._append(own[made[r] :])
                state.met.fill_(state.count)
                state._seen = state.count
                state.evaluated += state.N * len(own)
                state._added.append(own)
        return found

    def _lazy(self, allowed: Tensor, budget: int) -> Tensor:
        open_ = torch.where(allowed, self.bound, -torch.inf).cpu().numpy()
        met = self.met.cpu().numpy()  # on CPU: the state itself, written in place
        stored = self.bound.cpu().numpy()
        hot = np.zeros(0, dtype=np.int64)
        x = sq = torch.empty(0)  # of `hot`
        picks = np.zeros(budget, dtype=np.int64)
        for slot in range(budget):
            if len(hot):
                self._meet(hot, x, sq, open_, stored, met)
            while True:
                best = int(open_.argmax())  # the first of equals
                if met[best] == self.count or open_[best] == 0:
                    break
                hot = self._largest(open_, best)
                index = torch.from_numpy(hot).to(self.device)
                x = self._rows(index)
                sq = torch.linalg.vecdot(x, x)
                self._meet(hot, x, sq, open_, stored, met)
            picks[slot] = best
            open_[best], stored[best] = -np.inf, 0
            self._append(torch.tensor([best], device=self.device))
        # on CPU the very same memory
        self.bound, self.met = torch.from_numpy(stored).to(self.device), torch.from_numpy(met).to(self.device)
        return torch.from_numpy(picks).to(self.device)

    def _largest(self, open_: np.ndarray, best: int) -> np.ndarray:
        """The rows of the largest bounds, `best` among them."""
        if self.block >= self.N:
            rows = np.arange(self.N)
        else:
            rows = np.argpartition(open_, self.N - self.block)[-self.block :]
            if best not in rows:  # hidden among equals
                rows[0] = best
        return np.sort(rows[open_[rows] > -np.inf])

    def _meet(
        self, rows: np.ndarray, x: Tensor, sq: Tensor, open_: np.ndarray, stored: np.ndarray, met: np.ndarray
    ) -> None:
        """Bring the bounds of rows, whose vectors are x, up to date."""
        since = int(met[rows].min())
        if since == self.count:
            return
        self.evaluated += len(rows) * (self.count - since)
        with one_thread():
            distance = self._distances(x, sq, self.centres[since : self.count]).cpu().numpy()
        live = open_[rows] > -np.inf  # a pick stays out
        value = np.minimum(stored[rows], distance)
        stored[rows] = value
        open_[rows[live]] = value[live]
        met[rows] = self.count

    def _way(self) -> Callable[[Tensor], Tensor]:
        """int64 (m,) rows -> squared distances (m, N) to all items, by kernels alone."""
        sq, scale = self.vectors.sq_norms, None
        if self.metric == "cosine":
            scale = sq.sqrt().clamp_min(torch.finfo(sq.dtype).tiny).reciprocal()
            sq = (sq > 0).to(sq.dtype)

        def distances(rows: Tensor) -> Tensor:
            centres = self._rows(rows)
            inner = torch.cat([centres @ x.T for _, x in self.vectors.blocks()], 1)
            if scale is not None:
                inner = inner * scale
            both = sq + torch.linalg.vecdot(centres, centres)[:, None]
            distance = both - 2 * inner
            return torch.where(distance <= self.floor * both, 0, distance)

        return distances

    # -- passes over the pool ------------------------------------------------------------------------------------

    def _first_pass(self) -> None:
        """All rows against a few centres: with no bound at all laziness would visit every row. The rest is lazy."""
        few = min(self.count, _FIRST)
        for rows, x in self._blocks():
            distance = self._distances(x, torch.linalg.vecdot(x, x), self.centres[:few])
            self.bound[rows] = torch.minimum(self.bound[rows], distance)
        self.bound[self.is_centre] = 0
        self.met.fill_(few)
        self._seen = few
        self.evaluated += self.N * few

    @classmethod
    def _catch_up(cls, states: Sequence[FarthestFirst]) -> None:
        """All rows against the centres that some row may not have met, by products of those that are as far."""
        groups: dict[tuple[int, int], list[FarthestFirst]] = {}
        for state in states:
            if state._seen < state.count:
                groups.setdefault((state._seen, state.count), []).append(state)
        for (since, until), own in groups.items():
            size = devices.of(own[0].device).at_once(len(own), own[0].N * (until - since), 1)
            for start in range(0, len(own), size):
                cls._meet_all(own[start : start + size], since, until)

    @classmethod
    def _meet_all(cls, states: Sequence[FarthestFirst], since: int, until: int) -> None:
        centres = _stacked([state.centres[since:until] for state in states])
        shared = all(state.vectors is states[0].vectors for state in states)
        for parts in zip(*(state._blocks() for state in states[: 1 if shared else None]), strict=True):
            rows, x = parts[0][0], _stacked([x for _, x in parts])
            distance = states[0]._distances(x, torch.linalg.vecdot(x, x), centres)
            for state, own in zip(states, distance.view(len(states), -1), strict=True):
                torch.minimum(state.bound[rows], own, out=state.bound[rows])
        for state in states:
            state.bound.masked_fill_(state.is_centre, 0.0)
            state.met.fill_(until)
            state._seen = until
            state.evaluated += state.N * (until - since)

    def _farthest_from_mean(self, allowed: Tensor) -> Tensor:
        total = torch.zeros(self.centres.shape[1], dtype=torch.float64, device=self.device)
        for _, x in self._blocks():
            total += x.sum(0, dtype=torch.float64)
        mean = (total / self.N).to(self.dtype)
        distance = torch.cat([(x - mean).square().sum(1) for _, x in self._blocks()])
        distance = torch.where(allowed, distance, -torch.inf)
        order = torch.arange(self.N, device=self.device)
        return torch.where(distance == distance.amax(), order, self.N).amin().reshape(1)

    # -- pieces --------------------------------------------------------------------------------------------------

    def _rows(self, index: Tensor) -> Tensor:
        x = self.vectors.rows(index, plain=True)
        return unit_rows(x) if self.metric == "cosine" else x

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for rows, x in self.vectors.blocks():
            yield rows, unit_rows(x) if self.metric == "cosine" else x

    def _reserve(self, count: int) -> None:
        if count > len(self.centres):
            room = self.centres.new_empty(max(count, 2 * len(self.centres), 64), self.centres.shape[1])
            room[: self.count] = self.centres[: self.count]
            self.centres = room

    def _append(self, rows: Tensor) -> None:
        self._reserve(self.count + len(rows))
        self.centres[self.count : self.count + len(rows)] = self._rows(rows)
        self.is_centre.index_fill_(0, rows, True)  # a number put at a tensor's places would be sent to a GPU
        self.bound.index_fill_(0, rows, 0.0)
        self.count += len(rows)

    def _distances(self, x: Tensor, sq: Tensor, centres: Tensor) -> Tensor:
        """Squared distances (b,) of x (b, D) to the nearest of centres (c, D); sq (b,): their squared lengths.

        Or (R, b) of R times so many centres, of all or of R times so many x.
        """
        half = 0.5 * torch.linalg.vecdot(centres, centres)
        if centres.ndim == 2:
            near = torch.addmm(-half, x, centres.T).amax(1)
        else:
            near = torch.baddbmm(-half[:, None], x.expand(len(centres), -1, -1), centres.mT).amax(2)
        distance = sq - 2 * near
        # Equal points must come out at exactly 0, or the last ones of a pool are ordered by rounding.
        noise = distance <= self.floor * 2 * sq
        if not devices.of(x).looks_are_free:
            return distance.masked_fill_(noise, 0.0)
        some = noise.nonzero()[:, 0]
        if len(some):
            exact = torch.cdist(x[some], centres, compute_mode="donot_use_mm_for_euclid_dist").amin(1).square()
            distance[some] = exact
        return distance.clamp_min_(0)


def _stacked(own: Sequence[Tensor]) -> Tensor:
    """One as it is, several with a leading dimension."""
    return own[0] if len(own) == 1 else torch.stack(list(own))
