"""The kernels of `alfm.fused.quasi_newton`.

A program goes over one part of one replicate's vectors, LANES numbers of all pairs at a time, and leaves its sums;
these are added in the order of the parts. What there may be: m pairs, a power of two up to 32; P below 2^31.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from alfm.fused.quasi_newton import FLOOR


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
    """See `alfm.fused.quasi_newton.pair_products`. Steps, changes and H are gone over once."""
    (R, J, m, w), (C, k) = steps.shape, slope.shape[1:]
    products, decrease = slope.new_empty(R, J, m + 3, m), slope.new_empty(R, J)
    _pair_products[(R, J)](
        slope.contiguous(), bias, x, d, used, q, x2, total, l2, G, steps, changes, slot, products, decrease,
        C, k, w, FLOOR=FLOOR, M=m, LANES=max(16, 8192 // m**2), num_warps=8,
    )  # fmt: skip
    return products, decrease


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
    """See `alfm.fused.quasi_newton.pair_shares`. A program makes all of one replicate."""
    (R, J), m = decrease.shape, bend.shape[1]
    shares = bend.new_empty(R, 2 * m + 1)
    _pair_shares[(R,)](
        products, decrease, f, inverse, bend, newest, slot, running, shares, tolerance, J,
        M=m, PARTS=max(8, 8192 // m**2), num_warps=8,
    )  # fmt: skip
    return shares


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
    """See `alfm.fused.quasi_newton.pair_direction`."""
    (R, J, m, w), C, k = steps.shape, q.shape[1], x2.shape[2]
    line = shares.new_empty(R, J, 3)
    _pair_direction[(R, J)](
        shares, q, x2, total, l2, x, G, steps, changes, worse, d, line,
        C, k, w, FLOOR=FLOOR, M=m, LANES=max(64, 4096 // m), num_warps=8,
    )  # fmt: skip
    return line


@triton.jit
def _diagonal(q, x2, total, l2, r, place, C, k, FLOOR: tl.constexpr):
    """H at places of a vector, which of them are weights, which number of all classes' and which class each is of."""
    row = place // k
    weight = row < C
    known = weight | (place - C * k < C)
    row = tl.where(weight, row, place - C * k)
    own = tl.load(q + r * C + row, mask=known, other=0)
    curve = tl.load(x2 + r * k + place % k, mask=weight, other=0)
    diagonal = tl.where(
        weight, own / tl.load(total + r) * curve + tl.load(l2), tl.maximum(own, tl.full([1], FLOOR, own.dtype))
    )
    return diagonal, weight, known, row


