"""L-BFGS (Nocedal & Wright 2006, ch. 7) for several softmax regressions side by side, none of which sees the others.

Where the host sees results at once it looks at each: how many pairs there are, whether a step has to be made again,
whether all have converged. Where a look is a wait and a launch is what costs, `enqueued` takes the same steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from alfm import devices
from alfm.heads.enqueued import Enqueued
from alfm.heads.objective import Point, Problem

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
    course = _begun(X, Y, weight, l2, history, tolerance, max_iterations)
    return course.least(A, b)


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
    course = _begun(X, Y, weight, l2[0], history, tolerance, max_iterations)
    before, last = A, l2[0]
    for own in l2:
        if own != last:
            course.penalise(own, own - last)
            last = own
        start, before = A + 0.5 * (A - before), A
        A, b = course.least(start, b)
        yield A, b


def _begun(
    X: Tensor, Y: Tensor, weight: Tensor, l2: float, history: int, tolerance: float, max_iterations: int
) -> Looked | Enqueued:
    if devices.of(X).looks_are_free:
        return Looked(Problem(X, Y, weight, l2), history, tolerance, max_iterations)
    problem = Problem(X, Y, weight, torch.full((), l2, dtype=X.dtype, device=X.device))
    return Enqueued(problem, history, tolerance, max_iterations)


class Looked:
    """A course of steps whose outcomes the host sees; `history` pairs of steps and changes are remembered."""

    def __init__(self, problem: Problem, history: int, tolerance: float, max_iterations: int) -> None:
        self.problem, self.pairs = problem, _Pairs(history)
        self.tolerance, self.max_iterations = tolerance, max_iterations

    def penalise(self, l2: float, more: float) -> None:
        """The penalty's strength is l2 from now on, so much more than before."""
        self.problem.l2 = l2
        self.pairs.penalised(more, self.problem.wY.shape[1] * self.problem.X.shape[2])

    def least(self, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Where the objective is least, to the tolerance; see `solve`."""
        at = self.problem.at(A, b)
        step: Tensor | None = None
        old: Tensor | None = None
        for _ in range(self.max_iterations):
            G, H = self.problem.derivatives(at)
            running = 0.5 * (G.square() / H).sum(1) > self.tolerance * at.f
            if not bool(running.any()):
                break
            if step is not None and old is not None:
                self.pairs.add(step, G - old)
            d = self.pairs.direction(G, H).neg_()
            at, t = self._along(at, d, running)
            step, old = t[:, None] * d, G
        return at.A, at.b

    def _along(self, at: Point, d: Tensor, running: Tensor) -> tuple[Point, Tensor]:
        """Where a step t (R,) along d (R, C k + C) lowers the objective, from the natural one 1, and t."""
        line = self.problem.line(at, d)
        t, worse = torch.ones_like(at.f), torch.ones_like(running)
        for attempt in range(6):
            found, used, t, worse = self.problem.attempt(at, line, t, worse, running)
            if attempt == 5 or not bool(worse.any()):
                break
        return found, used


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
