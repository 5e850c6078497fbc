"""The default head: L2-regularised multinomial logistic regression, convex, solved to a stated tolerance.

min over W, b of  sum_i w_i CE(softmax(W phi_i + b), y_i) + |W|^2 / (2 c);  the bias is not penalised.

Features are standardised with pool statistics (softened, so that nearly constant dimensions are not blown up) and
scaled to unit length; c grows with the number of classes; classes weigh the same however many labels each has, because
with few labels their counts are noise, and later they are what a strategy chose, not what the pool holds. All three
were chosen on real feature caches (`benchmarks/heads.py`). The solver is L-BFGS (Nocedal & Wright 2006, ch. 7) in
coordinates in which the Hessian is nearly diagonal: the pool's principal axes, or those of the labelled rows when they
are few.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm import devices
from alfm.features.features import Features
from alfm.features.spaces import RAW, Scaled, Space
from alfm.heads.linear import LinearHead
from alfm.heads.objective import padded
from alfm.heads.solver import solve, solve_path
from alfm.options import checked
from alfm.threads import side_by_side

UNSEEN = 20.0
"""A class without labels gets weight 0 and a bias this far below the lowest seen one: probability about e^-20."""


BATCHED = 1 << 16
"""Logits of the reweighted heads fitted as one batch on CPU: with more, vectors of the solver leave the caches."""

SPARSE = 1.5
"""A replicate with fewer than 1 / SPARSE of the classes is fitted alone, on the classes it has."""

SMALL, LARGE = 1 << 24, 1 << 19
"""Replicates whose products take fewer multiply-adds than SMALL together are one batch on one core: a second one would
only wait for the interpreter's lock. A batch has at most LARGE logits, so that what it holds stays near the caches."""


