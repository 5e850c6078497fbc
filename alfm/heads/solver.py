"""L-BFGS (Nocedal & Wright 2006, ch. 7) for several softmax regressions side by side, none of which sees the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SMALL = 1 << 14
"""Logits below which a path remembers 16 steps instead of 32: going through them would cost more than its products."""


def solve(
    X: Tensor,
    Y: Tensor,
    weight: Tensor,
    l2: float,
    active: Tensor,
    A: Tensor,
    b: Tensor,
    tolerance: float,
    max_iterations: int,
    history: int = 8,
) -> tuple[Tensor, Tensor]:
    """R regressions side by side: X (R or 1, n, k), Y (R or 1, C, n) targets, weight (R, n), active (R, C) classes.

    Columns of Y sum to 1. Start and result: A (R, C, k), b (R, C). Stops when g' H0^-1 g / 2 <= tolerance * objective,
    g the gradient and H0 the diagonal Hessian estimate; a replicate that has converged is frozen, and none depends on
    its company. Classes come first, items are side by side: products of some tens of classes run faster so.
    """
    problem = _Problem(X, Y, weight, l2)
    at = _least(problem, problem.at(A, b), _Pairs(history), tolerance, max_iterations)
    return at.A, at.b


def solve_path(
    X: Tensor,
    Y: Tensor,
    weight: Tensor,
    l2: Sequence[float],
    A: Tensor,
    b: Tensor,
    tolerance: float,
    max_iterations: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """`solve` for one strength after the other, each begun where the ones before point to.

    What a solver learns of the curvature holds for the next strength too, but for the penalty's own part, which is
    known: with it a path takes a third of the steps that its fits take alone. Replicates of one path see each other's
    convergence in their last bits: give those together that are always together.
    """
    history = 32 if Y.shape[1] * X.shape[1] > SMALL else 16
    problem, pairs, before = _Problem(X, Y, weight, l2[0]), _Pairs(history), A
    for own in l2:
        if own != problem.l2:
            pairs.penalised(own - problem.l2, A[0].numel())
            problem.l2 = own
        at = _least(problem, problem.at(A + 0.5 * (A - before), b), pairs, tolerance, max_iterations)
        before, A, b = A, at.A, at.b
        yield A, b


def _least(problem: _Problem, at: _Point, pairs: _Pairs, tolerance: float, max_iterations: int) -> _Point:
    """Where the objective is least, to a tolerance; see `solve`."""
    R, C, k = at.A.shape
    step: Tensor | None = None
    old: Tensor | None = None
    for _ in range(max_iterations):
        G, H = problem.derivatives(at)
        running = 0.5 * (G.square() / H).sum(1) > tolerance * at.f
        if not bool(running.any()):
            break
        if step is not None and old is not None:
            pairs.add(step, G - old)
        d = pairs.direction(G, H).neg_()
        at, t = problem.along(at, d[:, : C * k].view(R, C, k), d[:, C * k : C * k + C], running)
        step, old = t[:, None] * d, G
    return at


class _Point(NamedTuple):
    """A (R, C, k), b (R, C), their logits Z and probabilities P (R, C, n), and the objective f (R,)."""

    A: Tensor
    b: Tensor
    Z: Tensor
    P: Tensor
    f: Tensor


class _Problem:
    """The objective, its derivatives, and its course along a line; arguments as in `solve`."""

    def __init__(self, X: Tensor, Y: Tensor, weight: Tensor, l2: float) -> None:
        self.X, self.weight, self.l2 = X, weight, l2
        self.x2 = (weight[..., None] * X.square()).sum(1)[:, None]  # (R, 1, k)
        self.total = weight.sum(1)[:, None]
        self.wY = weight[:, None] * Y
        self.mass = self.wY.sum(2)

    def at(self, A: Tensor, b: Tensor) -> _Point:
        Z = _product(A, self.X.mT) + b[..., None]
        return _Point(A, b, Z, *_softmax_objective(Z, self.wY, A, self.l2))

    def derivatives(self, at: _Point) -> tuple[Tensor, Tensor]:
        """Gradient and diagonal Hessian estimate, (R, C k + C), the biases' part padded."""
        wP = self.weight[:, None] * at.P
        expected = wP.sum(2)
        q = expected - torch.linalg.vecdot(wP, at.P)  # (R, C) sum w p (1 - p)
        slope = (_product(wP.sub_(self.wY), self.X) + self.l2 * at.A).flatten(1)
        G = torch.cat([slope, padded(expected - self.mass, 1)], 1)
        # the bias Hessian vanishes for a class that is certain everywhere: a floor keeps its step finite
        bend = ((q / self.total)[..., None] * self.x2 + self.l2).flatten(1)
        return G, torch.cat([bend, padded(q, 1).clamp_min(1e-4)], 1)

    def along(self, at: _Point, move: Tensor, bmove: Tensor, running: Tensor) -> tuple[_Point, Tensor]:
        """Where a step t (R,) along (move (R, C, k), bmove (R, C)) lowers the objective, and t; 0 unless running.

        Newton's method along the line on stored logits, from the natural step 1.
        """
        weight, l2 = self.weight, self.l2
        dZ = _product(move, self.X.mT).add_(bmove[..., None])
        flat = move.flatten(1)
        inner, curve = torch.linalg.vecdot(at.A.flatten(1), flat), torch.linalg.vecdot(flat, flat)
        gain = torch.linalg.vecdot(self.wY.flatten(1), dZ.flatten(1))
        t, worse = torch.ones_like(at.f), torch.ones_like(running)
        for attempt in range(6):
            slopes = torch.softmax(torch.addcmul(at.Z, t[:, None, None], dZ), 1).mul_(dZ)
            m = slopes.sum(1)
            slope = torch.linalg.vecdot(weight, m) - gain + l2 * (inner + t * curve)
            bend = torch.linalg.vecdot(weight, slopes.mul_(dZ).sum(1) - m * m) + l2 * curve
            newton = t - slope / bend.clamp_min(torch.finfo(bend.dtype).tiny)
            t = torch.where(worse, torch.minimum(torch.maximum(newton, 0.1 * t), 5 * t), t)
            used = torch.where(running, t, torch.zeros_like(t))
            A = torch.addcmul(at.A, used[:, None, None], move)
            Z = torch.addcmul(at.Z, used[:, None, None], dZ)
            P, f = _softmax_objective(Z, self.wY, A, l2)
            worse = f > at.f * (1 + 1e-6)
            if attempt == 5 or not bool(worse.any()):
                break
        return _Point(A, at.b + used[:, None] * bmove, Z, P, f), used


