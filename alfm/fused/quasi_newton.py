"""What a step of L-BFGS in its compact form (Byrd, Nocedal & Schnabel 1994) does with long vectors.

R softmax regressions side by side, weights (C, k) and biases (C,) of each in one vector of P numbers: weights first,
padding last. The last m steps s and changes y of the gradient are (R, J, m, w): vectors in J parts of w, P = J w, of
which `slot` int64 (R,), the same for all, is the oldest. The Hessian estimate that all begins with is the diagonal H
= q / total * x2 + l2 of the weights, q with a floor for the biases: q (R, C), x2 (R, 1, k), total (R, 1), l2 ().
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from alfm.fused.operation import define

FLOOR = 1e-4
"""Of the biases' part of H, which vanishes for a class that is certain everywhere: it keeps its step finite."""


def pair_products(
    slope: Tensor,
    bias: Tensor,
    x: Tensor,
    d: Tensor,
    used: Tensor,
    q: Tensor,
    x2: Tensor,
    total: Tensor,
    l2: Tensor,
    G: Tensor,
    steps: Tensor,
    changes: Tensor,
    slot: Tensor,
) -> tuple[Tensor, Tensor]:
    """The point x (R, P) goes `used` (R,) times the direction d (R, P) further, and the gradient G (R, P) becomes that
    there: slope (R, C, k) plus the penalty's, and bias (R, C). Step and change take the place of the oldest pair.

    Returns sums over each part: (R, J, m + 3, m), y' H^-1 y of all pairs, then three rows, s' y of the newest y, s' G
    and y' H^-1 G; and G' H^-1 G (R, J).
    """
    return torch.ops.alfm.pair_products(slope, bias, x, d, used, q, x2, total, l2, G, steps, changes, slot)


def pair_shares(
    products: Tensor,
    decrease: Tensor,
    f: Tensor,
    tolerance: float,
    inverse: Tensor,
    bend: Tensor,
    newest: Tensor,
    slot: Tensor,
    running: Tensor,
) -> Tensor:
    """Shares (R, 2 m + 1) of s, of H^-1 y and of H^-1 G in minus the inverse Hessian times G, by `pair_products`.

    inverse (R, m, m), of the triangle of s_i' y_j, i no younger than j, takes the newest pair's column in; bend (R, m)
    its s' y; newest int64 (R,) is the newest pair with s' y > 0, which scales H; slot goes on. A pair without s' y > 0
    has no share. running bool (R,): is half of G' H^-1 G more than tolerance * f (R,)?
    """
    return torch.ops.alfm.pair_shares(products, decrease, f, tolerance, inverse, bend, newest, slot, running)


def pair_direction(
    shares: Tensor,
    q: Tensor,
    x2: Tensor,
    total: Tensor,
    l2: Tensor,
    x: Tensor,
    G: Tensor,
    steps: Tensor,
    changes: Tensor,
    worse: Tensor,
    d: Tensor,
) -> Tensor:
    """The direction d (R, P) by `pair_shares`; it stays where a step along it is to be made again, worse bool (R,).

    Returns sums over each part of the weights, (R, J, 3): x' d, d' d and x' x.
    """
    return torch.ops.alfm.pair_direction(shares, q, x2, total, l2, x, G, steps, changes, worse, d)


def _diagonal(q: Tensor, x2: Tensor, total: Tensor, l2: Tensor, size: int) -> Tensor:
    weights = ((q / total)[..., None] * x2 + l2).flatten(1)
    return torch.cat([weights, pad(q, (0, size - weights.shape[1] - q.shape[1])).clamp_min(FLOOR)], 1)


def _pair_products(
    slope: Tensor,
    bias: Tensor,
    x: Tensor,
    d: Tensor,
    used: Tensor,
    q: Tensor,
    x2: Tensor,
    total: Tensor,
    l2: Tensor,
    G: Tensor,
    steps: Tensor,
    changes: Tensor,
    slot: Tensor,
) -> tuple[Tensor, Tensor]:
    R, J, m, w = steps.shape
    size, here = slope.shape[1] * slope.shape[2], slot[:1]
    moved = used[:, None] * d
    x.add_(moved)
    slope = slope.flatten(1) + l2 * x[:, :size]
    new = torch.cat([slope, pad(bias, (0, J * w - size - bias.shape[1]))], 1)
    change = (new - G).view(R, J, 1, w)
    steps.index_copy_(2, here, moved.view(R, J, 1, w))
    changes.index_copy_(2, here, change)
    G.copy_(new)
    H, g = _diagonal(q, x2, total, l2, J * w).view(R, J, 1, w), G.view(R, J, 1, w)
    scaled, ends = (changes / H).flatten(0, 1), torch.cat([change, g], 2).flatten(0, 1).mT
    yHy = torch.bmm(scaled, changes.flatten(0, 1).mT)
    rows = torch.cat([torch.bmm(steps.flatten(0, 1), ends), torch.bmm(scaled, ends[..., 1:])], 2).mT
    return torch.cat([yHy, rows], 1).unflatten(0, (R, J)), (g.square() / H).sum((2, 3))


