"""Exact D^2 sampling where launches and waits are what costs, as on a GPU: a batch of proposals is a graph, replayed.

What differs from `d2_sampling.D2Sampler`, whose draws these are: bounds, sums and picks of all problems are tensors
that stay on the device, uniform numbers are sent ahead, proposals are made and judged by a kernel each (`alfm.fused`),
and the host asks after some batches how far they are. A problem whose bounds are stale, that makes more than MOST
proposals or runs out of numbers stands still until the host asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from alfm import devices
from alfm.fused.d2_judge import LARGEST, MOST, d2_judge
from alfm.fused.d2_propose import BATCH, COUNT, OVER, PATIENCE, ROW, STALE, USED, WANTED, d2_propose
from alfm.geometry.greedy import repeat

_NUMBERS = 16  # uniform numbers sent for each pick, of which a proposal takes two
_PICKS = 16  # of a batch, before any is known
_WIDE = 3  # batches of more than MOST proposals between two questions


class Enqueued:
    """The draws of R problems; arguments as of `d2_sampling.D2Samplers`."""

    def __init__(
        self,
        sq_norms: Sequence[Tensor],
        factors: Callable[[Tensor], Sequence[Tensor]],
        allowed: Sequence[Tensor] | None,
        budget: Sequence[int],
        rng: Sequence[np.random.Generator],
        weight: Sequence[Tensor] | None,
        floor: float,
    ) -> None:
        self.factors, self.rng, self.floor, self.R = factors, rng, floor, len(sq_norms)
        lengths = [len(sq) for sq in sq_norms]
        self.W = max(16, math.isqrt(max(lengths)))  # sums over rows of a (G, W) table, as a D2Sampler's
        self.G = -(-max(lengths) // self.W)
        wanted = [max(0, min(most, n)) for most, n in zip(budget, lengths, strict=True)]
        self.most = max(1, *wanted)
        self._send(wanted, lengths, sq_norms[0].device)
        self.sq = self._table(sq_norms)
        own = [self._table(one).double() for one in (allowed, weight) if one is not None]
        if weight is not None:  # the host will see that somebody wants a negative number
            self.state[:, WANTED:COUNT].masked_fill_((own[-1] < 0).any(1, keepdim=True), -1)
        self.factor = own[0] if own else (torch.arange(self.G * self.W, device=self.sq.device) <= self.last).double()
        if len(own) > 1:
            self.factor = self.factor * own[1]

    def picks(self, first: Literal["largest"] | None, start: Literal["norms", "exact"]) -> list[Tensor]:
        """Of each problem, int64 (m,). Raises ValueError for a negative weight."""
        self._begin(first, start)
        made, batches = 1, self.most // _PICKS
        if self.most > 1:  # else nobody goes on
            sizes = self.R, self.G, self.W, self.most, self.uniform.shape[1], *(c.shape[2] for c in self.centres)
            kind = self.sq.dtype, *sizes, getattr(self.factors, "__code__", None)
            again = devices.of(self.sq).repeated(self._narrow, kind)
        while True:
            for _ in range(batches):
                again()
            made += batches
            seen = np.array(self.state.tolist())
            going = (seen[:, COUNT] > 0) & (seen[:, COUNT] < seen[:, WANTED]) & (seen[:, OVER] == 0)
            if not going.any():
                break
            batches = self._help(seen, seen[going], made)
        self._give_back(seen[:, USED])
        if (seen[:, WANTED] < 0).any():
            raise ValueError("weights must not be negative")
        return [own[:m] for own, m in zip(self.chosen, seen[:, [WANTED, COUNT]].min(1).tolist(), strict=True)]

    def _help(self, seen: np.ndarray, going: np.ndarray, made: int) -> int:
        """Gives those that go on what they stand still for; how many batches to make until the next question."""
        if (going[:, USED] + 2 * going[:, BATCH] > self.uniform.shape[1]).any():
            self._give_back(seen[:, USED])
            self.uniform.copy_(devices.of(self.sq).sent(torch.from_numpy(self._numbers())))
            self.state[:, USED] = 0
        if going[:, STALE].any():
            self._refresh(int(seen[:, COUNT].max()))
        if (going[:, BATCH] > MOST).any():
            for _ in range(_WIDE):
                self._batch(LARGEST)
            return 0
        left = (going[:, WANTED] - going[:, COUNT]) / going[:, COUNT]
        return min(32, 1 + math.ceil(made * left.max()))

    # -- what the host knows ---------------------------------------------------------------------------------------

    def _send(self, wanted: Sequence[int], lengths: Sequence[int], device: torch.device) -> None:
        """To the device by one copy: numbers, the state, one in which a first row is drawn, and the last rows."""
        state, one = np.zeros((2, self.R, 8))
        state[:, WANTED], state[:, BATCH], state[:, PATIENCE] = wanted, MOST, [max(256, n // 32) for n in lengths]
        one[:, WANTED], one[:, COUNT], one[:, BATCH] = [2 * min(1, most) for most in wanted], 1, 1
        numbers, last = self._numbers(), np.array(lengths)[:, None] - 1
        parts = [numbers, state, one, last]
        sent = devices.of(device).sent(torch.from_numpy(np.concatenate([part.ravel() for part in parts])))
        self.uniform = sent[: numbers.size].view(numbers.shape)
        told = sent[numbers.size :].long().split([part.size for part in parts[1:]])
        self.state, self.one, self.last = (own.view(self.R, -1) for own in told)

    def _numbers(self) -> np.ndarray:
        """The next numbers of each generator, as many as are sent at a time."""
        self.before = [g.bit_generator.state for g in self.rng]
        return np.stack([g.random(2 * LARGEST + _NUMBERS * self.most) for g in self.rng])

    def _give_back(self, used: np.ndarray) -> None:
        """Generators stand where so many numbers are drawn of those that were sent last."""
        for g, before, count in zip(self.rng, self.before, used, strict=True):
            g.bit_generator.state = before
            g.random(int(count))

    # -- what is enqueued ------------------------------------------------------------------------------------------

    def _table(self, parts: Sequence[Tensor]) -> Tensor:
        """(R, G W) of a vector of each problem, 0 behind its end."""
        same = all(len(part) == len(parts[0]) for part in parts)
        every = torch.stack(list(parts)) if same else pad_sequence(list(parts), batch_first=True)
        return pad(every, (0, self.G * self.W - every.shape[1]))

    def _begin(self, first: Literal["largest"] | None, start: Literal["norms", "exact"]) -> None:
        """The first centres and the first bounds."""
        if first == "largest":
            seed = torch.where(self.factor > 0, self.sq, -1).argmax(1, keepdim=True)
            self.state[:, COUNT] = (self.factor > 0).any(1)
        else:
            sums = self.factor.view(self.R, self.G, self.W).sum(2)
            seed, kind = d2_propose(torch.ones_like(self.factor), self.factor, sums, self.uniform, self.one, 1)
            self.state[:, COUNT : USED + 1 : USED - COUNT] = kind > 0  # both
            seed = torch.where(kind == ROW, seed, self.factor.argmax(1, keepdim=True))
        # One place more, where nobody looks; in those that are free yet is the first.
        self.chosen = seed.expand(-1, self.most + 1).clone()
        self.centre_sq = self.sq.gather(1, self.chosen)
        self.centres = [own.expand(-1, self.most + 1, -1).clone() for own in self._factors(seed)]
        if start == "norms":
            norms = self.sq.double().clamp_min(0).sqrt_()
            # A hair above the triangle inequality, so that rounding never puts a bound below the truth.
            bound = (norms + norms.gather(1, seed)).square_().mul_(1 + 4 * self.floor)
            self.bound = bound.scatter_(1, seed, 0)
        else:
            self.bound = torch.full_like(self.factor, torch.inf)
        self.met = torch.zeros_like(self.bound, dtype=torch.int32)
        self.sums = self.bound.new_empty(self.R, self.G)
        if start == "exact":
            self.state[:, STALE] = 1  # of all: not a bound stays infinite
            self._refresh(1)
        else:
            self._sum()

    def _factors(self, rows: Tensor) -> list[Tensor]:
        """Of rows (R, m), each (R, m, D_f)."""
        return [own[None] for own in self.factors(rows[0])] if self.R == 1 else list(self.factors(rows))

    def _narrow(self) -> None:
        self._batch(MOST)

    def _batch(self, width: int) -> None:
        """A batch of proposals of each problem that goes on and makes at most `width`."""
        rows, kind = d2_propose(self.bound, self.factor, self.sums, self.uniform, self.state, width)
        own = self._factors(rows)
        slots = d2_judge(
            rows, kind, _inner(own, self.centres), _inner(own, own), self.sq, self.factor, self.uniform,
            self.bound, self.met, self.sums, self.chosen, self.centre_sq, self.state, self.floor,
        )  # fmt: skip
        for centres, new in zip(self.centres, own, strict=True):
            centres.scatter_(1, slots[..., None].expand_as(new), new)

    def _refresh(self, count: int) -> None:
        """Bounds of those that are stale become true; nobody has more than so many centres."""
        total, upto = self.G * self.W, slice(count)
        centres, sq = [own[:, upto] for own in self.centres], self.centre_sq[:, None, upto]
        size = min(total, devices.of(self.sq).block_rows(self.R * (sum(c.shape[2] for c in centres) + count)))
        places = torch.arange(size, device=self.sq.device)
        start, stale = torch.zeros_like(places[:1]), self.state[:, STALE, None] > 0

        def chunk() -> None:
            rows = start + places
            inner = _inner(self._factors(torch.minimum(rows, self.last)), centres)
            both = self.sq.index_select(1, rows)[..., None] + sq
            distance = torch.sub(both, inner, alpha=2)
            nearest = distance.masked_fill_(distance <= self.floor * both, 0).amin(2)
            known = self.bound.index_select(1, rows)
            self.bound.index_copy_(1, rows, torch.where(stale, torch.minimum(known, nearest.double()), known))
            start.add_(size).clamp_max_(total - size)  # the last chunk has rows of the one before

        repeat(chunk, [self.bound, start], -(-total // size))
        self.met.copy_(torch.where(stale, self.state[:, COUNT, None], self.met))
        self.state[:, STALE] = 0
        self.bound.scatter_(1, self.chosen[:, : self.most], 0)
        self._sum()

    def _sum(self) -> None:
        """The masses of all groups, taken anew."""
        torch.sum((self.bound * self.factor).view(self.R, self.G, self.W), 2, out=self.sums)


def _inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Inner products (R, m, t) of rows that are given by their factors."""
    found = torch.bmm(a[0], b[0].mT)
    for own, other in zip(a[1:], b[1:], strict=True):
        found = found * torch.bmm(own, other.mT)
    return found
