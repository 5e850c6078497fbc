"""Logits of features under the masks of dropout passes."""

from __future__ import annotations

import torch
from torch import Tensor

from alfm.fused.operation import define
from alfm.streams import packed_mask, unpack_mask

MASK_WORDS = 1 << 17  # of masks made at a time, 64 features each: 8 MB unpacked


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
    """W phi + bias, or W phi / |phi| + bias where `unit`, of phi = mask * x * factor + offset: (R, M, b, C).

    keys: int64 (R, M), one of each replicate's passes (see `alfm.streams.packed_mask`, also for `drop`); rows: int64
    (b,) pool rows of x (b, D); factor, offset (R, D) of contiguous rows, weight (R, C, D), bias (R, C), in the dtype to
    compute in.
    """
    return torch.ops.alfm.masked_logits(keys, rows, x, factor, offset, weight, bias, unit, drop)


def _masked_logits(
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
    """In memory the result lies by classes, (R, M, C, b)."""
    (R, M), (b, dim), words = keys.shape, x.shape, (x.shape[1] + 63) // 64
    group = min(M, max(1, MASK_WORDS // max(1, b * words)))  # passes whose masks are made at once
    lanes = torch.empty(group * b, 2, 8 * words, dtype=torch.int32, device=x.device)
    every = unpack_mask(keys.new_full((1, words), -1), dim)[0].to(factor.dtype)  # what kept features have in masks
    product = factor.new_empty(R, M, weight.shape[1], b)
    norm = factor.new_empty(M, b)
    for r in range(R):
        # pass after pass in the same memory, which stays near a CPU's caches
        scaled = x * (factor[r] / every)
        phi = torch.empty_like(scaled)
        for start in range(0, M, group):
            packed = packed_mask(keys[r, start : start + group, None], rows, dim, drop).flatten(0, 1)
            masks = unpack_mask(packed, dim, lanes[: len(packed)]).unflatten(0, (-1, b))
            for m, mask in enumerate(masks, start):
                torch.addcmul(offset[r], phi.copy_(mask), scaled, out=phi)
                torch.mm(weight[r], phi.T, out=product[r, m])
                if unit:
                    torch.linalg.vector_norm(phi, dim=1, out=norm[m])
        if unit:
            inverse = norm.clamp_min_(torch.finfo(norm.dtype).tiny).reciprocal_()
            torch.addcmul(bias[r, :, None], product[r], inverse[:, None], out=product[r])
        else:
            product[r] += bias[r, :, None]
    return product.mT


define(
    "masked_logits(Tensor keys, Tensor rows, Tensor x, Tensor factor, Tensor offset, Tensor weight, Tensor bias, "
    "bool unit, float drop) -> Tensor",
    _masked_logits,
)
