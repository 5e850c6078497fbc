"""Features under the masks of dropout passes."""

from __future__ import annotations

import torch
from torch import Tensor

from alfm.fused.operation import define
from alfm.streams import packed_mask, unpack_mask


def masked_features(
    keys: Tensor, rows: Tensor, x: Tensor, factor: Tensor, offset: Tensor, drop: float
) -> tuple[Tensor, Tensor]:
    """Features under the masks of K dropout passes: mask * x * factor + offset, and their lengths.

    keys: int64 (K,), one of each pass (see `alfm.streams.packed_mask`, also for `drop`); rows: int64 (b,) pool rows of
    x (b, D); factor, offset: (D,), in the dtype to compute in. Returns (K, b, D) and (K, b) of that dtype.
    """
    return torch.ops.alfm.masked_features(keys, rows, x, factor, offset, drop)


def _masked_features(
    keys: Tensor, rows: Tensor, x: Tensor, factor: Tensor, offset: Tensor, drop: float
) -> tuple[Tensor, Tensor]:
    dim = x.shape[1]
    packed = packed_mask(keys[:, None], rows, dim, drop)
    masks = unpack_mask(packed.flatten(0, 1), dim).view(len(keys), -1, dim).to(factor.dtype)
    every = unpack_mask(packed.new_full((1, packed.shape[-1]), -1), dim)[0].to(factor.dtype)  # of kept features
    phi = torch.addcmul(offset, masks, x * (factor / every), out=masks)
    return phi, torch.linalg.vector_norm(phi, dim=2)


define(
    "masked_features(Tensor keys, Tensor rows, Tensor x, Tensor factor, Tensor offset, float drop) -> (Tensor, Tensor)",
    _masked_features,
)
