"""The kernel of `alfm.fused.d2_judge`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alfm.fused.d2_judge import FEWEST, LARGEST, MOST


def d2_judge(
    rows: Tensor,
    kind: Tensor,
    near: Tensor,
    between: Tensor,
    sq: Tensor,
    factor: Tensor,
    uniform: Tensor,
    bound: Tensor,
    met: Tensor,
    sums: Tensor,
    picks: Tensor,
    centre_sq: Tensor,
    state: Tensor,
    floor: float,
) -> Tensor:
    """See `alfm.fused.d2_judge`. A program judges one problem's proposals, w of them, a power of 2 from 16 on.

    It goes from one that is accepted to the next, and reads a row of `between` for each.
    """
    (R, w), (_, G), P = rows.shape, sums.shape, picks.shape[1]
    slots = torch.empty_like(rows)
    _d2_judge[(R,)](
        rows, kind, near.contiguous(), between.contiguous(), sq, factor, uniform, bound, met, sums, picks, centre_sq,
        state, slots, floor, G, bound.shape[1] // G, uniform.shape[1], P, WIDTH=w, TILE=max(2, 2048 // w),
        FEWEST=FEWEST, MOST=MOST, LARGEST=LARGEST, num_warps=4 if w <= MOST else 8, enable_fp_fusion=False,
    )  # fmt: skip
    return slots


@triton.jit
def _distance(inner, sq_a, sq_b, floor):
    """A squared distance in float64; what is below rounding is 0."""
    sq = sq_a + sq_b
    found = sq - 2 * inner
    return tl.where(found <= floor * sq, 0.0, found).to(tl.float64)


@triton.jit(do_not_specialize=["G", "W", "numbers", "P"])
def _d2_judge(
    rows, kind, near, between, sq, factor, uniform, bound, met, sums, picks, centre_sq, state, slots, floor,
    G, W, numbers, P, WIDTH: tl.constexpr, TILE: tl.constexpr, FEWEST: tl.constexpr, MOST: tl.constexpr,
    LARGEST: tl.constexpr,
):  # fmt: skip
    """Bounds, met, lengths of centres and the state are read before a barrier and written behind it, or to places that
    are not read; bounds are read once more for the sums, behind another."""
    r, lane, tile = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH), tl.arange(0, TILE)
    rows, kind, slots, own, table = rows + r * WIDTH, kind + r * WIDTH, slots + r * WIDTH, state + r * 8, r * G * W
    wanted, had, batch = tl.load(own), tl.load(own + 1), tl.load(own + 2)
    rejected, used, patience = tl.load(own + 3), tl.load(own + 4), tl.load(own + 5)
    row, there, made = tl.load(rows + lane), tl.load(kind + lane) == 2, tl.load(kind) > 0
    length = tl.load(sq + table + row)
    known = tl.load(bound + table + row)
    seen = tl.load(met + table + row, mask=there, other=0x7FFFFFFF)

    true, least = known, tl.min(seen, 0).to(tl.int64)
    for begin in range(least, had, TILE):
        place = begin + tile
        inside = place < had
        inner = tl.load(near + (r * WIDTH + lane[:, None]) * P + place[None], mask=inside[None], other=0)
        centre = tl.load(centre_sq + r * P + place, mask=inside, other=0)
        distance = _distance(inner, length[:, None], centre[None], floor)
        unmet = inside[None] & (place[None] >= seen[:, None])
        true = tl.minimum(true, tl.min(tl.where(unmet, distance, float("inf")), 1))

    order = tl.cumsum(there.to(tl.int64), 0)
    asked = there & made
    threshold = tl.load(uniform + r * numbers + used + batch + order - 1, mask=asked, other=0) * known
    slot = tl.full([WIDTH], 0, tl.int64) + (P - 1)
    count = had
    j = tl.min(tl.where(asked & (threshold < true), lane, WIDTH), 0)
    while (j < WIDTH) & (count < wanted):
        chosen = tl.load(rows + j)
        chosen_sq = tl.load(sq + table + chosen)
        distance = _distance(tl.load(between + (r * WIDTH + j) * WIDTH + lane), chosen_sq, length, floor)
        true = tl.minimum(true, tl.where(row == chosen, 0.0, distance))  # exactly: no row becomes a centre twice
        slot = tl.where(lane == j, count, slot)
        tl.store(picks + r * P + count, chosen)
        tl.store(centre_sq + r * P + count, chosen_sq)
        count += 1
        j = tl.min(tl.where(asked & (threshold < true) & (lane > j), lane, WIDTH), 0)
    tl.store(slots + lane, slot)

    again = tl.full([WIDTH], 0, tl.int32)  # a row that is there twice has one value, its last
    for begin in range(0, WIDTH, TILE):
        other = begin + tile
        same = (row[:, None] == tl.load(rows + other)[None]) & (tl.load(kind + other) == 2)[None]
        again += tl.sum((same & (other[None] > lane[:, None])).to(tl.int32), 1)
    tl.debug_barrier()
    tl.store(bound + table + row, true, mask=there & (again == 0))
    tl.store(met + table + row, (count + 0 * row).to(tl.int32), mask=there & (again == 0))
    tl.debug_barrier()

    group = row // W
    total = tl.zeros([WIDTH], tl.float64)
    for begin in range(0, W, TILE):
        column = begin + tile
        place = table + group[:, None] * W + column[None]
        inside = there[:, None] & (column < W)[None]
        mass = tl.load(bound + place, mask=inside, other=0) * tl.load(factor + place, mask=inside, other=0)
        total += tl.sum(mass, 1)
    tl.store(sums + r * G + group, total, mask=there)  # in the same order for every row of a group

    if made:
        valid = tl.sum(there.to(tl.int64), 0)
        accepted = count - had
        want = ((wanted - count) * valid).to(tl.float64) / tl.maximum(accepted, 1).to(tl.float64)
        some = tl.minimum(tl.maximum(want * 1.1, FEWEST), MOST).to(tl.int64)
        after = tl.where(accepted > 0, 0, rejected + valid)
        stale = after >= patience
        tl.store(own + 1, count)
        tl.store(own + 2, tl.where(accepted > 0, some, tl.minimum(2 * batch, LARGEST)))
        tl.store(own + 3, tl.where(stale, 0, after))
        tl.store(own + 4, used + batch + valid)
        tl.store(own + 6, stale.to(tl.int64))
