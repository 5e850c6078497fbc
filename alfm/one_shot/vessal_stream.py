"""VeSSAL on a stream that is seen once (Saran et al. 2023, arXiv 2303.02535, algorithm 1)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alfm.strategies.parts.gradients import prediction_error
from alfm.streams import stream

REMEMBERED = 4096
"""Gradients of the past whose mean stands for that of all: exact for so many, a uniform sample of them from then on."""

ROUNDING = 1e-12


class VessalStream:
    """Items in, in any blocks; which of them are taken, out.

    The rule is that of `alfm.strategies.vessal`: x = (p - e_y) (outer) phi, S = ridge I + the x x^T of what was taken;
    an item is taken with probability rate * x^T S^-1 x / tr(Cov S^-1). `count` of `length` items: rate = (count -
    taken) / (length - seen), and the last items are taken when as many are still wanted, so that count come out.
    `rate`: a fixed one. Items are held by nobody. Everything is float64.
    Cost of an item: O(B (D + C + B)) for B taken so far; memory O((B + R) (D + C + B)), R = `remembered`.
    """

    def __init__(
        self,
        count: int | None = None,
        length: int | None = None,
        rate: float | None = None,
        ridge: float = 0.01,
        seed: int = 0,
        remembered: int = REMEMBERED,
    ) -> None:
        """Either count and length, or rate."""
        self.count, self.length, self.rate, self.ridge, self.remembered = count, length, rate, ridge, remembered
        self.seen = self.taken = 0
        self._uniform, self._places = stream(seed, 0, "vessal stream"), stream(seed, 0, "vessal memory")
        self._past: _Gradients | None = None
        self._chosen: _Gradients | None = None
        self._factor = np.zeros((0, 0))

    @property
    def full(self) -> bool:
        """Is everything taken that was wanted?"""
        return self.count is not None and self.taken >= self.count

    def take(self, phi: Tensor, logits: Tensor) -> np.ndarray:
        """The next b items, phi (b, D) and logits (b, C) -> which are taken, bool (b,)."""
        block = _Gradients(phi.double().cpu(), prediction_error(logits.double().cpu()))
        if self._chosen is None:
            self._chosen = block.some(slice(0, 0))
            self._past = block.some(slice(0, 0))
        assert self._past is not None
        block.explain(self._chosen, self._factor, self.ridge)
        past, b = self._past, len(block.leverage)
        uniform, place = self._uniform.random(b), np.arange(self.seen, self.seen + b)
        out, at = np.zeros(b, bool), 0
        while at < b and not self.full:
            before = self.seen * past.leverage.mean() if len(past.leverage) else 0.0
            trace = (before + block.leverage.cumsum()) / (place + 1)
            share = np.divide(block.leverage, trace, out=np.ones(b), where=trace > 0)
            hits = np.flatnonzero(((uniform < self._rate(place) * share) | self._last(place))[at:])
            if not len(hits):
                break
            pick = at + int(hits[0])
            out[pick], at = True, pick + 1
            self.taken += 1
            new = block.some(slice(pick, pick + 1))
            # no smaller than what rounding leaves of a long gradient, or errors would grow with every pick
            scale = float(np.sqrt(max(self.ridge * (1 + new.leverage[0]), ROUNDING * new.length[0])))
            for others in (block, past):
                others.add(new, scale, self.ridge)
            self._grow(new, scale)
        self.seen += b
        self._remember(block)
        return out

    def _rate(self, place: np.ndarray) -> np.ndarray | float:
        if self.rate is not None:
            return self.rate
        assert self.count is not None and self.length is not None
        return (self.count - self.taken) / np.maximum(self.length - place, 1)

    def _last(self, place: np.ndarray) -> np.ndarray:
        if self.count is None or self.length is None:
            return np.zeros(len(place), bool)
        return self.length - place <= self.count - self.taken

    def _grow(self, new: _Gradients, scale: float) -> None:
        assert self._chosen is not None
        B = len(self._factor)
        grown = np.zeros((B + 1, B + 1))
        grown[:B, :B], grown[B, :B], grown[B, B] = self._factor, new.residuals[0, :B], scale
        self._factor = grown
        self._chosen = self._chosen.and_(new)

    def _remember(self, block: _Gradients) -> None:
        """Keeps a uniform sample of everything seen: algorithm R of Vitter 1985."""
        assert self._past is not None
        first = self.seen - len(block.leverage)
        room = max(0, self.remembered - len(self._past.leverage))
        self._past = self._past.and_(block.some(slice(0, room)))
        later = np.arange(room, len(block.leverage))
        if len(later):
            where = (self._places.random(len(later)) * (first + later + 1)).astype(np.int64)
            kept = where < self.remembered
            self._past.replace(where[kept], block, later[kept])


class _Gradients:
    """x_i = error_i (outer) phi_i of b items.

    residuals (b, B): their rows of the Cholesky factor of ridge I + the Gram matrix of what was taken; leverage (b,):
    x^T S^-1 x.
    """

    def __init__(
        self, phi: Tensor, error: Tensor, residuals: np.ndarray | None = None, leverage: np.ndarray | None = None
    ) -> None:
        self.phi, self.error = phi, error
        self.residuals = np.zeros((len(phi), 0)) if residuals is None else residuals
        self.leverage = np.zeros(len(phi)) if leverage is None else leverage

    @property
    def length(self) -> np.ndarray:
        """|x|^2, (b,)."""
        return (torch.linalg.vecdot(self.phi, self.phi) * torch.linalg.vecdot(self.error, self.error)).numpy()

    def products(self, others: _Gradients) -> np.ndarray:
        """Inner products with others, (b, B)."""
        return ((self.phi @ others.phi.T) * (self.error @ others.error.T)).numpy()

    def explain(self, chosen: _Gradients, factor: np.ndarray, ridge: float) -> None:
        """Residuals and leverage, given what was taken so far and its factor (B, B)."""
        if len(factor):
            lower, known = torch.from_numpy(factor), torch.from_numpy(self.products(chosen))
            self.residuals = torch.linalg.solve_triangular(lower, known.T, upper=False).T.numpy()
        self.leverage = np.maximum(self.length - np.square(self.residuals).sum(1), 0) / ridge

    def add(self, new: _Gradients, scale: float, ridge: float) -> None:
        """One more item is taken."""
        if not len(self.leverage):
            self.residuals = np.zeros((0, new.residuals.shape[1] + 1))
            return
        column = (self.products(new)[:, 0] - self.residuals @ new.residuals[0]) / scale
        self.residuals = np.column_stack([self.residuals, column])
        self.leverage = np.maximum(self.leverage - np.square(column) / ridge, 0)

    def some(self, which: slice) -> _Gradients:
        return _Gradients(self.phi[which], self.error[which], self.residuals[which], self.leverage[which])

    def and_(self, others: _Gradients) -> _Gradients:
        """Both; those with fewer residuals have none with what came later."""
        width = max(self.residuals.shape[1], others.residuals.shape[1])
        residuals = [np.pad(r, ((0, 0), (0, width - r.shape[1]))) for r in (self.residuals, others.residuals)]
        return _Gradients(
            torch.cat([self.phi, others.phi]), torch.cat([self.error, others.error]), np.concatenate(residuals),
            np.concatenate([self.leverage, others.leverage]),
        )  # fmt: skip

    def replace(self, places: np.ndarray, others: _Gradients, which: np.ndarray) -> None:
        """Puts some of the others into places; of one place named twice the later."""
        for place, other in zip(places, which, strict=True):
            self.phi[place], self.error[place] = others.phi[other], others.error[other]
            self.residuals[place], self.leverage[place] = others.residuals[other], others.leverage[other]
