"""The kernel of `alfm.fused.masked_logits`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alfm.fused.kernels.bits import fraction, hashed, kept_lanes, kept_word


def masked_logits(
    keys: Tensor,
    rows: Tensor,
    x: Tensor,
    factor: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor,
    unit: bool,
    drop: float,
) -> Tensor:
    """See `alfm.fused.masked_logits`. A program makes a tile of one pass's items by classes, masks in registers only.

    Products of float32 are full ones, without tensor cores, in a loop that a library's may well outdo: what is spared
    is to write and read the masked features, M times as many numbers as x.
    """
    (R, M), (b, dim), C, words = keys.shape, x.shape, weight.shape[1], (x.shape[1] + 63) // 64
    places, share = fraction(drop)
    out = factor.new_empty(R, M, b, C)
    double = factor.dtype == torch.float64
    items = 32 if double else 64
    classes = min(64 if double else 128, max(16, triton.next_power_of_2(C)))
    if out.numel():
        # tiles of the same items follow one another, whose features and weights then come from the cache
        grid = (R * M * triton.cdiv(b, items), triton.cdiv(C, classes))
        _masked_logits[grid](
            keys.contiguous(), rows.contiguous(), x.contiguous(), factor, offset, weight.contiguous(),
            bias.contiguous(), out, factor.stride(0), offset.stride(0), R * M, M, b, dim, words, C, share,
            PLACES=places, UNIT=unit, ITEMS=items, CLASSES=classes,
            num_warps=8, num_stages=2,
        )  # fmt: skip
    return out


@triton.jit
def _masked_logits(
    keys, rows, x, factor, offset, weight, bias, out,
    to_factor, to_offset, steps, passes, b, dim, words, classes, share,
    PLACES: tl.constexpr, UNIT: tl.constexpr, ITEMS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    step, tile = (tl.program_id(0) % steps).to(tl.int64), tl.program_id(0) // steps
    r = step // passes
    item = tile.to(tl.int64) * ITEMS + tl.arange(0, ITEMS)
    own = tl.program_id(1).to(tl.int64) * CLASSES + tl.arange(0, CLASSES)
    here, among = item < b, own < classes
    row = hashed(tl.load(keys + step), tl.load(rows + item, mask=here, other=0))
    lane = tl.arange(0, 32)
    number = out.dtype.element_ty
    product = tl.zeros([ITEMS, CLASSES], dtype=number)
    squares = tl.zeros([ITEMS], dtype=number)
    for word in range(words):
        kept = kept_word(row, word, words, share, PLACES)
        for half in tl.static_range(2):
            feature = half * 32 * words + 32 * word + lane
            inside = feature < dim
            scale = tl.load(factor + r * to_factor + feature, mask=inside, other=0)[None, :]
            shift = tl.load(offset + r * to_offset + feature, mask=inside, other=0)[None, :]
            value = tl.load(x + item[:, None] * dim + feature[None, :], mask=here[:, None] & inside[None, :], other=0)
            value = tl.where(kept_lanes(kept[:, None], lane[None, :], half) == 1, value.to(number) * scale, 0.0) + shift
            w = tl.load(
                weight + (r * classes + own[None, :]) * dim + feature[:, None],
                mask=among[None, :] & inside[:, None], other=0,
            )  # fmt: skip
            product = tl.dot(value, w, product, input_precision="ieee", out_dtype=number)
            if UNIT:
                squares += tl.sum(value * value, 1)
    if UNIT:
        least = 2.2250738585072014e-308 if number == tl.float64 else 1.1754943508222875e-38
        product = product * (1 / tl.maximum(tl.sqrt(squares), least))[:, None]
    product += tl.load(bias + r * classes + own, mask=among, other=0)[None, :]
    tl.store(out + (step * b + item[:, None]) * classes + own[None, :], product, mask=here[:, None] & among[None, :])
