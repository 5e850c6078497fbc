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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from alfm.heads.base import LinearHead
from alfm.pool import Pool
from alfm.spaces import RAW, Scaled, Space
from alfm.threads import side_by_side

UNSEEN = 20.0
"""A class without labels gets weight 0 and a bias this far below the lowest seen one: probability about e^-20."""


BATCHED = 1 << 16
"""Logits of the reweighted heads fitted as one batch on CPU: with more, vectors of the solver leave the caches."""


@dataclass
class Logistic:
    """Classifier `logistic`.

    scaling: `soft` = (x - mean) / (sd + softening * mean(sd)), then unit rows; `standard` = (x - mean) / sd;
    `none`. strength: the inverse L2 strength c (scikit-learn's C), or `auto` = 0.2 x classes, within [1, 100].
    tolerance: the solver stops when the estimated relative objective gap falls below it.
    """

    scaling: Literal["soft", "standard", "none"] = "soft"
    softening: float = 0.25
    strength: float | Literal["auto"] = "auto"
    class_weight: Literal["balanced", "none"] = "balanced"
    tolerance: float = 1e-5
    max_iterations: int = 500

    def inverse_l2(self, num_classes: int) -> float:
        """c for this many classes."""
        return min(max(0.2 * num_classes, 1.0), 100.0) if self.strength == "auto" else float(self.strength)

    def space(self, pool: Pool) -> Space:
        """The pool's coordinates for this head, made once per pool."""
        if self.scaling == "none":
            return RAW
        return pool.once(("logistic space", self.scaling, self.softening), lambda: self._make_space(pool))

    def _make_space(self, pool: Pool) -> Space:
        mean, sd = pool.moments
        scale = sd + self.softening * sd.mean() if self.scaling == "soft" else sd
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return Scaled(mean, scale, unit=self.scaling == "soft")

    def fit(
        self,
        pool: Pool,
        rows: Tensor,
        targets: Tensor,
        num_classes: int,
        seeds: Sequence[int] = (),
        round: int = 0,
        weight: Tensor | None = None,
        previous: LinearHead | None = None,
    ) -> LinearHead:
        """Fit R heads; shapes as in `Classifier.fit`. Needs at least one labelled row in each replicate."""
        space = self.space(pool)
        R = rows.shape[0]
        if 2 * rows.shape[1] > pool.vectors(space).dim:  # before the jobs, which would each make them
            self._principal(pool, space)

        # CPU: replicates side by side, one thread each, so that the shapes of all products are a replicate's own.
        # GPU: all in one batch, since there the launches of many small kernels are what costs.
        def fit(part: slice) -> tuple[Tensor, Tensor]:
            return self._fit_group(
                pool, space, rows[part], targets[part], num_classes, None if weight is None else weight[part],
                None if previous is None else (previous.weight[part], previous.bias[part]),
            )  # fmt: skip

        parts = [slice(0, R)] if pool.device.type == "cuda" else [slice(r, r + 1) for r in range(R)]
        weights, biases = zip(*side_by_side([partial(fit, part) for part in parts], pool.device), strict=True)
        return LinearHead((space,) * R, torch.cat(weights), torch.cat(biases))

    def fit_reweighted(
        self, pool: Pool, rows: Tensor, targets: Tensor, num_classes: int, weight: Tensor, start: LinearHead
    ) -> LinearHead:
        """M heads for each of R replicates, all of a replicate's on the same rows (R, n) with weights (R, M, n) >= 0.

        A bootstrap resample is a weighting by counts: one gather, one basis and one product per step serve M members,
        in a quarter of the time of M fits on 100 x 384 with 20 classes. start: R heads to begin from, fitted on these
        rows. Returns R M heads, replicate by replicate.
        """
        space = self.space(pool)
        R, M, n = weight.shape
        if 2 * n > pool.vectors(space).dim:
            self._principal(pool, space)

        def fit(r: int) -> tuple[Tensor, Tensor]:
            own = slice(r, r + 1)
            return self._fit_group(
                pool, space, rows[own], targets[own], num_classes, weight[r],
                (start.weight[own].expand(M, -1, -1), start.bias[own].expand(M, -1)),
            )  # fmt: skip

        weights, biases = zip(*side_by_side([partial(fit, r) for r in range(R)], pool.device), strict=True)
        return LinearHead((space,) * (R * M), torch.cat(weights), torch.cat(biases))

    def _fit_group(
        self,
        pool: Pool,
        space: Space,
        rows: Tensor,
        targets: Tensor,
        num_classes: int,
        weight: Tensor | None,
        previous: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """rows and targets (R, n, ..), or (1, n, ..) when all R rows of `weight` are for the same ones."""
        R = rows.shape[0] if weight is None else weight.shape[0]
        same = rows.shape[0] == 1
        if same:  # no padding needed
            keep = rows[0] >= 0
            rows, targets = rows[:, keep], targets[:, keep]
            weight = None if weight is None else weight[:, keep]
        valid = rows >= 0
        n = rows.shape[1]
        phi = pool.vectors(space).rows(rows.clamp_min(0).flatten()).view(len(rows), n, -1)
        w = valid.to(phi.dtype) if weight is None else weight.to(phi.dtype) * valid
        Y = _one_hot(targets, num_classes, phi.dtype)
        mass = (w[..., None] * Y).sum(1)
        seen = mass > 0
        if self.class_weight == "balanced":
            share = torch.where(seen, w.sum(1, keepdim=True) / (seen.sum(1, keepdim=True) * mass), 0.0)
            w = w * (Y @ share[..., None])[..., 0]
            mass = (w[..., None] * Y).sum(1)
        columns = seen.any(0).nonzero()[:, 0] if same else torch.arange(num_classes, device=phi.device)
        Y, mass, active = Y[..., columns], mass[:, columns], seen[:, columns]

        # The bias is free, so the rows may be centred: it decouples the bias from the weights.
        use = w.sum(0, keepdim=True) if same else w
        centre = (use[..., None] * phi).sum(1, keepdim=True) / use.sum(1)[:, None, None]
        phi = (phi - centre) * (use[..., None] > 0)
        basis = self._basis(pool, space, phi)
        X = phi @ basis
        bias = torch.where(active, torch.log(mass / w.sum(1, keepdim=True)), -1e4)
        start = torch.zeros(R, X.shape[2], len(columns), dtype=phi.dtype, device=phi.device)
        if previous is not None:
            W0 = previous[0][:, columns]
            b0 = previous[1][:, columns] + (W0 @ centre.mT)[..., 0]
            known = W0.abs().amax(2) > 0
            lowest = b0.masked_fill(~known, torch.inf).amin(1, keepdim=True)
            warm = known.any(1, keepdim=True) & active
            bias = torch.where(warm, torch.where(known, b0, lowest), bias)
            start = (W0 @ basis).mT * active[:, None]
        l2, size = 1.0 / self.inverse_l2(num_classes), R
        if same and pool.device.type == "cpu":
            size = max(1, BATCHED // (n * len(columns)))
        solved = [
            solve(X, Y, w[m], l2, active[m], start[m], bias[m], self.tolerance, self.max_iterations)
            for m in (slice(i, i + size) for i in range(0, R, size))
        ]
        A, b = (torch.cat(part) for part in zip(*solved, strict=True))

        W = torch.zeros(R, num_classes, phi.shape[2], dtype=phi.dtype, device=phi.device)
        W[:, columns] = (basis @ A).mT
        b = b - (W[:, columns] @ centre.mT)[..., 0]
        b = b - (b * active).sum(1, keepdim=True) / active.sum(1, keepdim=True)
        full = torch.full((R, num_classes), torch.inf, dtype=phi.dtype, device=phi.device)
        full[:, columns] = torch.where(active, b, torch.inf)
        lowest = full.amin(1, keepdim=True)
        return W, torch.where(seen, full, lowest - UNSEEN)

    def _basis(self, pool: Pool, space: Space, phi: Tensor) -> Tensor:
        """Orthonormal columns (R or 1, D', k) that span the solution and nearly diagonalise the Hessian."""
        _, n, dim = phi.shape
        if 2 * n > dim:
            return self._principal(pool, space)[None]
        # The optimum lies in the span of the labelled rows: n coordinates instead of D'.
        gram = phi @ phi.mT
        values, U = torch.linalg.eigh(gram)
        floor = values[:, -1:] * 1e-6 + torch.finfo(phi.dtype).tiny
        kept = values > floor
        if phi.shape[0] == 1:
            U, values, kept = U[..., kept[0]], values[:, kept[0]], kept[:, kept[0]]
        return phi.mT @ (U * (kept / values.clamp_min(floor).sqrt())[:, None])

    def _principal(self, pool: Pool, space: Space) -> Tensor:
        return pool.once(("principal axes", space), lambda: _principal_axes(pool, space))


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
    """R regressions side by side: X (R or 1, n, k), Y (R or 1, n, C) rows summing to 1, weight (R, n), active (R, C).

    Start and result: A (R, k, C), b (R, C). Stops when g' H0^-1 g / 2 <= tolerance * objective, g the gradient and H0
    the diagonal Hessian estimate; a replicate that has converged is frozen.
    """
    R, k, C = A.shape
    x2 = (weight[..., None] * X.square()).sum(1)[..., None]  # (R, k, 1)
    total = weight.sum(1)[:, None, None]
    wY = weight[..., None] * Y
    Z = X @ A + b[:, None]
    P, f = _softmax_objective(Z, Y, weight, A, l2)
    S: list[Tensor] = []
    D: list[Tensor] = []
    rho: list[Tensor] = []
    step = old = None
    for _ in range(max_iterations):
        E = weight[..., None] * P - wY
        G = torch.cat([X.mT @ E + l2 * A, E.sum(1, keepdim=True)], 1)
        q = (weight[..., None] * P * (1 - P)).sum(1, keepdim=True) / total  # (R, 1, C)
        # the bias Hessian vanishes for a class that is certain everywhere: a floor keeps its step finite
        H = torch.cat([x2 * q + l2, (q * total).clamp_min(1e-4)], 1)
        gap = 0.5 * (G.square() / H).flatten(1).sum(1)
        running = gap > tolerance * f
        if not bool(running.any()):
            break
        if step is not None:
            y = (G - old).flatten(1)
            s = step.flatten(1)
            sy = torch.linalg.vecdot(s, y)
            S.append(s)
            D.append(y)
            rho.append(torch.where(sy > 0, 1 / sy.clamp_min(torch.finfo(sy.dtype).tiny), 0.0))
            if len(S) > history:
                S.pop(0), D.pop(0), rho.pop(0)
        d = _two_loop(G.flatten(1), H.flatten(1), S, D, rho).view(R, k + 1, C)
        move, bmove = -d[:, :-1], -d[:, -1:]
        dZ = X @ move + bmove
        # Newton's method along the line on stored logits, from the natural step 1
        inner, curve = (A * move).flatten(1).sum(1), move.flatten(1).square().sum(1)
        gain = (wY * dZ).flatten(1).sum(1)
        t = torch.ones_like(f)
        for attempt in range(6):
            Pt = torch.softmax(Z + t[:, None, None] * dZ, 2)
            m = torch.linalg.vecdot(Pt, dZ)
            slope = torch.linalg.vecdot(weight, m) - gain + l2 * (inner + t * curve)
            bend = torch.linalg.vecdot(weight, torch.linalg.vecdot(Pt * dZ, dZ) - m * m) + l2 * curve
            newton = t - slope / bend.clamp_min(torch.finfo(bend.dtype).tiny)
            t = torch.minimum(torch.maximum(newton, 0.1 * t), 5 * t)
            t_used = torch.where(running, t, torch.zeros_like(t))
            nextA = A + t_used[:, None, None] * move
            nextZ = Z + t_used[:, None, None] * dZ
            P_next, f_next = _softmax_objective(nextZ, Y, weight, nextA, l2)
            if attempt == 5 or not bool((f_next > f * (1 + 1e-6)).any()):
                break
        step = t_used[:, None, None] * -d
        old, A, b, Z, P, f = G, nextA, b + step[:, -1], nextZ, P_next, f_next
    return A, b


def _softmax_objective(Z: Tensor, Y: Tensor, weight: Tensor, A: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    log_p = torch.log_softmax(Z, 2)
    loss = -torch.linalg.vecdot(weight, torch.linalg.vecdot(Y, log_p))
    return log_p.exp_(), loss + 0.5 * l2 * A.flatten(1).square().sum(1)


def _two_loop(g: Tensor, H: Tensor, S: list[Tensor], D: list[Tensor], rho: list[Tensor]) -> Tensor:
    """L-BFGS direction (R, P) with initial Hessian diag(H) scaled by the newest pair."""
    d = g.clone()
    alphas = []
    for s, y, r in zip(reversed(S), reversed(D), reversed(rho), strict=True):
        a = r * torch.linalg.vecdot(s, d)
        d -= a[:, None] * y
        alphas.append(a)
    d /= H
    if S:
        yHy = torch.linalg.vecdot(D[-1].square(), 1 / H)
        scale = torch.where(rho[-1] > 0, 1 / (rho[-1] * yHy).clamp_min(1e-30), 1.0)
        d *= scale[:, None]
    for s, y, r, a in zip(S, D, rho, reversed(alphas), strict=True):
        d += (a - r * torch.linalg.vecdot(y, d))[:, None] * s
    return d


def _one_hot(targets: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Hard (R, n) targets (negative = padding, all zero) or soft (R, n, C) ones -> (R, n, C)."""
    if targets.dim() == 3:
        return targets.to(dtype)
    Y = torch.zeros(*targets.shape, num_classes, dtype=dtype, device=targets.device)
    return Y.scatter_(2, targets.clamp_min(0)[..., None], (targets >= 0).to(dtype)[..., None])


def _principal_axes(pool: Pool, space: Space) -> Tensor:
    """Eigenvectors (D', D') of the pool's second moments, one pass and one decomposition per pool."""
    moment: Tensor | None = None
    for _, x in pool.vectors(space).blocks():
        moment = x.mT @ x if moment is None else moment.addmm_(x.mT, x)
    assert moment is not None
    return torch.linalg.eigh(moment)[1].contiguous()