class _Pairs:
    """The last `history` steps and the changes of the gradient that they made, (R, P) each."""

    def __init__(self, history: int) -> None:
        self.history = history
        self.steps: list[Tensor] = []
        self.changes: list[Tensor] = []
        self.rho: list[Tensor] = []

    def add(self, step: Tensor, change: Tensor) -> None:
        sy = torch.linalg.vecdot(step, change)
        self.steps.append(step)
        self.changes.append(change)
        self.rho.append(torch.where(sy > 0, 1 / sy.clamp_min(torch.finfo(sy.dtype).tiny), 0.0))
        if len(self.steps) > self.history:
            self.steps.pop(0), self.changes.pop(0), self.rho.pop(0)

    def penalised(self, more: float, size: int) -> None:
        """The penalty's strength has grown by so much: it bends the first `size` coordinates, those of the weights."""
        steps, changes = self.steps, self.changes
        self.steps, self.changes, self.rho = [], [], []
        for step, change in zip(steps, changes, strict=True):
            change = change.clone()
            change[:, :size].add_(step[:, :size], alpha=more)
            self.add(step, change)

    def direction(self, g: Tensor, H: Tensor) -> Tensor:
        """The two loops: the inverse Hessian times g (R, P), from diag(H) scaled by the newest pair."""
        S, D, rho = self.steps, self.changes, self.rho
        d = g.clone()
        alphas = []
        for s, y, r in zip(reversed(S), reversed(D), reversed(rho), strict=True):
            a = r * torch.linalg.vecdot(s, d)
            d.addcmul_(a[:, None], y, value=-1)
            alphas.append(a)
        d /= H
        if S:
            yHy = torch.linalg.vecdot(D[-1].square(), 1 / H)
            scale = torch.where(rho[-1] > 0, 1 / (rho[-1] * yHy).clamp_min(1e-30), 1.0)
            d *= scale[:, None]
        for s, y, r, a in zip(S, D, rho, reversed(alphas), strict=True):
            d.addcmul_((a - r * torch.linalg.vecdot(y, d))[:, None], s)
        return d


def padded(x: Tensor, dims: int) -> Tensor:
    """Zeros behind the last `dims` dimensions up to a multiple of 16.

    Then every matrix of a batch begins on a 64-byte boundary, as a lone one does: MKL's products differ in their last
    bits when it does not.
    """
    sizes = [-size % 16 for size in reversed(x.shape[-dims:])]
    return torch.nn.functional.pad(x, [part for size in sizes for part in (0, size)]) if any(sizes) else x


def _product(a: Tensor, rows: Tensor) -> Tensor:
    """(R, C, m) times (R, m, p), or times (1, m, p) for all R: (R, C, p)."""
    if len(rows) < len(a):
        return torch.mm(a.flatten(0, 1), rows[0]).view(*a.shape[:2], -1)
    return torch.bmm(a, rows)


def _softmax_objective(Z: Tensor, wY: Tensor, A: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """Logits (R, C, n), weighted targets, weights -> probabilities (R, C, n), objectives (R,)."""
    log_p = torch.log_softmax(Z, 1)
    loss = -torch.linalg.vecdot(wY.flatten(1), log_p.flatten(1))
    return log_p.exp_(), loss + 0.5 * l2 * A.flatten(1).square().sum(1)
