"""The kernel of `alfm.fused.joint_gains`."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


def joint_gains(p: Tensor, within: Tensor, posterior: Tensor, share: Tensor, scratch: Tensor | None) -> Tensor:
    """See `alfm.fused.joint_gains`. A program makes one candidate; mixtures are in registers only."""
    (R, n, C, M), K = p.shape, posterior.shape[1]
    out = p.new_empty(R, n)
    if out.numel():
        _joint_gains[(n, R)](
            p, within.contiguous(), posterior.contiguous(), share.contiguous(), out, *p.stride(), n, C, M, K,
            CLASSES=min(64, max(16, triton.next_power_of_2(C))), SIZE=64,
            DRAWS=min(32, max(16, triton.next_power_of_2(M))),
        )  # fmt: skip
    return out


@triton.jit
def _joint_gains(
    p, within, posterior, share, out, to_next, to_item, to_class, to_draw, n, classes, draws, size,
    CLASSES: tl.constexpr, SIZE: tl.constexpr, DRAWS: tl.constexpr,
):  # fmt: skip
    item, r = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    number: tl.constexpr = out.dtype.element_ty
    gain = tl.zeros([SIZE], dtype=number)
    for first in range(0, size, SIZE):
        k = first + tl.arange(0, SIZE)
        weight = tl.load(share + r * size + k, mask=k < size, other=0)
        inside = tl.zeros([SIZE], dtype=number)
        for among in range(0, classes, CLASSES):
            c = among + tl.arange(0, CLASSES)
            mixture = tl.zeros([CLASSES, SIZE], dtype=number)
            for start in range(0, draws, DRAWS):
                m = start + tl.arange(0, DRAWS)
                there = (m < draws)[:, None] & (k < size)[None, :]
                given = tl.load(posterior + (r * size + k[None, :]) * draws + m[:, None], mask=there, other=0)
                own = p + r * to_next + item * to_item + c[:, None] * to_class + m[None, :] * to_draw
                known = tl.load(own, mask=(c < classes)[:, None] & (m < draws)[None, :], other=0)
                mixture = tl.dot(known, given, mixture, input_precision="ieee", out_dtype=number)
                if among == 0:
                    entropy = tl.load(within + (r * n + item) * draws + m, mask=m < draws, other=0)
                    inside += tl.sum(entropy[:, None] * given, 0)
            inside += tl.sum(mixture * tl.log(tl.where(mixture > 0, mixture, 1.0)), 0)
        gain -= weight * inside
    tl.store(out + r * n + item, tl.sum(gain, 0))
