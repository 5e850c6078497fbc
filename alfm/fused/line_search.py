"""What a step of Newton's method along a line does with the logits of R softmax regressions side by side.

Logits Z (R, C, n) move by dZ (R, C, n) times a step; lse (R, n) are their logsumexp over the classes. wY (R, C, n):
weighted targets, weight (R, n) of the items. The objective f (R,) is their loss and half of l2 (), the penalty's
strength, times the weights' squares; line (R, J, 3): see `alfm.fused.quasi_newton.pair_direction`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alfm.fused.operation import define


def residuals(
    Z: Tensor, dZ: Tensor, used: Tensor, lse: Tensor, wY: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The logits go `used` (R,) times dZ further, to where lse is theirs; P are the probabilities there.

    Returns weight * P - wY (R, C, n), its sums over the items, and those of weight * P * (1 - P), (R, C).
    """
    return torch.ops.alfm.residuals(Z, dZ, used, lse, wY, weight)


def line_slopes(Z: Tensor, dZ: Tensor, d: Tensor, t: Tensor, wY: Tensor, weight: Tensor, first: int) -> Tensor:
    """Slope and bend of the loss along the line at t (R,), summed over parts of the items: (R, parts, 2).

    dZ takes in the biases' move, which stands in d (R, P) from `first` on.
    """
    return torch.ops.alfm.line_slopes(Z, dZ, d, t, wY, weight, first)


def line_attempts(
    slopes: Tensor, line: Tensor, l2: Tensor, t: Tensor, running: Tensor, Z: Tensor, dZ: Tensor, wY: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Newton's method along the line from t (R,), no less than a tenth and no more than five times as far.

    Returns how far it leads (R,), 0 unless running, bool (R,); the logsumexp there (R, n), and the loss summed over
    parts of the items, (R, parts).
    """
    return torch.ops.alfm.line_attempts(slopes, line, l2, t, running, Z, dZ, wY)


def line_outcomes(
    loss: Tensor,
    line: Tensor,
    l2: Tensor,
    tried: Tensor,
    reached: Tensor,
    f: Tensor,
    lse: Tensor,
    t: Tensor,
    used: Tensor,
    worse: Tensor,
) -> None:
    """Is the objective higher where `line_attempts` tried and reached, `worse` bool (R,)? Then nothing is used, and t,
    from where the next attempt begins, is the step tried; elsewhere f and lse are those there, and t is 1."""
    torch.ops.alfm.line_outcomes(loss, line, l2, tried, reached, f, lse, t, used, worse)


def _residuals(
    Z: Tensor, dZ: Tensor, used: Tensor, lse: Tensor, wY: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    P = Z.addcmul_(used[:, None, None], dZ).sub(lse[:, None]).exp_()
    wP = weight[:, None] * P
    bends = wP.sum(2) - torch.linalg.vecdot(wP, P)
    return wP.sub_(wY), wP.sum(2), bends


def _line_slopes(Z: Tensor, dZ: Tensor, d: Tensor, t: Tensor, wY: Tensor, weight: Tensor, first: int) -> Tensor:
    dZ.add_(d[:, first : first + dZ.shape[1], None])
    slopes = torch.softmax(torch.addcmul(Z, t[:, None, None], dZ), 1).mul_(dZ)
    m, square = slopes.sum(1), slopes.mul_(dZ).sum(1)
    gain = torch.linalg.vecdot(wY.flatten(1), dZ.flatten(1))
    bend = torch.linalg.vecdot(weight, square - m * m)
    return torch.stack([torch.linalg.vecdot(weight, m) - gain, bend], 1)[:, None]


def _line_attempts(
    slopes: Tensor, line: Tensor, l2: Tensor, t: Tensor, running: Tensor, Z: Tensor, dZ: Tensor, wY: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    (slope, bend), (inner, curve, _) = slopes.sum(1).unbind(1), line.sum(1).unbind(1)
    slope = slope + l2 * (inner + t * curve)
    bend = bend + l2 * curve
    newton = t - slope / bend.clamp_min(torch.finfo(bend.dtype).tiny)
    tried = torch.where(running, torch.minimum(torch.maximum(newton, 0.1 * t), 5 * t), torch.zeros_like(t))
    log_p = torch.addcmul(Z, tried[:, None, None], dZ)
    lse = torch.logsumexp(log_p, 1)
    loss = torch.linalg.vecdot(wY.flatten(1), log_p.sub_(lse[:, None]).flatten(1)).neg_()
    return tried, lse, loss[:, None]


def _line_outcomes(
    loss: Tensor,
    line: Tensor,
    l2: Tensor,
    tried: Tensor,
    reached: Tensor,
    f: Tensor,
    lse: Tensor,
    t: Tensor,
    used: Tensor,
    worse: Tensor,
) -> None:
    inner, curve, square = line.sum(1).unbind(1)
    found = loss.sum(1) + 0.5 * l2 * (square + tried * (2 * inner + tried * curve))
    torch.gt(found, f * (1 + 1e-6), out=worse)
    torch.where(worse, f, found, out=f)
    torch.where(worse[:, None], lse, reached, out=lse)
    torch.where(worse, tried, torch.ones_like(t), out=t)
    torch.mul(tried, ~worse, out=used)


define(
    "residuals(Tensor(a!) Z, Tensor dZ, Tensor used, Tensor lse, Tensor wY, Tensor weight) -> (Tensor, Tensor, Tensor)",
    _residuals,
    "line_search",
)
define(
    "line_slopes(Tensor Z, Tensor(a!) dZ, Tensor d, Tensor t, Tensor wY, Tensor weight, int first) -> Tensor",
    _line_slopes,
    "line_search",
)
define(
    "line_attempts(Tensor slopes, Tensor line, Tensor l2, Tensor t, Tensor running, Tensor Z, Tensor dZ, "
    "Tensor wY) -> (Tensor, Tensor, Tensor)",
    _line_attempts,
    "line_search",
)
define(
    "line_outcomes(Tensor loss, Tensor line, Tensor l2, Tensor tried, Tensor reached, Tensor(a!) f, Tensor(b!) lse, "
    "Tensor(c!) t, Tensor(d!) used, Tensor(e!) worse) -> ()",
    _line_outcomes,
    "line_search",
)