@triton.jit(do_not_specialize=["C", "k"])
def _pair_products(
    slope, bias, x, d, used, q, x2, total, l2, G, steps, changes, slot, products, decrease,
    C, k, w, FLOOR: tl.constexpr, M: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    r, part, parts = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    number = products.dtype.element_ty
    pair = tl.arange(0, M)
    new = (pair == tl.load(slot + r))[:, None]
    share = tl.load(used + r)
    penalty = tl.load(l2)
    vector = r * parts * w
    pairs = (r * parts + part) * M * w + pair.to(tl.int64)[:, None] * w
    yHy = tl.zeros([M, M, LANES], dtype=number)
    sy = tl.zeros([M, LANES], dtype=number)
    sg = tl.zeros([M, LANES], dtype=number)
    yHg = tl.zeros([M, LANES], dtype=number)
    gHg = tl.zeros([LANES], dtype=number)
    for first in range(0, w, LANES):
        lane = first + tl.arange(0, LANES)
        inside = lane < w
        place = part * w + lane
        H, weight, known, row = _diagonal(q, x2, total, l2, r, place, C, k, FLOOR)
        step = share * tl.load(d + vector + place, mask=inside, other=0)
        point = tl.load(x + vector + place, mask=inside, other=0) + step
        g = tl.load(slope + r * C * k + place, mask=inside & weight, other=0) + penalty * point
        g = tl.where(weight, g, tl.load(bias + r * C + row, mask=inside & known & ~weight, other=0))
        change = g - tl.load(G + vector + place, mask=inside, other=0)
        tl.debug_barrier()  # other threads may read what is written here
        tl.store(x + vector + place, point, mask=inside)
        tl.store(G + vector + place, g, mask=inside)
        held = inside[None, :] & ~new
        s = tl.load(steps + pairs + lane[None, :], mask=held, other=0)
        y = tl.load(changes + pairs + lane[None, :], mask=held, other=0)
        s = tl.where(new, step[None, :], s)
        y = tl.where(new, change[None, :], y)
        tl.store(steps + pairs + lane[None, :], s, mask=inside[None, :] & new)
        tl.store(changes + pairs + lane[None, :], y, mask=inside[None, :] & new)
        scaled = y / H[None, :]
        yHy += scaled[:, None, :] * y[None, :, :]
        sy += s * change[None, :]
        sg += s * g[None, :]
        yHg += scaled * g[None, :]
        gHg += g * g / H
    to = products + (r * parts + part) * (M + 3) * M
    tl.store(to + pair[:, None] * M + pair[None, :], tl.sum(yHy, 2))
    tl.store(to + M * M + pair, tl.sum(sy, 1))
    tl.store(to + (M + 1) * M + pair, tl.sum(sg, 1))
    tl.store(to + (M + 2) * M + pair, tl.sum(yHg, 1))
    tl.store(decrease + r * parts + part, tl.sum(gHg, 0))


@triton.jit(do_not_specialize=["parts"])
def _pair_shares(
    products, decrease, f, inverse, bend, newest, slot, running, shares, tolerance, parts,
    M: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64)
    number = shares.dtype.element_ty
    pair = tl.arange(0, M)
    square = pair[:, None] * M + pair[None, :]
    yHy = tl.zeros([M, M], dtype=number)
    sy = tl.zeros([M], dtype=number)
    sg = tl.zeros([M], dtype=number)
    yHg = tl.zeros([M], dtype=number)
    gHg = tl.zeros([PARTS], dtype=number)
    for first in range(0, parts, PARTS):
        part = first + tl.arange(0, PARTS)
        inside = part < parts
        own = products + (r * parts + part) * (M + 3) * M
        yHy += tl.sum(tl.load(own[:, None, None] + square[None, :, :], mask=inside[:, None, None], other=0), 0)
        rows = own[:, None] + M * M + pair[None, :]
        sy += tl.sum(tl.load(rows, mask=inside[:, None], other=0), 0)
        sg += tl.sum(tl.load(rows + M, mask=inside[:, None], other=0), 0)
        yHg += tl.sum(tl.load(rows + 2 * M, mask=inside[:, None], other=0), 0)
        gHg += tl.load(decrease + r * parts + part, mask=inside, other=0)
    tl.store(running + r, 0.5 * tl.sum(gHg, 0) > tolerance * tl.load(f + r))
    here, last = tl.load(slot + r), tl.load(newest + r)
    old, bends = tl.load(inverse + r * M * M + square), tl.load(bend + r * M + pair)
    tl.debug_barrier()  # other threads may read what is written here
    new = pair == here
    curve = tl.sum(tl.where(new, sy, 0.0), 0)
    last = tl.where(curve > 0, here, last)
    tl.store(newest + r, last)
    tl.store(slot + r, (here + 1) % M)
    # the newest pair's column
    old = tl.where(new[:, None] | new[None, :], 0.0, old)
    column = tl.where(new, 1.0, 0.0) - tl.sum(old * sy[None, :], 1)
    column = tl.where(curve > 0, column / curve, 0.0)
    old = tl.where(new[None, :], column[:, None], old)
    tl.store(inverse + r * M * M + square, old)
    bends = tl.where(new, sy, bends)
    tl.store(bend + r * M + pair, bends)
    # the way there and back
    chosen = pair == last
    curve = tl.sum(tl.where(chosen, bends, 0.0), 0)
    own = tl.sum(tl.sum(tl.where(chosen[:, None] & chosen[None, :], yHy, 0.0), 1), 0)
    scale = tl.where(curve > 0, curve / tl.maximum(own, 1e-30), 1.0)
    p = tl.sum(old * sg[None, :], 1)
    back = scale * (tl.sum(yHy * p[None, :], 1) - yHg) + bends * p
    u = tl.sum(old * back[:, None], 0)
    to = shares + r * (2 * M + 1)
    tl.store(to + pair, -u)
    tl.store(to + M + pair, scale * p)
    tl.store(to + 2 * M, -scale)


@triton.jit(do_not_specialize=["C", "k"])
def _pair_direction(
    shares, q, x2, total, l2, x, G, steps, changes, worse, d, line,
    C, k, w, FLOOR: tl.constexpr, M: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    r, part, parts = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    number = line.dtype.element_ty
    pair = tl.arange(0, M)
    stays = tl.load(worse + r)
    of_steps = tl.load(shares + r * (2 * M + 1) + pair)[:, None]
    of_changes = tl.load(shares + r * (2 * M + 1) + M + pair)[:, None]
    of_gradient = tl.load(shares + r * (2 * M + 1) + 2 * M)
    vector = r * parts * w
    pairs = (r * parts + part) * M * w + pair.to(tl.int64)[:, None] * w
    inner = tl.zeros([LANES], dtype=number)
    curve = tl.zeros([LANES], dtype=number)
    square = tl.zeros([LANES], dtype=number)
    for first in range(0, w, LANES):
        lane = first + tl.arange(0, LANES)
        inside = lane < w
        place = part * w + lane
        H, weight, _, _ = _diagonal(q, x2, total, l2, r, place, C, k, FLOOR)
        s = tl.load(steps + pairs + lane[None, :], mask=inside[None, :], other=0)
        y = tl.load(changes + pairs + lane[None, :], mask=inside[None, :], other=0)
        g = tl.load(G + vector + place, mask=inside, other=0)
        move = tl.sum(of_steps * s, 0) + (tl.sum(of_changes * y, 0) + of_gradient * g) / H
        move = tl.where(stays, tl.load(d + vector + place, mask=inside & stays, other=0), move)
        tl.store(d + vector + place, move, mask=inside)
        move = tl.where(weight & inside, move, 0.0)
        point = tl.load(x + vector + place, mask=weight & inside, other=0)
        inner += point * move
        curve += move * move
        square += point * point
    to = line + (r * parts + part) * 3
    tl.store(to, tl.sum(inner, 0))
    tl.store(to + 1, tl.sum(curve, 0))
    tl.store(to + 2, tl.sum(square, 0))
