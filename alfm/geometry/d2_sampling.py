"""Exact D^2 sampling (k-means++ seeding) by rejection from stale upper bounds.

The next centre is drawn with probability D_i^2 / sum_j D_j^2, D_i the distance to the nearest centre so far. The plain
way refreshes all N distances after every draw. Here w_i >= D_i^2 is any upper bound: a row is proposed with probability
w_i / sum w, its true D_i^2 is found against the centres it has not met yet, and it is accepted with probability
D_i^2 / w_i. What is accepted has exactly the plain distribution. Distances only fall, so old bounds stay valid: one
batch of proposals from one w serves several draws in a row, each judged with the centres accepted before it, and
nothing but the batch is looked at. Every evaluated row's bound becomes its true value.

D^2 sampling: Arthur & Vassilvitskii 2007 (k-means++). On gradient embeddings: BADGE, Ash et al. 2020
(arXiv 1906.03671). Envelope rejection: von Neumann 1951.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.fused import operation
from alfm.fused.d2_judge import FEWEST, LARGEST, MOST
from alfm.geometry.d2_enqueued import Enqueued
from alfm.threads import one_thread, side_by_side

Factors = Callable[[Tensor], Sequence[Tensor]]

_CHUNK = 4096  # rows of which a pass over the pool refreshes the bounds at a time
# Below this many units of rounding a squared distance from |a|^2 + |b|^2 - 2ab is noise: the two are one point.
_ROUNDING = 32


def d2_sample(
    sq_norms: Tensor,
    factors: Factors,
    allowed: Tensor,
    budget: int,
    rng: np.random.Generator,
    first: Literal["largest"] | None = "largest",
    weight: Tensor | None = None,
    start: Literal["norms", "exact"] = "norms",
) -> Tensor:
    """Rows drawn one after another with probability proportional to weight_i D_i^2; int64 (m,), m <= budget.

    sq_norms: (N,), |g_i|^2. factors: int64 rows (m,) -> matrices (m, D_f), one per factor; the inner product of two
    items is the product over the factors of the factors' inner products. A gradient embedding g = d x h (outer product)
    has the factors (d, h) and is never materialised; a plain vector has one factor.
    allowed: (N,) bool. weight: (N,) non-negative, or None for 1.
    first: "largest": the first centre is the allowed item of the largest norm, ties to the lower index; None: it is
    drawn with probability proportional to weight, as in k-means++.
    start: the bounds after the first centre. "norms": (|g_i| + |g_first|)^2, no pass over the pool; "exact": one pass,
    for vectors far from the origin, where the norms bound nothing.

    Fewer than `budget` rows come back when every remaining allowed item coincides with a centre (to rounding) or has
    weight 0. An item is never returned twice. On CPU the result is a function of the arguments, bit for bit. On a GPU
    without graphs bounds and sums stay on the host, and the device is waited for twice per batch of proposals.
    Raises ValueError for a negative weight.
    """
    one = [sq_norms], lambda which: factors, [allowed], [budget], [rng]
    return d2_sample_each(*one, first, None if weight is None else [weight], start)[0]


def d2_sample_each(
    sq_norms: Sequence[Tensor],
    factors: Callable[[slice], Factors],
    allowed: Sequence[Tensor] | None,
    budget: Sequence[int],
    rng: Sequence[np.random.Generator],
    first: Literal["largest"] | None = "largest",
    weight: Sequence[Tensor] | None = None,
    start: Literal["norms", "exact"] = "norms",
    resident: bool = True,
) -> list[Tensor]:
    """`d2_sample` of several problems: each a job of its own on CPU; on a GPU their batches go together.

    allowed: None for every row. factors(which): of one problem, or of R' of them, then of rows (R', m) and with R' in
    front of the matrices. resident: it never asks the host, so that it may be part of a graph, which is made where
    judging a batch is a kernel of ours.
    """
    device, R = sq_norms[0].device, len(sq_norms)
    size = devices.of(device).at_once(R, _CHUNK + max(map(len, sq_norms)), 1)

    def sample(which: slice) -> list[Tensor]:
        free, own = (None if given is None else given[which] for given in (allowed, weight))
        if resident and devices.of(device).enqueues_picks and operation.runs(device):
            floor = _ROUNDING * torch.finfo(sq_norms[0].dtype).eps
            made = Enqueued(sq_norms[which], factors(which), free, budget[which], rng[which], own, floor)
            return made.picks(first, start)
        samplers = D2Samplers(sq_norms[which], factors(which), free, budget[which], rng[which], own)
        samplers.begin(first, start)
        while samplers.draw():
            pass
        return samplers.drawn()

    jobs = [partial(sample, slice(begin, min(begin + size, R))) for begin in range(0, R, size)]
    return [picks for group in side_by_side(jobs, device) for picks in group]


class D2Samplers:
    """The draws of several problems (arguments as of `d2_sample_each`), a batch of proposals of each at a time."""

    def __init__(
        self,
        sq_norms: Sequence[Tensor],
        factors: Factors,
        allowed: Sequence[Tensor] | None,
        budget: Sequence[int],
        rng: Sequence[np.random.Generator],
        weight: Sequence[Tensor] | None = None,
    ) -> None:
        lengths = [len(sq) for sq in sq_norms]
        norms = _on_host([sq.double() for sq in sq_norms], lengths)
        factor = [np.ones(n) for n in lengths]  # weight where allowed, else 0
        if allowed is not None:
            factor = [free.astype(np.float64) for free in _on_host(allowed, lengths)]
        if weight is not None:
            weights = _on_host([own.double() for own in weight], lengths)
            if any((own < 0).any() for own in weights):
                raise ValueError("weights must not be negative")
            factor = [free * own for free, own in zip(factor, weights, strict=True)]
        floor = _ROUNDING * torch.finfo(sq_norms[0].dtype).eps
        given = zip(norms, factor, budget, rng, strict=True)
        self.each = [D2Sampler(sq.clip(min=0), own, b, g, floor) for sq, own, b, g in given]
        self.centres = _Centres(sq_norms, factors, max(len(one.picks) for one in self.each), floor)

    def begin(self, first: Literal["largest"] | None, start: Literal["norms", "exact"]) -> None:
        """The first centres and the first bounds."""
        seeds = [one.seed(first) for one in self.each]
        begun = [r for r, seed in enumerate(seeds) if seed is not None]
        if not begun:
            return
        self.centres.begin([seed or 0 for seed in seeds])
        for r in begun:
            self.each[r].begin(seeds[r] or 0, start)
        if start == "exact":
            self._refresh(begun)

    def draw(self) -> bool:
        """A batch of proposals of each, accepted or rejected; False when no one has anything left to draw."""
        rows = [one.propose() for one in self.each]
        if all(own is None for own in rows):
            return False
        proposed = [np.zeros(0, np.int64) if own is None else own for own in rows]
        stale = []
        with one_thread():
            found = self.centres.look(proposed, *self._unmet(proposed))
            for r, (own, one, (between, nearest)) in enumerate(zip(rows, self.each, found, strict=True)):
                if own is not None:
                    accepted, far = one.judge(own, between, nearest)
                    if accepted:  # those before may not have been sent yet, where nobody had a row to look at
                        self.centres.add(r, one.count - len(accepted), accepted)
                    stale += [r] if far else []
        if stale:
            self._refresh(stale)
        return True

    def drawn(self) -> list[Tensor]:
        """The picks of each, int64 (m,)."""
        counts = [one.count for one in self.each]
        picks = np.concatenate([one.picks[:count] for one, count in zip(self.each, counts, strict=True)])
        return list(torch.from_numpy(picks).to(self.centres.device).split(counts))

    def _unmet(self, rows: Sequence[np.ndarray]) -> tuple[int, int]:
        """Which centres one of the rows of one of the samplers has not met: those from .. to."""
        some = [one.unmet(own) for one, own in zip(self.each, rows, strict=True) if len(own)]
        return min((since for since, _ in some), default=0), max((count for _, count in some), default=0)

    def _refresh(self, replicates: Sequence[int]) -> None:
        """Every candidate's bound becomes its true value: one pass over the pool."""
        for start in range(0, max(self.each[r].N for r in replicates), _CHUNK):
            rows = [one.stale(start) if r in replicates else np.zeros(0, np.int64) for r, one in enumerate(self.each)]
            if any(map(len, rows)):
                found = self.centres.look(rows, *self._unmet(rows), between=False)
                for one, own, (_, nearest) in zip(self.each, rows, found, strict=True):
                    if len(own):
                        one.lower(own, nearest)
        for r in replicates:
            self.each[r].sum_all()


