"""The kernel of `alfm.fused.bald`."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor


def bald(logits: Tensor) -> Tensor:
    """See `alfm.fused.bald`. A program makes some items of one replicate; logits are read once."""
    *R, M, b, C = logits.shape
    out = logits.new_empty(*R, b)
    given = logits if R else logits[None]
    classes = triton.next_power_of_2(C)
    items = max(1, (1024 if logits.dtype == torch.float64 else 2048) // classes)
    if out.numel():
        _bald[(triton.cdiv(b, items), len(given))](
            given, out, *given.stride(), M, b, C, ITEMS=items, CLASSES=classes, BIT=math.log(2),
            num_warps=4 if classes <= 4096 else 16,
        )  # fmt: skip
    return out


@triton.jit
def _bald(
    logits, out, to_next, to_pass, to_item, to_class, passes, b, classes,
    ITEMS: tl.constexpr, CLASSES: tl.constexpr, BIT: tl.constexpr,
):  # fmt: skip
    """In bits, as the text is; numbers of half precision are computed in float32."""
    r = tl.program_id(1).to(tl.int64)
    item = tl.program_id(0).to(tl.int64) * ITEMS + tl.arange(0, ITEMS)
    own = tl.arange(0, CLASSES).to(tl.int64)
    here = (item < b)[:, None] & (own < classes)[None, :]
    given = logits + r * to_next + item[:, None] * to_item + own[None, :] * to_class
    double: tl.constexpr = out.dtype.element_ty == tl.float64
    number: tl.constexpr = tl.float64 if double else tl.float32
    mean = tl.zeros([ITEMS, CLASSES], dtype=number)
    within = tl.zeros([ITEMS], dtype=number)
    for step in range(passes):
        z = tl.load(given + tl.cast(step, tl.int64) * to_pass, mask=here, other=float("-inf")).to(number) * (1 / BIT)
        z = tl.maximum(z - tl.max(z, 1)[:, None], -1e4, propagate_nan=tl.PropagateNan.ALL)
        e = tl.exp2(z)
        total = tl.sum(e, 1)
        within += tl.log2(total) - tl.sum(z * e, 1) / total
        mean += e / total[:, None]
    mean = mean / passes
    least = 2.2250738585072014e-308 if double else 1.1754943508222875e-38
    across = tl.sum(mean * tl.log(tl.maximum(mean, least, propagate_nan=tl.PropagateNan.ALL)), 1)
    score = tl.maximum(within * (-BIT / passes) - across, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(out + r * b + item, score, mask=item < b)
