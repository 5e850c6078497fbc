"""Operations that a card does in one kernel of ours, where torch's own operations go over memory many times.

Each is an operation of torch's with a text in torch's operations, which is what runs wherever there is no kernel. The
kernels are in `alfm.triton_kernels`; a card without Triton (Windows) does without them.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from alfm.streams import packed_mask, unpack_mask

_LIBRARY = torch.library.Library("alfm", "DEF")
_LIBRARY.define(
    "masked_features(Tensor keys, Tensor rows, Tensor x, Tensor factor, Tensor offset, float drop) -> (Tensor, Tensor)"
)


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


_LIBRARY.impl("masked_features", _masked_features, "CompositeExplicitAutograd")

if find_spec("triton") is not None:

    def _by_kernel(*given: Tensor | float) -> tuple[Tensor, Tensor]:
        from alfm.triton_kernels import masked_features

        return masked_features(*given)  # type: ignore[arg-type]

    _LIBRARY.impl("masked_features", _by_kernel, "CUDA")