def _on_host(parts: Sequence[Tensor], lengths: Sequence[int]) -> list[np.ndarray]:
    """Several vectors on the host, by one copy."""
    return np.split(torch.cat(list(parts)).cpu().numpy(), np.cumsum(lengths)[:-1])


class _Centres:
    """Centres of the samplers, and distances to them, on the device.

    One sampler's rows are (m,), those of R are (R, m): a row and a centre that one has less than another is its first.
    Centres are put to the others with the next rows that are sent.
    """

    def __init__(self, sq_norms: Sequence[Tensor], factors: Factors, most: int, floor: float) -> None:
        self.factors, self.most, self.floor, self.R = factors, most, floor, len(sq_norms)
        self.device = sq_norms[0].device
        self.sq_norms = torch.cat(list(sq_norms))
        starts = np.cumsum([0, *map(len, sq_norms[:-1])])[:, None]
        self.starts = torch.from_numpy(starts).to(self.device) if self.R > 1 else None
        self.added: list[tuple[int, np.ndarray]] = [(0, np.zeros(0, np.int64))] * self.R
        self.mine: list[Tensor] = []  # of the rows that were looked at last: their factors, and |g|^2 (.., m, 1)

    def begin(self, seeds: Sequence[int]) -> None:
        """The first centre of each sampler, in every place."""
        self.mine = self._send([np.array([seed]) for seed in seeds])
        places = (*self.mine[0].shape[:-2], self.most + 1)  # one more, where nobody looks
        self.centres = [own.expand(*places, own.shape[-1]).clone() for own in self.mine]

    def add(self, r: int, place: int, chosen: Sequence[int]) -> None:
        """Of sampler r's rows that were looked at last, those chosen are its centres from `place` on."""
        self.added[r] = place, np.array(chosen, np.int64)

    def look(
        self, rows: Sequence[np.ndarray], since: int, upto: int, between: bool = True
    ) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """Squared distances among each sampler's rows, (m, m), and (m,) to the nearest of its centres since .. upto."""
        if not any(map(len, rows)):
            return [(np.zeros((0, 0)), None)] * self.R
        self.mine = self._send(rows)
        found = [self._distances(self.mine)] if between else []
        if upto > since:
            found.append(self._distances([c[..., since:upto, :] for c in self.centres]).amin(-1, keepdim=True))
        host = torch.cat(found, -1).double().cpu().numpy().reshape(self.R, -1, sum(f.shape[-1] for f in found))
        return [
            (one[: len(own), : len(own)], one[: len(own), -1] if upto > since else None)
            for own, one in zip(rows, host, strict=True)
        ]

    def _send(self, rows: Sequence[np.ndarray]) -> list[Tensor]:
        """Factors of the rows and their |g|^2; what was added since is among the centres from now on."""
        chosen = [own for _, own in self.added]
        slots = [place + np.arange(len(own)) for place, own in self.added]
        parts = [_padded(rows, 0), _padded(chosen, 0), _padded(slots, self.most)]
        sent = torch.from_numpy(np.concatenate(parts, 1)).to(self.device)
        index, place, slot = (sent if self.starts is not None else sent[0]).split([p.shape[1] for p in parts], -1)
        if place.shape[-1]:
            for centres, own in zip(self.centres, self.mine, strict=True):
                new = own.take_along_dim(place[..., None], -2)
                centres.scatter_(-2, slot[..., None].expand_as(new), new)
            self.added = [(0, np.zeros(0, np.int64))] * self.R
        flat = index if self.starts is None else index + self.starts
        sq = self.sq_norms.index_select(0, flat.flatten()).view(*index.shape, 1)
        return [*self.factors(index), sq]

    def _distances(self, others: Sequence[Tensor]) -> Tensor:
        """Squared distances (.., m, t) to rows that are given as `mine` is; what is below rounding is 0."""
        *a, sq_a = self.mine
        *b, sq_b = others
        inner = a[0] @ b[0].mT
        for f, g in zip(a[1:], b[1:], strict=True):
            inner = inner * (f @ g.mT)
        sq = sq_a + sq_b.mT
        distance = sq - 2 * inner
        return distance.masked_fill_(distance <= self.floor * sq, 0)


