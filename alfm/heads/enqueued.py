"""The steps of `solver` where launches and waits are what costs, as on a GPU: one graph of fixed shapes, replayed.

What differs from `solver.Looked`, step by step: the two loops over pairs are a few batched products (the compact form
of Byrd, Nocedal & Schnabel 1994); one attempt along the line is made at a time, and a replicate for which it was too
long repeats it with a shorter one in the next step, beside others that go on; the host asks every fourth step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alfm import devices
from alfm.heads.objective import Point, Problem

LOOK = 4
"""Steps between two questions of the host."""

CHUNKS = 16
"""Parts in which a dot product of long vectors is made; the lengths of both parts of a gradient are multiples of it."""


class Enqueued:
    """A course of steps that the host enqueues; `history` pairs of steps and changes are remembered."""

    def __init__(self, problem: Problem, history: int, tolerance: float, max_iterations: int) -> None:
        self.problem, self.history = problem, history
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.again: Callable[[], None] | None = None

    def penalise(self, l2: float, more: float) -> None:
        """The penalty's strength is l2 from now on, so much more than before."""
        assert isinstance(self.problem.l2, Tensor)
        self.problem.l2.fill_(l2)
        self.pairs.penalised(more, self.at.A[0].numel())

    def least(self, at: Point) -> Point:
        """Where the objective is least, to the tolerance; see `solver.solve`."""
        self._stand(at)
        for done in range(1, self.max_iterations + 1):
            if self.again is None:
                self.again = devices.of(at.A).repeated(self._step)
            else:
                self.again()
            if done % LOOK == 0 and not bool(self.running.any()):
                break
        return self.at._replace(A=self.at.A.clone(), b=self.at.b.clone())

    def _stand(self, at: Point) -> None:
        """Begin at a point; all that a step changes is in tensors that stay."""
        if self.again is None:
            R, C, k = at.A.shape
            size = C * k + C + -C % 16
            self.at = at._replace(A=at.A.clone(), b=at.b.clone())  # the rest is nobody else's
            self.pairs = _Products(self.history, at.A.new_zeros(R, size))
            self.d, self.moved, self.old = at.A.new_zeros(3, R, size)
            self.natural, self.every = torch.ones_like(at.f), torch.ones_like(at.f, dtype=torch.bool)
            self.t, self.worse, self.running = self.natural.clone(), ~self.every, self.every.clone()
            return
        for own, new in zip(self.at, at, strict=True):
            own.copy_(new)
        self.moved.zero_()
        self.worse.zero_()

    def _step(self) -> None:
        at, problem = self.at, self.problem
        G, H = problem.derivatives(at)
        torch.gt(0.5 * (G.square() / H).sum(1), self.tolerance * at.f, out=self.running)
        d = self.pairs.direction(self.moved, G - self.old, G, H)
        torch.where(self.worse[:, None], self.d, d, out=self.d)
        t = torch.where(self.worse, self.t, self.natural)
        found, used, t, worse = problem.attempt(at, problem.line(at, self.d), t, self.every, self.running)
        torch.mul((used * ~worse)[:, None], self.d, out=self.moved)
        self.old.copy_(G)
        for own, new in zip(at, found, strict=True):
            torch.where(worse.view(-1, *(1,) * (own.ndim - 1)), own, new, out=own)
        self.t.copy_(t)
        self.worse.copy_(worse)