def _pair_shares(
    products: Tensor,
    decrease: Tensor,
    f: Tensor,
    tolerance: float,
    inverse: Tensor,
    bend: Tensor,
    newest: Tensor,
    slot: Tensor,
    running: Tensor,
) -> Tensor:
    m, here, products = bend.shape[1], slot[:1], products.sum(1)
    torch.gt(0.5 * decrease.sum(1), tolerance * f, out=running)
    yHy, (sy, sg, yHg) = products[:, :m], products[:, m:].mT.unsqueeze(1).unbind(3)
    sy, sg, yHg = sy.mT, sg.mT, yHg.mT  # (R, m, 1)
    own = sy.index_select(1, here)  # (R, 1, 1)
    valid = own > 0
    unit = torch.eye(m, dtype=products.dtype, device=products.device).index_select(0, here)  # (1, m)
    others = 1 - unit
    kept = inverse * others * others.mT
    column = (unit.mT - torch.bmm(kept, sy)) * torch.where(valid, own.reciprocal(), torch.zeros_like(own))
    torch.addcmul(kept, column, unit, out=inverse)
    bend.index_copy_(1, here, own[..., 0])
    torch.where(valid[:, 0, 0], slot, newest, out=newest)
    slot.copy_((slot + 1) % m)
    sy = bend.gather(1, newest[:, None])
    bends = yHy.diagonal(dim1=1, dim2=2).gather(1, newest[:, None])
    scale = torch.where(sy > 0, sy / bends.clamp_min(1e-30), torch.ones_like(sy))[..., None]
    p = torch.bmm(inverse, sg)
    u = torch.bmm(inverse.mT, torch.addcmul(scale * (torch.bmm(yHy, p) - yHg), bend[..., None], p))
    return torch.cat([-u, scale * p, -scale], 1)[..., 0]


def _pair_direction(
    shares: Tensor,
    q: Tensor,
    x2: Tensor,
    total: Tensor,
    l2: Tensor,
    x: Tensor,
    G: Tensor,
    steps: Tensor,
    changes: Tensor,
    worse: Tensor,
    d: Tensor,
) -> Tensor:
    R, J, m, w = steps.shape
    size = q.shape[1] * x2.shape[2]
    many = shares[:, None, None].expand(R, J, 1, -1).flatten(0, 1)
    ahead = torch.bmm(many[..., :m], steps.flatten(0, 1)).view(R, -1)
    back = torch.bmm(many[..., m : 2 * m], changes.flatten(0, 1)).view(R, -1)
    back = torch.addcmul(back, shares[:, 2 * m :], G).div_(_diagonal(q, x2, total, l2, J * w))
    torch.where(worse[:, None], d, ahead.add_(back), out=d)
    inside = torch.arange(J * w, device=d.device) < size
    at, move = (x * inside).view(R, J, w), (d * inside).view(R, J, w)
    return torch.stack([(at * move).sum(2), move.square().sum(2), at.square().sum(2)], 2)


define(
    "pair_products(Tensor slope, Tensor bias, Tensor(a!) x, Tensor d, Tensor used, Tensor q, Tensor x2, Tensor total, "
    "Tensor l2, Tensor(b!) G, Tensor(c!) steps, Tensor(d!) changes, Tensor slot) -> (Tensor, Tensor)",
    _pair_products,
    "quasi_newton",
)
define(
    "pair_shares(Tensor products, Tensor decrease, Tensor f, float tolerance, Tensor(a!) inverse, Tensor(b!) bend, "
    "Tensor(c!) newest, Tensor(d!) slot, Tensor(e!) running) -> Tensor",
    _pair_shares,
    "quasi_newton",
)
define(
    "pair_direction(Tensor shares, Tensor q, Tensor x2, Tensor total, Tensor l2, Tensor x, Tensor G, Tensor steps, "
    "Tensor changes, Tensor worse, Tensor(a!) d) -> Tensor",
    _pair_direction,
    "quasi_newton",
)
