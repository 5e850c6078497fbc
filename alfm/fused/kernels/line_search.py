"""The kernels of `alfm.fused.line_search`.

A program of the line's goes over ITEMS items of one replicate at a time, all their classes, and leaves its sums; these
are added in the order of the parts, of which there are no more than PARTS. R C n may be any; C and n below 2^31.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PARTS = 512
ITEMS, CLASSES = 16, 128
LINE = 128
"""Parts of a line at a time."""


def residuals(
    Z: Tensor, dZ: Tensor, used: Tensor, lse: Tensor, wY: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """See `alfm.fused.line_search.residuals`. A program goes over all items of one class."""
    R, C, n = Z.shape
    found, bias, bends = torch.empty_like(Z), Z.new_empty(R, C), Z.new_empty(R, C)
    _residuals[(C, R)](
        Z, dZ, used, lse, wY.contiguous(), weight.contiguous(), found, bias, bends, C, n, LANES=512, num_warps=4
    )
    return found, bias, bends


def line_slopes(Z: Tensor, dZ: Tensor, d: Tensor, t: Tensor, wY: Tensor, weight: Tensor, first: int) -> Tensor:
    """See `alfm.fused.line_search.line_slopes`."""
    (R, C, n), (parts, span) = Z.shape, _parts(Z)
    slopes = Z.new_empty(R, parts, 2)
    _line_slopes[(R, parts)](
        Z, dZ, d, t, wY.contiguous(), weight.contiguous(), slopes, C, n, d.shape[1], first, span,
        ITEMS=ITEMS, CLASSES=CLASSES, num_warps=4,
    )  # fmt: skip
    return slopes


def line_attempts(
    slopes: Tensor, line: Tensor, l2: Tensor, t: Tensor, running: Tensor, Z: Tensor, dZ: Tensor, wY: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """See `alfm.fused.line_search.line_attempts`. Every program makes the step anew, of the same sums."""
    (R, C, n), (parts, span) = Z.shape, _parts(Z)
    tried, reached, loss = torch.empty_like(t), Z.new_empty(R, n), Z.new_empty(R, parts)
    _line_attempts[(R, parts)](
        slopes, line, l2, t, running, Z, dZ, wY.contiguous(), tried, reached, loss,
        slopes.shape[1], line.shape[1], C, n, span,
        TINY=torch.finfo(Z.dtype).tiny, PARTS=PARTS, LINE=LINE, ITEMS=ITEMS, CLASSES=CLASSES, num_warps=4,
    )  # fmt: skip
    return tried, reached, loss


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
    """See `alfm.fused.line_search.line_outcomes`. A program makes all of one replicate."""
    _line_outcomes[(len(f),)](
        loss, line, l2, tried, reached, f, lse, t, used, worse, loss.shape[1], line.shape[1], lse.shape[1],
        PARTS=PARTS, LINE=LINE, LANES=1024, num_warps=4,
    )  # fmt: skip


def _parts(Z: Tensor) -> tuple[int, int]:
    """How many parts the items of logits are gone over in, and how many items each has."""
    blocks = triton.cdiv(Z.shape[2], ITEMS)
    span = triton.cdiv(blocks, PARTS)
    return triton.cdiv(blocks, span), span * ITEMS


@triton.jit(do_not_specialize=["C", "n"])
def _residuals(Z, dZ, used, lse, wY, weight, found, bias, bends, C, n, LANES: tl.constexpr):
    row, r = tl.program_id(0), tl.program_id(1).to(tl.int64)
    share = tl.load(used + r)
    slope = tl.zeros([LANES], dtype=found.dtype.element_ty)
    bend = tl.zeros([LANES], dtype=found.dtype.element_ty)
    for first in range(0, n, LANES):
        item = first + tl.arange(0, LANES)
        inside = item < n
        at = (r * C + row) * n + item
        z = tl.load(Z + at, mask=inside, other=0) + share * tl.load(dZ + at, mask=inside, other=0)
        tl.debug_barrier()  # other threads may read what is written here
        tl.store(Z + at, z, mask=inside)
        w = tl.load(weight + r * n + item, mask=inside, other=0)
        p = tl.exp(z - tl.load(lse + r * n + item, mask=inside, other=0))
        over = w * p - tl.load(wY + at, mask=inside, other=0)
        tl.store(found + at, over, mask=inside)
        slope += over
        bend += w * p * (1 - p)
    tl.store(bias + r * C + row, tl.sum(slope, 0))
    tl.store(bends + r * C + row, tl.sum(bend, 0))


@triton.jit(do_not_specialize=["C", "n", "P", "offset", "span"])
def _line_slopes(
    Z, dZ, d, t, wY, weight, slopes, C, n, P, offset, span, ITEMS: tl.constexpr, CLASSES: tl.constexpr
):  # fmt: skip
    r, part, parts = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    number = slopes.dtype.element_ty
    step = tl.load(t + r)
    slope = tl.zeros([ITEMS], dtype=number)
    bend = tl.zeros([ITEMS], dtype=number)
    for start in range(part * span, tl.minimum((part + 1) * span, n), ITEMS):
        item = start + tl.arange(0, ITEMS)
        top = tl.full([ITEMS], -1e30, dtype=number)
        mass = tl.zeros([ITEMS], dtype=number)
        mean = tl.zeros([ITEMS], dtype=number)
        square = tl.zeros([ITEMS], dtype=number)
        gain = tl.zeros([ITEMS], dtype=number)
        for first in range(0, C, CLASSES):
            row = first + tl.arange(0, CLASSES)
            inside = (row < C)[:, None] & (item < n)[None, :]
            at = (r * C + row)[:, None] * n + item[None, :]
            bias = tl.load(d + r * P + offset + row, mask=row < C, other=0)
            move = tl.load(dZ + at, mask=inside, other=0) + bias[:, None]
            tl.debug_barrier()  # other threads may read what is written here
            tl.store(dZ + at, move, mask=inside)
            z = tl.load(Z + at, mask=inside, other=0) + step * move
            z = tl.where((row < C)[:, None], z, float("-inf"))
            above = tl.maximum(top, tl.max(z, 0))
            less = tl.exp(top - above)
            e = tl.exp(z - above[None, :])
            mass = mass * less + tl.sum(e, 0)
            mean = mean * less + tl.sum(e * move, 0)
            square = square * less + tl.sum(e * move * move, 0)
            gain += tl.sum(tl.load(wY + at, mask=inside, other=0) * move, 0)
            top = above
        mean /= mass
        w = tl.load(weight + r * n + item, mask=item < n, other=0)
        slope += w * mean - gain
        bend += w * (square / mass - mean * mean)
    tl.store(slopes + (r * parts + part) * 2, tl.sum(slope, 0))
    tl.store(slopes + (r * parts + part) * 2 + 1, tl.sum(bend, 0))


@triton.jit
def _column(numbers, r, parts, columns: tl.constexpr, column: tl.constexpr, LANES: tl.constexpr):
    """The sum over the parts of one of some columns."""
    total = tl.zeros([LANES], dtype=numbers.dtype.element_ty)
    for first in range(0, parts, LANES):
        part = first + tl.arange(0, LANES)
        total += tl.load(numbers + (r * parts + part) * columns + column, mask=part < parts, other=0)
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=["slope_parts", "line_parts", "C", "n", "span"])
def _line_attempts(
    slopes, line, l2, t, running, Z, dZ, wY, tried, reached, loss, slope_parts, line_parts, C, n, span,
    TINY: tl.constexpr, PARTS: tl.constexpr, LINE: tl.constexpr, ITEMS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    r, part, parts = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    number = loss.dtype.element_ty
    penalty, begun = tl.load(l2), tl.load(t + r)
    slope = _column(slopes, r, slope_parts, 2, 0, PARTS)
    bend = _column(slopes, r, slope_parts, 2, 1, PARTS)
    inner = _column(line, r, line_parts, 3, 0, LINE)
    curve = _column(line, r, line_parts, 3, 1, LINE)
    slope += penalty * (inner + begun * curve)
    bend += penalty * curve
    step = begun - slope / tl.maximum(bend, TINY)
    step = tl.maximum(step, 0.1 * begun, propagate_nan=tl.PropagateNan.ALL)
    step = tl.minimum(step, 5 * begun, propagate_nan=tl.PropagateNan.ALL)
    step = tl.where(tl.load(running + r), step, 0.0)
    if part == 0:
        tl.store(tried + r, step)
    total = tl.zeros([ITEMS], dtype=number)
    for start in range(part * span, tl.minimum((part + 1) * span, n), ITEMS):
        item = start + tl.arange(0, ITEMS)
        top = tl.full([ITEMS], -1e30, dtype=number)
        mass = tl.zeros([ITEMS], dtype=number)
        target = tl.zeros([ITEMS], dtype=number)
        below = tl.zeros([ITEMS], dtype=number)  # targets times what logits are below the top
        for first in range(0, C, CLASSES):
            row = first + tl.arange(0, CLASSES)
            inside = (row < C)[:, None] & (item < n)[None, :]
            at = (r * C + row)[:, None] * n + item[None, :]
            z = tl.load(Z + at, mask=inside, other=0) + step * tl.load(dZ + at, mask=inside, other=0)
            y = tl.load(wY + at, mask=inside, other=0)
            above = tl.maximum(top, tl.max(tl.where((row < C)[:, None], z, float("-inf")), 0))
            below += target * (above - top) + tl.sum(y * (above[None, :] - z), 0)
            target += tl.sum(y, 0)
            e = tl.where((row < C)[:, None], tl.exp(z - above[None, :]), 0.0)
            mass = mass * tl.exp(top - above) + tl.sum(e, 0)
            top = above
        tl.store(reached + r * n + item, top + tl.log(mass), mask=item < n)
        total += below + target * tl.log(mass)
    tl.store(loss + r * parts + part, tl.sum(total, 0))


@triton.jit(do_not_specialize=["loss_parts", "line_parts", "n"])
def _line_outcomes(
    loss, line, l2, tried, reached, f, lse, t, used, worse, loss_parts, line_parts, n,
    PARTS: tl.constexpr, LINE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64)
    step, before = tl.load(tried + r), tl.load(f + r)
    inner = _column(line, r, line_parts, 3, 0, LINE)
    curve = _column(line, r, line_parts, 3, 1, LINE)
    square = _column(line, r, line_parts, 3, 2, LINE)
    found = _column(loss, r, loss_parts, 1, 0, PARTS) + 0.5 * tl.load(l2) * (square + step * (2 * inner + step * curve))
    higher = found > before * (1 + 1e-6)
    tl.debug_barrier()  # other threads may read what is written here
    tl.store(worse + r, higher)
    tl.store(f + r, tl.where(higher, before, found))
    tl.store(t + r, tl.where(higher, step, 1.0))
    tl.store(used + r, tl.where(higher, 0.0, step))
    for first in range(0, n, LANES):
        item = r * n + first + tl.arange(0, LANES)
        inside = first + tl.arange(0, LANES) < n
        new = tl.load(reached + item, mask=inside, other=0)
        tl.store(lse + item, tl.where(higher, tl.load(lse + item, mask=inside, other=0), new), mask=inside)
