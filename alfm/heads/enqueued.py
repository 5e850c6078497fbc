"""The steps of `solver` where launches and waits are what costs, as on a GPU: one graph of fixed shapes, replayed.

What differs from `solver.Looked`, step by step: the two loops over pairs are a few batched products (the compact form
of Byrd, Nocedal & Schnabel 1994); one attempt along the line is made at a time, and a replicate for which it was too
long repeats it with a shorter one in the next step, beside others that go on; the host asks every fourth step. Besides
two products of matrices a step is operations of `alfm.fused`, each of which goes over its numbers once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from alfm import devices
from alfm.fused.line_search import line_attempts, line_outcomes, line_slopes, residuals
from alfm.fused.quasi_newton import pair_direction, pair_products, pair_shares
from alfm.heads.objective import Problem, product

LOOK = 4
"""Steps between two questions of the host."""

PARTS = 128
"""In which a long vector is gone over; the length of each is a multiple of 16."""


class Enqueued:
    """A course of steps that the host enqueues; `history` pairs of steps and changes are remembered."""

    def __init__(self, problem: Problem, history: int, tolerance: float, max_iterations: int) -> None:
        assert isinstance(problem.l2, Tensor)
        self.problem, self.l2, self.history = problem, problem.l2, history
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.again: Callable[[], None] | None = None

    def penalise(self, l2: float, more: float) -> None:
        """The penalty's strength is l2 from now on, so much more than before."""
        self.l2.fill_(l2)
        self.pairs.penalised(more, self.size)

    def least(self, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Where the objective is least, to the tolerance; see `solver.solve`."""
        if self.again is None:
            self._begin(A)
        self._stand(A, b)
        for done in range(1, self.max_iterations + 1):
            if self.again is None:
                # a kernel for other types or numbers of pairs is another one, to be loaded before it is captured
                self.again = devices.of(A).repeated(self._step, (A.dtype, self.history))
            else:
                self.again()
            if done % LOOK == 0 and not bool(self.running.any()):
                break
        x = torch.addcmul(self.x, self.used[:, None], self.d)
        return x[:, : self.size].view(A.shape), x[:, self.size : self.size + A.shape[1]]

    def _begin(self, A: Tensor) -> None:
        """All that a step changes, in tensors that stay. A point and a direction hold weights, then biases."""
        R, C, k = A.shape
        n, self.size = self.problem.X.shape[1], C * k
        P = self.size + C
        P += -P % (16 * PARTS)
        vector, logits, number = (R, P), (R, C, n), (R,)
        self.x, self.d, self.G, self.Z, self.dZ, self.lse, self.f, self.t, self.used, self.flat, self.nowhere = _zeros(
            A, vector, vector, vector, logits, logits, (R, n), number, number, number, (R, 1, 2), (R, 1, 3)
        )
        self.worse, self.running = _zeros(A, number, number, dtype=torch.bool)
        self.pairs = _Pairs(self.history, self.x)

    def _stand(self, A: Tensor, b: Tensor) -> None:
        """Begin at a point: as if a step had led there."""
        problem, C = self.problem, A.shape[1]
        self.x[:, : self.size].copy_(A.flatten(1))
        self.x[:, self.size : self.size + C].copy_(b)
        torch.add(product(A, problem.X.mT), b[..., None], out=self.Z)
        self.f.fill_(torch.inf)
        self.t.fill_(1)
        self.running.zero_()
        torch.sum(A.square(), (1, 2), out=self.nowhere[:, 0, 2])
        self._attempt(self.flat, self.nowhere)

    def _step(self) -> None:
        problem, pairs = self.problem, self.pairs
        E, bias, q = residuals(self.Z, self.dZ, self.used, self.lse, problem.wY, problem.weight)
        diagonal = q, problem.x2, problem.total, self.l2
        products, decrease = pair_products(
            product(E, problem.X), bias, self.x, self.d, self.used, *diagonal,
            self.G, pairs.steps, pairs.changes, pairs.slot,
        )  # fmt: skip
        shares = pair_shares(
            products, decrease, self.f, self.tolerance,
            pairs.inverse, pairs.bend, pairs.newest, pairs.slot, self.running,
        )  # fmt: skip
        line = pair_direction(shares, *diagonal, self.x, self.G, pairs.steps, pairs.changes, self.worse, self.d)
        product(self.d[:, : self.size].unflatten(1, E.shape[1:2] + problem.X.shape[2:]), problem.X.mT, out=self.dZ)
        slopes = line_slopes(self.Z, self.dZ, self.d, self.t, problem.wY, problem.weight, self.size)
        self._attempt(slopes, line)

    def _attempt(self, slopes: Tensor, line: Tensor) -> None:
        l2, wY = self.l2, self.problem.wY
        tried, reached, loss = line_attempts(slopes, line, l2, self.t, self.running, self.Z, self.dZ, wY)
        line_outcomes(loss, line, l2, tried, reached, self.f, self.lse, self.t, self.used, self.worse)


class _Pairs:
    """The last m steps s and changes y of the gradient, in a ring, as `alfm.fused.quasi_newton` has them.

    inverse (R, m, m): of the triangle of s_i' y_j, i no younger than j; one column is made for each new pair. A pair
    without s' y > 0, such as that of a replicate which stood still, has none.
    """

    def __init__(self, m: int, zeros: Tensor) -> None:
        R, P = zeros.shape
        pairs = R, PARTS, m, P // PARTS
        self.steps, self.changes, self.inverse, self.bend = _zeros(zeros, pairs, pairs, (R, m, m), (R, m))  # bend: s' y
        self.slot, self.newest = _zeros(zeros, (R,), (R,), dtype=torch.int64)

    def penalised(self, more: float, size: int) -> None:
        """The penalty's strength has grown by so much: it bends the first `size` coordinates, those of the weights."""
        R, J, m, w = self.steps.shape
        places = torch.arange(m, device=self.slot.device)
        inside = torch.arange(J * w, device=self.slot.device).view(J, 1, w) < size
        self.changes += more * self.steps * inside
        order = (places + self.slot[0]) % m  # the oldest first
        every = torch.einsum("rjmw,rjnw->rmn", self.steps, self.changes)
        every = every.index_select(1, order).index_select(2, order).triu()
        valid = every.diagonal(dim1=1, dim2=2) > 0
        both, unit = valid[:, :, None] & valid[:, None], torch.eye(m, dtype=every.dtype, device=every.device)
        found = torch.linalg.solve_triangular(torch.where(both, every, unit), unit.expand(R, m, m), upper=True)
        back = (places - self.slot[0]) % m
        self.inverse.copy_((found * both).index_select(1, back).index_select(2, back))
        self.bend.copy_(every.diagonal(dim1=1, dim2=2).index_select(1, back))


def _zeros(like: Tensor, *shapes: tuple[int, ...], dtype: torch.dtype | None = None) -> list[Tensor]:
    """Zeros by one launch, each tensor from a 16-byte boundary on, as tensors are that have memory of their own: for
    others a kernel would be another one."""
    counts = [math.prod(shape) for shape in shapes]
    sizes = [count + -count % 16 for count in counts]
    parts = like.new_zeros(sum(sizes), dtype=dtype).split(sizes)
    return [part[:count].view(shape) for part, count, shape in zip(parts, counts, shapes, strict=True)]
