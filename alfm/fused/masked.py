"""Items under the masks of one of many passes."""

from __future__ import annotations

import torch
from torch import Tensor

from alfm.fused.operation import define
from alfm.streams import keep_mask


def masked(keys: Tensor, number: Tensor, rows: Tensor, x: Tensor, drop: float) -> Tensor:
    """mask * x of the `number`-th pass: R replicates' items x (R, n, D) -> (R, n, D).

    keys: int64 (R, passes), see `alfm.streams.keep_mask`, also for `drop`; number: int64 (1,); rows: int64 (R, n), what
    an item's mask is addressed by.
    """
    return torch.ops.alfm.masked(keys, number, rows, x, drop)


def _masked(keys: Tensor, number: Tensor, rows: Tensor, x: Tensor, drop: float) -> Tensor:
    R, n, D = x.shape
    key = keys.index_select(1, number).expand(R, n).reshape(-1)
    keep = keep_mask(key, rows.reshape(-1), D, drop).view(R, n, D)
    return keep.view(torch.uint8).to(x.dtype).mul_(x)  # bytes convert several times faster than bool


define("masked(Tensor keys, Tensor number, Tensor rows, Tensor x, float drop) -> Tensor", _masked)