class _Products:
    """The last m steps s and changes y of the gradient, and H^-1 y, in a ring; vectors (R, J w) in J parts.

    steps (R, J, 2 m, w): s, then H^-1 y; changes (R, J, m + 1, w): y, then the gradient. inverse (R, m, m): of the
    triangle of s_i' y_j, i no younger than j; one column is made for each new pair. A pair without s' y > 0, such as
    that of a replicate which stood still, has none.
    """

    def __init__(self, m: int, zeros: Tensor) -> None:
        R, P = zeros.shape
        self.m, self.shape = m, (R, CHUNKS, P // CHUNKS)
        self.steps = zeros.new_zeros(R, CHUNKS, 2 * m, P // CHUNKS)
        self.changes = zeros.new_zeros(R, CHUNKS, m + 1, P // CHUNKS)
        self.inverse, self.bend = zeros.new_zeros(R, m, m), zeros.new_zeros(R, m)  # bend: s' y
        self.zero, self.one = zeros.new_zeros(1, 1), zeros.new_ones(1, 1)
        self.unit = torch.eye(m, dtype=zeros.dtype, device=zeros.device)
        self.others = (1 - self.unit)[:, :, None] * (1 - self.unit)[:, None]  # all but a pair's row and column
        self.places = torch.arange(m, device=zeros.device)
        self.slot, self.next = self.places[:1].clone(), self.places.roll(-1)
        self.newest = self.slot.repeat(R, 1)

    def direction(self, step: Tensor, change: Tensor, G: Tensor, H: Tensor) -> Tensor:
        """Minus the inverse Hessian times G, all (R, P), from diag(H) scaled by the newest pair, which (step, change)
        is from now on."""
        m, slot = self.m, self.slot
        R, J, w = self.shape
        self.steps.index_copy_(2, slot, step.view(R, J, 1, w))
        self.changes.index_copy_(2, slot, change.view(R, J, 1, w))
        self.changes[:, :, m].copy_(G.view(R, J, w))
        torch.div(self.changes[:, :, :m], H.view(R, J, 1, w), out=self.steps[:, :, m:])
        every = torch.bmm(self.steps.flatten(0, 1), self.changes.flatten(0, 1).mT).view(R, J, 2 * m, m + 1).sum(1)
        self._remember(every[:, :m, :m].index_select(2, slot))
        yHy, sg, yHg = every[:, m:, :m], every[:, :m, m:], every[:, m:, m:]
        sy, own = self.bend.gather(1, self.newest), yHy.diagonal(dim1=1, dim2=2).gather(1, self.newest)
        scale = torch.where(sy > 0, sy / own.clamp_min(1e-30), self.one)
        p = torch.bmm(self.inverse, sg)
        q = torch.addcmul(scale[..., None] * (torch.bmm(yHy, p) - yHg), self.bend[..., None], p)
        u = torch.bmm(self.inverse.mT, q)
        shares = torch.cat([u.neg_(), scale[..., None] * p], 1).mT  # (R, 1, 2 m)
        back = torch.bmm(shares.repeat_interleave(J, 0, output_size=R * J), self.steps.flatten(0, 1))
        return torch.addcmul(back.view(R, J * w), scale, G / H, value=-1)

    def _remember(self, products: Tensor) -> None:
        """The newest pair's column of the inverse; products (R, m, 1): s_i' y of its y."""
        slot = self.slot
        sy = products.index_select(1, slot)[..., 0]
        valid = sy > 0
        rho = torch.where(valid, sy.reciprocal(), self.zero)
        kept, unit = self.inverse * self.others.index_select(0, slot), self.unit.index_select(0, slot)
        column = (unit[..., None] - torch.bmm(kept, products)) * rho[..., None]
        torch.addcmul(kept, column, unit[:, None], out=self.inverse)
        self.bend.index_copy_(1, slot, sy)
        torch.where(valid, slot, self.newest, out=self.newest)
        slot.copy_(self.next.index_select(0, slot))

    def penalised(self, more: float, size: int) -> None:
        """The penalty's strength has grown by so much: it bends the first `size` coordinates, those of the weights."""
        R, J, w = self.shape
        m, inside = self.m, torch.arange(J * w, device=self.slot.device).view(J, 1, w) < size
        steps, changes = self.steps[:, :, :m], self.changes[:, :, :m]
        changes += more * steps * inside
        order = (self.places + self.slot) % m  # the oldest first
        every = torch.einsum("rjmw,rjnw->rmn", steps, changes).index_select(1, order).index_select(2, order).triu()
        valid = every.diagonal(dim1=1, dim2=2) > 0
        both = valid[:, :, None] & valid[:, None]
        found = torch.linalg.solve_triangular(
            torch.where(both, every, self.unit), self.unit.expand(R, m, m), upper=True
        )
        back = (self.places - self.slot) % m
        self.inverse.copy_((found * both).index_select(1, back).index_select(2, back))
        self.bend.copy_(every.diagonal(dim1=1, dim2=2).index_select(1, back))
