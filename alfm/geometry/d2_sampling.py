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
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from alfm.threads import one_thread

Factors = Callable[[Tensor], Sequence[Tensor]]

_BATCH = 64  # proposals drawn together; doubled while nothing is accepted
_LARGEST_BATCH = 1024
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
    weight 0. An item is never returned twice. On CPU the result is a function of the arguments, bit for bit. On CUDA
    bounds and sums stay on the host, and the device is waited for three times per batch of proposals, not per draw.
    Raises ValueError for a negative weight.
    """
    if weight is not None and bool((weight < 0).any()):
        raise ValueError("weights must not be negative")
    sampler = D2Sampler(sq_norms, factors, allowed, budget, rng, weight)
    if sampler.begin(first, start):
        while sampler.count < budget and sampler.draw():
            pass
    return torch.from_numpy(sampler.picks[: sampler.count]).to(sq_norms.device)


class D2Sampler:
    """The draws of `d2_sample` (arguments there), one batch of proposals at a time.

    `bound` (N,) float64 is never below D^2 (to rounding); `met` (N,) counts the centres a row's bound has met;
    `evaluated` counts the distances computed.
    """

    def __init__(
        self,
        sq_norms: Tensor,
        factors: Factors,
        allowed: Tensor,
        budget: int,
        rng: np.random.Generator,
        weight: Tensor | None = None,
    ) -> None:
        self.sq_norms, self.factors, self.rng = sq_norms, factors, rng
        self.N, self.device = len(sq_norms), sq_norms.device
        self.factor = allowed.cpu().numpy().astype(np.float64)  # weight where allowed, else 0
        if weight is not None:
            self.factor *= weight.double().cpu().numpy()
        self.picks = np.zeros(max(0, min(budget, self.N)), dtype=np.int64)
        self.count = 0
        self.evaluated = 0
        self.bound = np.full(self.N, np.inf)
        self.met = np.zeros(self.N, dtype=np.int64)
        # mass = factor x bound, with sums over rows of a (groups, sqrt N) table: O(sqrt N) per proposal, no limit on N.
        self.width = max(16, math.isqrt(self.N))
        self.mass = np.zeros((-(-self.N // self.width), self.width))
        self.sums = np.zeros(len(self.mass))
        self.centres: list[Tensor] = []
        self.centre_sq = sq_norms.new_zeros(len(self.picks))
        self.floor = _ROUNDING * torch.finfo(sq_norms.dtype).eps
        self.batch = _BATCH

    def begin(self, first: Literal["largest"] | None, start: Literal["norms", "exact"]) -> bool:
        """The first centre and the first bounds; False when there is nothing to draw from."""
        candidates = self.factor > 0
        if not len(self.picks) or not candidates.any():
            return False
        sq = self.sq_norms.double().clamp_min(0).cpu().numpy()
        if first == "largest":
            seed = int(np.where(candidates, sq, -1.0).argmax())  # NumPy's argmax is the first of equals
        else:
            cumulative = np.cumsum(self.factor)
            seed = int(np.searchsorted(cumulative, self.rng.random() * cumulative[-1], side="right"))
            seed = min(seed, int(candidates.nonzero()[0][-1]))
        index = torch.tensor([seed], device=self.device)
        self._add(np.array([seed]), self.factors(index), self.sq_norms.index_select(0, index))
        if start == "exact":
            self._refresh()
        else:
            norms = np.sqrt(sq)
            # A hair above the triangle inequality, so that rounding never puts a bound below the truth.
            self.bound = np.square(norms + norms[seed]) * (1 + 4 * self.floor)
            self.bound[seed] = 0.0
            self._sum_all()
        return True

    def draw(self) -> bool:
        """At least one more centre from as few batches as that takes; False when no distance is left."""
        rejected = 0
        while (rows := self._propose(self.batch)) is not None:
            with one_thread():
                added = self._judge(rows)
            if added:
                # About as many proposals as the remaining draws will use up.
                want = (len(self.picks) - self.count) * len(rows) / added
                self.batch = int(min(max(want * 1.1, 8), _BATCH))
                return True
            self.batch = min(2 * self.batch, _LARGEST_BATCH)
            rejected += len(rows)
            if rejected >= max(256, self.N // 32):
                self._refresh()  # all bounds are far above the truth: one pass, and the next proposal is accepted
                rejected = 0
        return False

    def _propose(self, batch: int) -> np.ndarray | None:
        cumulative = np.cumsum(self.sums)
        if not cumulative[-1] > 0:
            return None
        target = self.rng.random(batch) * cumulative[-1]
        group = np.searchsorted(cumulative, target, side="right").clip(max=len(cumulative) - 1)
        within = np.cumsum(self.mass[group], axis=1)
        inside = target - (cumulative[group] - self.sums[group])
        column = (within <= inside[:, None]).sum(1).clip(max=self.width - 1)
        # Rounding may point past the end of a group, at a row without mass: no proposal.
        return (group * self.width + column)[self.mass[group, column] > 0]

    def _judge(self, rows: np.ndarray) -> int:
        """Accept or reject proposals in order; returns how many became centres."""
        if not len(rows):
            return 0
        index = torch.from_numpy(rows).to(self.device)
        mine, sq = self.factors(index), self.sq_norms.index_select(0, index)
        found = self._distances(mine, sq, mine, sq)
        nearest = self._nearest(rows, mine, sq)
        if nearest is not None:
            found = torch.cat([found, nearest[:, None]], 1)  # one wait for both
        host = found.double().cpu().numpy()
        between = host[:, : len(rows)]
        true = self.bound[rows] if nearest is None else np.minimum(self.bound[rows], host[:, -1])
        between[rows[:, None] == rows] = 0.0  # exactly, whatever the rounding: no row becomes a centre twice
        threshold = self.rng.random(len(rows)) * self.bound[rows]
        chosen: list[int] = []
        for j in range(len(rows)):
            if threshold[j] < true[j]:
                chosen.append(j)
                np.minimum(true, between[j], out=true)
                if self.count + len(chosen) == len(self.picks):
                    break
        if chosen:
            place = torch.tensor(chosen, device=self.device)
            self._add(rows[chosen], [f.index_select(0, place) for f in mine], sq.index_select(0, place))
        self._store(rows, true)
        return len(chosen)

    def _add(self, rows: np.ndarray, factors: Sequence[Tensor], sq: Tensor) -> None:
        if not self.centres:
            self.centres = [f.new_empty(len(self.picks), f.shape[1]) for f in factors]
        slots = slice(self.count, self.count + len(rows))
        for kept, f in zip(self.centres, factors, strict=True):
            kept[slots] = f
        self.centre_sq[slots] = sq
        self.picks[slots] = rows
        self.count += len(rows)

    def _nearest(self, rows: np.ndarray, mine: Sequence[Tensor], sq: Tensor) -> Tensor | None:
        """Squared distance (m,) of rows to the nearest centre that one of them has not met; None where there is none.

        An earlier bound already holds the centres a row has met.
        """
        since = int(self.met[rows].min())
        self.evaluated += len(rows) * (self.count - since)
        if since == self.count:
            return None
        others = [c[since : self.count] for c in self.centres]
        return self._distances(mine, sq, others, self.centre_sq[since : self.count]).amin(1)

    def _distances(self, a: Sequence[Tensor], sq_a: Tensor, b: Sequence[Tensor], sq_b: Tensor) -> Tensor:
        """Squared distances (m, t); what is below rounding is 0."""
        inner = a[0] @ b[0].T
        for f, g in zip(a[1:], b[1:], strict=True):
            inner = inner * (f @ g.T)
        sq = sq_a[:, None] + sq_b
        distance = sq - 2 * inner
        return distance.masked_fill_(distance <= self.floor * sq, 0)

    def _store(self, rows: np.ndarray, true: np.ndarray) -> None:
        self.bound[rows] = true
        self.met[rows] = self.count
        group, column = np.divmod(rows, self.width)
        self.mass[group, column] = true * self.factor[rows]
        # Sums are taken again, not adjusted: no drift, and a group of zeros sums to exactly 0.
        self.sums[group] = self.mass[group].sum(1)

    def _refresh(self) -> None:
        """Every candidate's bound becomes its true value: one pass over the pool."""
        for start in range(0, self.N, 4096):
            rows = np.arange(start, min(start + 4096, self.N))
            rows = rows[(self.factor[rows] > 0) & (self.met[rows] < self.count)]
            if len(rows):
                index = torch.from_numpy(rows).to(self.device)
                nearest = self._nearest(rows, self.factors(index), self.sq_norms.index_select(0, index))
                assert nearest is not None  # nobody here has met all centres
                self.bound[rows] = np.minimum(self.bound[rows], nearest.double().cpu().numpy())
                self.met[rows] = self.count
        self.bound[self.picks[: self.count]] = 0.0
        self._sum_all()

    def _sum_all(self) -> None:
        candidates = self.factor > 0
        self.mass.reshape(-1)[: self.N][candidates] = self.bound[candidates] * self.factor[candidates]
        self.sums = self.mass.sum(1)
