"""The kernel of `alfm.fused.d2_propose`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def d2_propose(
    bound: Tensor, factor: Tensor, sums: Tensor, uniform: Tensor, state: Tensor, width: int
) -> tuple[Tensor, Tensor]:
    """See `alfm.fused.d2_propose`. A program makes one proposal: it adds up the sums, and the masses of one group.

    Sums are taken in a tree, another order than the text's.
    """
    R, G = sums.shape
    W = bound.shape[1] // G
    rows, kind = (torch.empty((R, width), dtype=torch.int64, device=sums.device) for _ in range(2))
    _d2_propose[(R, width)](
        bound.contiguous(), factor.contiguous(), sums.contiguous(), uniform.contiguous(), state, rows, kind,
        G, W, uniform.shape[1], width, GROUPS=triton.next_power_of_2(G), ROWS=triton.next_power_of_2(W),
    )  # fmt: skip
    return rows, kind


@triton.jit(do_not_specialize=["G", "W", "numbers", "width"])
def _d2_propose(
    bound, factor, sums, uniform, state, rows, kind, G, W, numbers, width, GROUPS: tl.constexpr, ROWS: tl.constexpr
):
    """No program reads what another one writes: OVER, which a problem's first writes, is for the host."""
    r, j = tl.program_id(0).to(tl.int64), tl.program_id(1)
    own = state + r * 8
    wanted, count, batch, used, stale = (
        tl.load(own), tl.load(own + 1), tl.load(own + 2), tl.load(own + 4), tl.load(own + 6),
    )  # fmt: skip
    live = (count > 0) & (count < wanted) & (stale == 0) & (batch <= width) & (used + 2 * batch <= numbers)
    g = tl.arange(0, GROUPS)
    part = tl.load(sums + r * G + g, mask=g < G, other=0)
    cumulative = tl.cumsum(part, 0)
    total = tl.sum(tl.where(g == G - 1, cumulative, 0.0), 0)
    if j == 0:
        tl.store(own + 7, tl.where(total > 0, 0, live.to(tl.int64)))
    made = live & (total > 0) & (j < batch)
    target = tl.load(uniform + r * numbers + used + j, mask=made, other=0) * total
    group = tl.minimum(tl.sum(((cumulative <= target) & (g < G)).to(tl.int32), 0), G - 1)
    inside = target - tl.sum(tl.where(g == group, cumulative - part, 0.0), 0)
    w = tl.arange(0, ROWS)
    place = r * G * W + group * W + w
    mass = tl.load(bound + place, mask=made & (w < W), other=0) * tl.load(factor + place, mask=made & (w < W), other=0)
    within = tl.cumsum(mass, 0)
    column = tl.minimum(tl.sum(((within <= inside) & (w < W)).to(tl.int32), 0), W - 1)
    row = made & (tl.sum(tl.where(w == column, mass, 0.0), 0) > 0)
    tl.store(rows + r * width + j, tl.where(row, group * W + column, 0).to(tl.int64))
    tl.store(kind + r * width + j, made.to(tl.int64) + row.to(tl.int64))