def _padded(rows: Sequence[np.ndarray], value: int) -> np.ndarray:
    """int64 (R, m) of R vectors."""
    out = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for own, one in zip(out, rows, strict=True):
        own[: len(one)] = one
    return out


class D2Sampler:
    """One problem's side on the host: what it proposes, and which of it become centres.

    sq: |g|^2 (N,) float64, not negative; factor (N,) float64: weight where allowed, else 0. `bound` (N,) float64 is
    never below D^2 (to rounding); `met` (N,) counts the centres a row's bound has met; `evaluated` counts the distances
    computed.
    """

    def __init__(self, sq: np.ndarray, factor: np.ndarray, budget: int, rng: np.random.Generator, floor: float) -> None:
        self.sq, self.factor, self.rng, self.floor, self.N = sq, factor, rng, floor, len(sq)
        self.picks = np.zeros(max(0, min(budget, self.N)), dtype=np.int64)
        self.count = 0
        self.evaluated = 0
        self.bound = np.full(self.N, np.inf)
        self.met = np.zeros(self.N, dtype=np.int64)
        # mass = factor x bound, with sums over rows of a (groups, sqrt N) table: O(sqrt N) per proposal, no limit on N.
        self.width = max(16, math.isqrt(self.N))
        self.mass = np.zeros((-(-self.N // self.width), self.width))
        self.sums = np.zeros(len(self.mass))
        self.batch, self.rejected = MOST, 0

    def seed(self, first: Literal["largest"] | None) -> int | None:
        """The first centre; None when there is nothing to draw from."""
        candidates = self.factor > 0
        if not len(self.picks) or not candidates.any():
            return None
        if first == "largest":
            return int(np.where(candidates, self.sq, -1.0).argmax())  # NumPy's argmax is the first of equals
        cumulative = np.cumsum(self.factor)
        seed = int(np.searchsorted(cumulative, self.rng.random() * cumulative[-1], side="right"))
        return min(seed, int(candidates.nonzero()[0][-1]))

    def begin(self, seed: int, start: Literal["norms", "exact"]) -> None:
        """The first centre's bounds; of "exact" ones a refresh is owed."""
        self.picks[0], self.count = seed, 1
        if start == "norms":
            norms = np.sqrt(self.sq)
            # A hair above the triangle inequality, so that rounding never puts a bound below the truth.
            self.bound = np.square(norms + norms[seed]) * (1 + 4 * self.floor)
            self.bound[seed] = 0.0
            self.sum_all()

    def propose(self) -> np.ndarray | None:
        """A batch of rows, perhaps of none; None when all is drawn or no distance is left."""
        if not 0 < self.count < len(self.picks):
            return None
        cumulative = np.cumsum(self.sums)
        if not cumulative[-1] > 0:
            return None
        target = self.rng.random(self.batch) * cumulative[-1]
        group = np.searchsorted(cumulative, target, side="right").clip(max=len(cumulative) - 1)
        within = np.cumsum(self.mass[group], axis=1)
        inside = target - (cumulative[group] - self.sums[group])
        column = (within <= inside[:, None]).sum(1).clip(max=self.width - 1)
        # Rounding may point past the end of a group, at a row without mass: no proposal.
        return (group * self.width + column)[self.mass[group, column] > 0]

    def unmet(self, rows: np.ndarray) -> tuple[int, int]:
        """Which centres one of the rows has not met: those from .. to."""
        since = int(self.met[rows].min())
        self.evaluated += len(rows) * (self.count - since)
        return since, self.count

    def judge(self, rows: np.ndarray, between: np.ndarray, nearest: np.ndarray | None) -> tuple[list[int], bool]:
        """Which of the rows became centres, in order, and whether bounds are so far above the truth that a refresh is
        due. between (m, m), nearest (m,): see `_Centres.look`."""
        chosen: list[int] = []
        if len(rows):
            chosen = self._accept(rows, between, nearest)
        if chosen:
            # About as many proposals as the remaining draws will use up.
            want = (len(self.picks) - self.count) * len(rows) / len(chosen)
            self.batch, self.rejected = int(min(max(want * 1.1, FEWEST), MOST)), 0
            return chosen, False
        self.batch = min(2 * self.batch, LARGEST)
        self.rejected += len(rows)
        if self.rejected < max(256, self.N // 32):
            return chosen, False
        self.rejected = 0  # after one pass the next proposal is accepted
        return chosen, True

    def _accept(self, rows: np.ndarray, between: np.ndarray, nearest: np.ndarray | None) -> list[int]:
        # an earlier bound already holds the centres a row has met
        true = self.bound[rows] if nearest is None else np.minimum(self.bound[rows], nearest)
        between[rows[:, None] == rows] = 0.0  # exactly, whatever the rounding: no row becomes a centre twice
        threshold = self.rng.random(len(rows)) * self.bound[rows]
        chosen: list[int] = []
        for j in range(len(rows)):
            if threshold[j] < true[j]:
                chosen.append(j)
                np.minimum(true, between[j], out=true)
                if self.count + len(chosen) == len(self.picks):
                    break
        self.picks[self.count : self.count + len(chosen)] = rows[chosen]
        self.count += len(chosen)
        self.bound[rows] = true
        self.met[rows] = self.count
        group, column = np.divmod(rows, self.width)
        self.mass[group, column] = true * self.factor[rows]
        # Sums are taken again, not adjusted: no drift, and a group of zeros sums to exactly 0.
        self.sums[group] = self.mass[group].sum(1)
        return chosen

    def stale(self, start: int) -> np.ndarray:
        """Candidates of a chunk of rows whose bounds have not met all centres."""
        rows = np.arange(start, max(start, min(start + _CHUNK, self.N)))
        return rows[(self.factor[rows] > 0) & (self.met[rows] < self.count)]

    def lower(self, rows: np.ndarray, nearest: np.ndarray | None) -> None:
        """The bounds of rows become their true values."""
        assert nearest is not None  # nobody here has met all centres
        self.bound[rows] = np.minimum(self.bound[rows], nearest)
        self.met[rows] = self.count

    def sum_all(self) -> None:
        """The masses, all taken anew."""
        self.bound[self.picks[: self.count]] = 0.0
        candidates = self.factor > 0
        self.mass.reshape(-1)[: self.N][candidates] = self.bound[candidates] * self.factor[candidates]
        self.sums = self.mass.sum(1)