@dataclass
@checked
class Logistic:
    """Classifier `logistic`.

    scaling: `soft` = (x - mean) / (sd + softening * mean(sd)), then unit rows; `standard` = (x - mean) / sd;
    `none`. strength: the inverse L2 strength c (scikit-learn's C), or `auto` = 0.2 x classes, within [1, 100].
    tolerance: the solver stops when the estimated relative objective gap falls below it.
    """

    scaling: Literal["soft", "standard", "none"] = "soft"
    softening: Annotated[float, Ge(0), Le(1e6)] = 0.25
    strength: Annotated[float, Ge(1e-10), Le(1e9)] | Literal["auto"] = "auto"
    class_weight: Literal["balanced", "none"] = "balanced"
    tolerance: Annotated[float, Ge(0), Le(0.5)] = 1e-5
    max_iterations: Annotated[int, Ge(1), Le(10**6)] = 500

    def inverse_l2(self, num_classes: int) -> float:
        """c for this many classes."""
        return min(max(0.2 * num_classes, 1.0), 100.0) if self.strength == "auto" else float(self.strength)

    def tuning_space(self, num_classes: int) -> Mapping[str, Sequence[float]]:
        """What is worth trying: strengths from a thousandth of the default to a thousand times as much."""
        default = replace(self, strength="auto").inverse_l2(num_classes)
        return {"strength": [default * 10.0**power for power in range(-3, 4)]}

    def prepare(self, pool: Features) -> None:
        """Make what is made once per pool, before several jobs ask for it."""
        self._principal(pool, self.space(pool))

    def space(self, pool: Features) -> Space:
        """The pool's coordinates for this head, made once per pool."""
        if self.scaling == "none":
            return RAW
        whole = pool.fitted_as
        return whole.once(("logistic space", self.scaling, self.softening), lambda: self._make_space(whole))

    def _make_space(self, pool: Features) -> Space:
        mean, sd = pool.moments
        scale = sd + self.softening * sd.mean() if self.scaling == "soft" else sd
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return Scaled(mean, scale, unit=self.scaling == "soft")

    def fit(
        self,
        pool: Features,
        rows: Tensor,
        targets: Tensor,
        num_classes: int,
        seeds: Sequence[int] = (),
        round: int = 0,
        weight: Tensor | None = None,
        previous: LinearHead | None = None,
    ) -> LinearHead:
        """Fit R heads; shapes as in `Classifier.fit`. Needs at least one labelled row in each replicate."""
        space, joined = self.space(pool), _joined(pool)
        R = rows.shape[0]
        if self._on_principal(pool, space, rows.shape[1]):  # before the jobs, which would each make them
            self._principal(pool, space)

        def fit(group: Tensor) -> tuple[Tensor, Tensor]:
            own, wanted, own_weight = rows[group], targets[group], None if weight is None else weight[group]
            if not joined:  # all of a group have equally many: no padding needed
                valid, shape = own >= 0, (len(group), -1)
                wanted = wanted[valid].unflatten(0, shape)
                own_weight = None if own_weight is None else own_weight[valid].view(shape)
                own = own[valid].view(shape)
            return self._fit_group(
                pool, space, own, wanted, num_classes, own_weight,
                None if previous is None else (previous.weight[group], previous.bias[group]),
            )  # fmt: skip

        if joined:
            dim = pool.vectors(space).dim
            numbers = rows.shape[1] * (num_classes + dim // 4) + 3 * num_classes * dim  # with rows and remembered steps
            size = devices.of(pool.device).at_once(R, numbers, BATCHED)
            groups = list(torch.arange(R, device=rows.device).split(size))
        else:
            groups = _groups(rows, targets, num_classes, pool.vectors(space).dim)
        jobs = [partial(fit, group) for group in groups]
        weights, biases = zip(*side_by_side(jobs, pool.device), strict=True)
        if len(groups) == 1:
            return LinearHead((space,) * R, weights[0], biases[0])
        place = torch.cat(groups).argsort()
        return LinearHead((space,) * R, torch.cat(weights)[place], torch.cat(biases)[place])

    def fit_reweighted(
        self, pool: Features, rows: Tensor, targets: Tensor, num_classes: int, weight: Tensor, start: LinearHead
    ) -> LinearHead:
        """M heads for each of R replicates, all of a replicate's on the same rows (R, n) with weights (R, M, n) >= 0.

        A bootstrap resample is a weighting by counts: one gather, one basis and one product per step serve M members,
        which costs a fraction of M fits. start: R heads to begin from, fitted on these rows. Returns R M heads,
        replicate by replicate.
        """
        space = self.space(pool)
        R, M, n = weight.shape
        if self._on_principal(pool, space, n):
            self._principal(pool, space)

        def fit(r: int) -> tuple[Tensor, Tensor]:
            own, valid = slice(r, r + 1), rows[r] >= 0
            return self._fit_group(
                pool, space, rows[own, valid], targets[own, valid], num_classes, weight[r][:, valid],
                (start.weight[own].expand(M, -1, -1), start.bias[own].expand(M, -1)),
            )  # fmt: skip

        weights, biases = zip(*side_by_side([partial(fit, r) for r in range(R)], pool.device), strict=True)
        return LinearHead((space,) * (R * M), torch.cat(weights), torch.cat(biases))

    def along_strengths(
        self,
        pool: Features,
        rows: Tensor,
        targets: Tensor,
        num_classes: int,
        strengths: Sequence[float],
        weight: Tensor | None = None,
    ) -> Iterator[LinearHead]:
        """F heads for each strength, in the order given (ascending is fastest), each set beginning at the one before.

        Shapes as in `Classifier.fit`, F in place of R; or rows (1, n) and weight (F, n), all F on the same rows. To the
        tolerance of `fit`, for about a third of its steps; all F are one batch and see each other in their last bits
        (see `solve_path`), so F is to depend on nothing else.
        """
        space = self.space(pool)
        laid = self._lay(pool, space, rows, targets, num_classes, weight, None)
        l2 = [1.0 / strength for strength in strengths]
        for A, b in solve_path(laid.X, laid.Y, laid.w, l2, laid.start, laid.bias, self.tolerance, self.max_iterations):
            yield LinearHead((space,) * len(A), *laid.on_features(A, b))

    def _fit_group(
        self,
        pool: Features,
        space: Space,
        rows: Tensor,
        targets: Tensor,
        num_classes: int,
        weight: Tensor | None,
        previous: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """rows and targets (R, n, ..), or (1, n, ..) when all R rows of `weight` are for the same ones."""
        laid = self._lay(pool, space, rows, targets, num_classes, weight, previous)
        R, c, _ = laid.start.shape
        l2, size = 1.0 / self.inverse_l2(num_classes), R
        if len(laid.X) < R:
            size = devices.of(laid.X).at_once(R, rows.shape[1] * c, BATCHED)
        solved = [
            solve(
                laid.X, laid.Y, laid.w[m], l2, laid.active[m], laid.start[m], laid.bias[m], self.tolerance,
                self.max_iterations,
            )
            for m in (slice(i, i + size) for i in range(0, R, size))
        ]  # fmt: skip
        return laid.on_features(*(torch.cat(part) for part in zip(*solved, strict=True)))

    def _lay(
        self,
        pool: Features,
        space: Space,
        rows: Tensor,
        targets: Tensor,
        num_classes: int,
        weight: Tensor | None,
        previous: tuple[Tensor, Tensor] | None,
    ) -> _Laid:
        """What the solver is given of rows and targets; arguments as of `_fit_group`."""
        R = rows.shape[0] if weight is None else weight.shape[0]
        same = rows.shape[0] < R
        valid = rows >= 0
        n, dim = rows.shape[1], pool.vectors(space).dim
        phi = pool.vectors(space).rows(rows.clamp_min(0).flatten()).view(len(rows), n, dim)
        w = valid.to(phi.dtype) if weight is None else weight.to(phi.dtype) * valid
        Y = _one_hot(targets, num_classes, phi.dtype)
        few = not _joined(pool) and R == 1 and targets.dim() == 2 and _few(targets, num_classes)
        phi, w, Y = padded(phi, 2), padded(w, 1), padded(Y, 1)
        w, mass, seen = self._weighed(w, Y)
        columns: Tensor | slice = slice(None)
        if few or same:
            columns = seen.any(0).nonzero()[:, 0]
        Y, mass, active = Y[:, columns], mass[:, columns], seen[:, columns]

        phi, centre = _centred(phi, w.sum(0, keepdim=True) if same else w)
        basis = self._basis(pool, space, phi, n)
        X = torch.bmm(phi, basis.expand(len(phi), -1, -1))  # item by item the same in any batch, unlike `@`
        basis = basis.expand(R, -1, -1)
        bias = torch.where(active, torch.log(mass / w.sum(1, keepdim=True)), -1e4)
        start = torch.zeros(R, mass.shape[1], X.shape[2], dtype=phi.dtype, device=phi.device)
        if previous is not None:
            start, bias = _warm(previous[0][:, columns], previous[1][:, columns], active, bias, basis, centre)
        return _Laid(X, Y, w, active, start, bias, basis, centre, columns, seen, dim)

    def _weighed(self, w: Tensor, Y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Items' weights w (R, n), by class too; classes' sums of them (R, C), and which classes there are, bool."""
        mass = torch.linalg.vecdot(Y, w[:, None])
        seen = mass > 0
        if self.class_weight == "balanced":
            share = torch.where(seen, w.sum(1, keepdim=True) / (seen.sum(1, keepdim=True) * mass), 0.0)
            w = w * (share[:, None] @ Y)[:, 0]
            mass = torch.linalg.vecdot(Y, w[:, None])
        return w, mass, seen

    def _basis(self, pool: Features, space: Space, phi: Tensor, n: int) -> Tensor:
        """Orthonormal columns (R or 1, D', k) that span the solution and nearly diagonalise the Hessian."""
        if self._on_principal(pool, space, n):
            return padded(self._principal(pool, space), 2)[None]
        # The optimum lies in the span of the labelled rows: n coordinates instead of D'.
        values, U = torch.linalg.eigh(torch.bmm(phi, phi.mT))
        floor = values[:, -1:] * 1e-6 + torch.finfo(phi.dtype).tiny
        return torch.bmm(phi.mT, U * ((values > floor) / values.clamp_min(floor).sqrt())[:, None])

    def _on_principal(self, pool: Features, space: Space, n: int) -> bool:
        """Are fits on n rows done on the pool's principal axes? On axes of their own few rows need fewer coordinates
        and about as many steps; but decompositions of a batch take longer than all steps where these are joined."""
        return _joined(pool) or 2 * n > pool.vectors(space).dim

    def _principal(self, pool: Features, space: Space) -> Tensor:
        return pool.fitted_as.once(("principal axes", space), lambda: _principal_axes(pool.fitted_as, space))


def _joined(pool: Features) -> bool:
    """Are all replicates fitted as one batch?"""
    return pool.joins_replicates


def _groups(rows: Tensor, targets: Tensor, num_classes: int, dim: int) -> list[Tensor]:
    """Which of the R replicates are fitted as one batch: int64 vectors of replicates.

    Those with equally many labelled rows, so that a replicate's numbers do not depend on its company; one with few of
    the classes goes alone, without the others' columns.
    """
    alike: dict[tuple[int, int], list[int]] = {}
    for r, count in enumerate((rows >= 0).sum(1).tolist()):
        few = targets.dim() == 2 and _few(targets[r][rows[r] >= 0], num_classes)
        alike.setdefault((count, r if few else -1), []).append(r)
    groups = []
    for (n, _), members in alike.items():
        each = n * num_classes
        size = len(members)
        if size * each * min(n, dim) > SMALL:
            size = min(-(-size // torch.get_num_threads()), max(1, LARGE // each))
        groups += [torch.tensor(members[i : i + size]) for i in range(0, len(members), size)]
    return groups


def _centred(phi: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Rows phi (R, n, D') less their mean by weights w (R, n), which is (R, 1, D'); without weight: 0.

    The bias is free, so the rows may be centred: it decouples the bias from the weights.
    """
    centre = (w[..., None] * phi).sum(1, keepdim=True) / w.sum(1)[:, None, None]
    return (phi - centre) * (w[..., None] > 0), centre


def _warm(W: Tensor, b: Tensor, active: Tensor, bias: Tensor, basis: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """The solver's start, (R, C, k) and (R, C), from earlier heads W (R, C, D'), b (R, C); active: bool (R, C).

    bias (R, C): the start where there was no head; a class that the earlier head did not know starts at its lowest.
    """
    W = padded(W, 1)
    b = b + torch.linalg.vecdot(W, centre)
    known = W.abs().amax(2) > 0
    lowest = b.masked_fill(~known, torch.inf).amin(1, keepdim=True)
    warm = known.any(1, keepdim=True) & active
    return torch.bmm(W, basis) * active[..., None], torch.where(warm, torch.where(known, b, lowest), bias)


class _Laid(NamedTuple):
    """A problem in the solver's coordinates: X, Y, w, active, start, bias as `solve` takes them; the way back: basis
    (R, D', k) and centre of the features, which of all classes `columns` are, (c,) or all, and which are seen, bool
    (R, C).
    """

    X: Tensor
    Y: Tensor
    w: Tensor
    active: Tensor
    start: Tensor
    bias: Tensor
    basis: Tensor
    centre: Tensor
    columns: Tensor | slice
    seen: Tensor
    dim: int

    def on_features(self, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """What was solved, A (R, c, k), b (R, c), as weights (R, C, D') and biases (R, C) of all classes.

        Classes without labels: see UNSEEN.
        """
        R, num_classes = self.seen.shape
        W = torch.zeros(R, num_classes, self.dim, dtype=A.dtype, device=A.device)
        found = torch.bmm(A, self.basis.mT)
        W[:, self.columns] = found[..., : self.dim]
        b = b - torch.linalg.vecdot(found, self.centre)
        b = b - (b * self.active).sum(1, keepdim=True) / self.active.sum(1, keepdim=True)
        full = torch.full((R, num_classes), torch.inf, dtype=A.dtype, device=A.device)
        full[:, self.columns] = torch.where(self.active, b, torch.inf)
        lowest = full.amin(1, keepdim=True)
        return W, torch.where(self.seen, full, lowest - UNSEEN)


def _few(targets: Tensor, num_classes: int) -> bool:
    return num_classes > SPARSE * len(targets.unique())


def _one_hot(targets: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Hard (R, n) targets (negative = padding, all zero) or soft (R, n, C) ones -> (R, C, n)."""
    if targets.dim() == 3:
        return targets.mT.to(dtype).contiguous()
    Y = torch.zeros(len(targets), num_classes, targets.shape[1], dtype=dtype, device=targets.device)
    return Y.scatter_(1, targets.clamp_min(0)[:, None], (targets >= 0).to(dtype)[:, None])


def _principal_axes(pool: Features, space: Space) -> Tensor:
    """Eigenvectors (D', D') of the pool's second moments, one pass and one decomposition per pool."""
    moment: Tensor | None = None
    for _, x in pool.vectors(space).blocks():
        moment = x.mT @ x if moment is None else moment.addmm_(x.mT, x)
    assert moment is not None
    return torch.linalg.eigh(moment)[1].contiguous()
