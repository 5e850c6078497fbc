"""Proposals of D^2 sampling: rows drawn with probability proportional to their mass."""

from __future__ import annotations

import torch
from torch import Tensor

from alfm.fused.operation import define

WANTED, COUNT, BATCH, REJECTED, USED, PATIENCE, STALE, OVER = range(8)
"""What is known of a problem, its row of `state`: how many picks it wants, and has; how many proposals it makes next;
how many were rejected since the last pick, and from how many on its bounds are stale; how many of its uniform numbers
are used; whether its bounds are stale, and whether no mass is left (0 or 1)."""

NOTHING, MISSED, ROW = range(3)
"""What a proposal is: not made; one that fell beside all rows, by rounding; a row."""


def d2_propose(
    bound: Tensor, factor: Tensor, sums: Tensor, uniform: Tensor, state: Tensor, width: int
) -> tuple[Tensor, Tensor]:
    """The next proposals of R problems, at most `width` of each: rows and what they are, both int64 (R, width).

    bound, factor: float64 (R, G W), a row's mass is their product; sums: float64 (R, G), the mass of every W rows.
    uniform: float64 (R, S) in [0, 1). state: int64 (R, 8); OVER is written. A problem that has what it wants, is stale,
    would make more proposals or has too few numbers left makes none. Where there is no row, 0 stands.
    """
    rows, kind = torch.ops.alfm.d2_propose(bound, factor, sums, uniform, state, width)
    return rows, kind


def going(state: Tensor, width: int, numbers: int) -> Tensor:
    """Which problems make proposals now, if any mass is left: bool (R,)."""
    wanted, count, batch, _, used, _, stale, _ = state.unbind(1)
    return (count > 0) & (count < wanted) & (stale == 0) & (batch <= width) & (used + 2 * batch <= numbers)


def _d2_propose(
    bound: Tensor, factor: Tensor, sums: Tensor, uniform: Tensor, state: Tensor, width: int
) -> tuple[Tensor, Tensor]:
    (R, G), W = sums.shape, bound.shape[1] // sums.shape[1]
    cumulative = torch.cat([sums, sums]).cumsum(1)[:R]  # of one row alone CUDA promises no order
    total, place = cumulative[:, -1:], torch.arange(width, device=sums.device)
    live = going(state, width, uniform.shape[1])[:, None]
    state[:, OVER:] = live & ~(total > 0)
    made = live & (total > 0) & (place < state[:, BATCH, None])
    target = uniform.gather(1, (state[:, USED, None] + place).clamp_max(uniform.shape[1] - 1)) * total
    group = torch.searchsorted(cumulative, target, right=True).clamp_max(G - 1)
    inside = target - (cumulative.gather(1, group) - sums.gather(1, group))
    table = group[..., None].expand(-1, -1, W)
    mass = bound.view(R, G, W).gather(1, table) * factor.view(R, G, W).gather(1, table)
    column = (mass.cumsum(2) <= inside[..., None]).sum(2).clamp_max(W - 1)
    row = made & (mass.gather(2, column[..., None])[..., 0] > 0)
    return torch.where(row, group * W + column, 0), made.long() + row


define(
    "d2_propose(Tensor bound, Tensor factor, Tensor sums, Tensor uniform, Tensor(a!) state, int width)"
    " -> (Tensor, Tensor)",
    _d2_propose,
)
