"""The objective of softmax regressions side by side, its derivatives and its course along a line."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from alfm import devices
from alfm.threads import side_by_side

LARGE = 1 << 30
"""Multiply-adds of a product from which on it is made of pieces, side by side where there are cores for it."""

_ROWS = 128  # classes in a piece: whole blocks of a product's kernel, so that its numbers are those of the whole


class Point(NamedTuple):
    """A (R, C, k), b (R, C), their logits Z and probabilities P (R, C, n), and the objective f (R,)."""

    A: Tensor
    b: Tensor
    Z: Tensor
    P: Tensor
    f: Tensor


class Line(NamedTuple):
    """A move (R, C, k) of weights and bmove (R, C) of biases, what they move logits by, dZ (R, C, n), and what of
    the objective's slope along them does not depend on how far, each (R,): weights times move, its square,
    targets times dZ.
    """

    move: Tensor
    bmove: Tensor
    dZ: Tensor
    inner: Tensor
    curve: Tensor
    gain: Tensor


class Problem:
    """Arguments as in `solver.solve`; l2 may be a tensor (), where it changes while steps are enqueued."""

    def __init__(self, X: Tensor, Y: Tensor, weight: Tensor, l2: float | Tensor) -> None:
        self.X, self.weight, self.l2 = X, weight, l2
        self.x2 = (weight[..., None] * X.square()).sum(1)[:, None]  # (R, 1, k)
        self.total = weight.sum(1)[:, None]
        self.wY = weight[:, None] * Y

    @cached_property
    def mass(self) -> Tensor:
        """Targets by class, (R, C)."""
        return self.wY.sum(2)

    def at(self, A: Tensor, b: Tensor) -> Point:
        Z = product(A, self.X.mT) + b[..., None]
        return Point(A, b, Z, *_softmax_objective(Z, self.wY, A, self.l2))

    def derivatives(self, at: Point) -> tuple[Tensor, Tensor]:
        """Gradient and diagonal Hessian estimate, (R, C k + C), the biases' part padded."""

        def sums(P: Tensor, wY: Tensor, product: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            wP = self.weight[:, None] * P
            expected = wP.sum(2)
            q = expected - torch.linalg.vecdot(wP, P)  # (R, C) sum w p (1 - p)
            return expected, q, product(wP.sub_(wY), self.X)

        if _by_pieces(at.P, at.P.shape[2] * self.X.shape[2]):
            jobs = [partial(sums, at.P[:, c], self.wY[:, c], _lone_product) for c in _pieces(at.P.shape[1])]
            found = zip(*side_by_side(jobs, at.P.device), strict=True)
            expected, q, slope = (torch.cat(parts, 1) for parts in found)
        else:
            expected, q, slope = sums(at.P, self.wY, product)
        slope = (slope + self.l2 * at.A).flatten(1)
        G = torch.cat([slope, padded(expected - self.mass, 1)], 1)
        # the bias Hessian vanishes for a class that is certain everywhere: a floor keeps its step finite
        bend = ((q / self.total)[..., None] * self.x2 + self.l2).flatten(1)
        return G, torch.cat([bend, padded(q, 1).clamp_min(1e-4)], 1)

    def line(self, at: Point, d: Tensor) -> Line:
        """Along a direction d (R, C k + C), laid out as the gradient."""
        R, C, k = at.A.shape
        move, bmove = d[:, : C * k].view(R, C, k), d[:, C * k : C * k + C]
        dZ = product(move, self.X.mT).add_(bmove[..., None])
        flat = move.flatten(1)
        inner, curve = torch.linalg.vecdot(at.A.flatten(1), flat), torch.linalg.vecdot(flat, flat)
        return Line(move, bmove, dZ, inner, curve, torch.linalg.vecdot(self.wY.flatten(1), dZ.flatten(1)))

    def attempt(
        self, at: Point, line: Line, t: Tensor, again: Tensor, running: Tensor
    ) -> tuple[Point, Tensor, Tensor, Tensor]:
        """One step of Newton's method along the line, on stored logits, from t (R,), for those that are to try `again`.

        The point where it leads and the step used, 0 unless running; t, and bool (R,): is the objective higher there?
        """
        weight, l2 = self.weight, self.l2

        def sums(Z: Tensor, dZ: Tensor) -> tuple[Tensor, Tensor]:
            slopes = torch.softmax(torch.addcmul(Z, t[:, None, None], dZ), 1).mul_(dZ)
            return slopes.sum(1), slopes.mul_(dZ).sum(1)

        m, square = _of_items(sums, at.Z, line.dZ)
        slope = torch.linalg.vecdot(weight, m) - line.gain + l2 * (line.inner + t * line.curve)
        bend = torch.linalg.vecdot(weight, square - m * m) + l2 * line.curve
        newton = t - slope / bend.clamp_min(torch.finfo(bend.dtype).tiny)
        t = torch.where(again, torch.minimum(torch.maximum(newton, 0.1 * t), 5 * t), t)
        used = torch.where(running, t, torch.zeros_like(t))
        A = torch.addcmul(at.A, used[:, None, None], line.move)
        Z = torch.addcmul(at.Z, used[:, None, None], line.dZ)
        P, f = _softmax_objective(Z, self.wY, A, l2)
        worse = f > at.f * (1 + 1e-6)
        return Point(A, at.b + used[:, None] * line.bmove, Z, P, f), used, t, worse


def padded(x: Tensor, dims: int) -> Tensor:
    """Zeros behind the last `dims` dimensions up to a multiple of 16.

    Then every matrix of a batch begins on a 64-byte boundary, as a lone one does: MKL's products differ in their last
    bits when it does not.
    """
    sizes = [-size % 16 for size in reversed(x.shape[-dims:])]
    return torch.nn.functional.pad(x, [part for size in sizes for part in (0, size)]) if any(sizes) else x


def product(a: Tensor, rows: Tensor, out: Tensor | None = None) -> Tensor:
    """(R, C, m) times (R, m, p), or times (1, m, p) for all R: (R, C, p)."""
    if out is None:
        out = a.new_empty(*a.shape[:2], rows.shape[2])
    if len(rows) < len(a):
        torch.mm(a.flatten(0, 1), rows[0], out=out.flatten(0, 1))
        return out
    if not _by_pieces(a, a.shape[2] * rows.shape[2]):
        return torch.bmm(a, rows, out=out)
    jobs = [partial(torch.mm, a[0, part], rows[0], out=out[0, part]) for part in _pieces(a.shape[1])]
    side_by_side(jobs, a.device)
    return out


def _lone_product(a: Tensor, rows: Tensor) -> Tensor:
    return torch.mm(a[0], rows[0])[None]


def _of_items(fn: Callable[..., tuple[Tensor, ...]], *given: Tensor) -> tuple[Tensor, ...]:
    """fn of tensors (R, C, n), which gives sums over the classes (R, n): by pieces that stay in the caches."""
    if not _by_pieces(given[0], given[0].shape[2] * 256):
        return fn(*given)
    jobs = [partial(fn, *(x[..., items] for x in given)) for items in _pieces(given[0].shape[2], 4 * _ROWS)]
    return tuple(torch.cat(parts, 1) for parts in zip(*side_by_side(jobs, given[0].device), strict=True))


def _log_softmax(Z: Tensor) -> Tensor:
    """Over the classes of logits (R, C, n)."""
    if not _by_pieces(Z, Z.shape[2] * 256):
        return torch.log_softmax(Z, 1)
    out = torch.empty_like(Z)

    def some(items: slice) -> None:
        out[:, :, items] = torch.log_softmax(Z[:, :, items], 1)

    side_by_side([partial(some, items) for items in _pieces(Z.shape[2], 4 * _ROWS)], Z.device)
    return out


def _by_pieces(a: Tensor, each: int) -> bool:
    """Is a lone regression, (1, C, ..) with `each` multiply-adds a class, large enough to be shared by all cores? That
    does not depend on how many there are."""
    return len(a) == 1 and a.shape[1] * each >= LARGE and devices.of(a).jobs_run_aside


def _pieces(count: int, size: int = 0) -> list[slice]:
    size = size or _ROWS
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _softmax_objective(Z: Tensor, wY: Tensor, A: Tensor, l2: float | Tensor) -> tuple[Tensor, Tensor]:
    """Logits (R, C, n), weighted targets, weights -> probabilities (R, C, n), objectives (R,)."""
    log_p = _log_softmax(Z)
    loss = -torch.linalg.vecdot(wY.flatten(1), log_p.flatten(1))
    return log_p.exp_(), loss + 0.5 * l2 * A.flatten(1).square().sum(1)
