"""The kernels of `alfm.fused.most_typical`: the mean distance of every item, then the smallest of each group."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS = 16


def most_typical(x: Tensor, edges: Tensor, side: int, neighbours: int) -> Tensor:
    """See `alfm.fused.most_typical`."""
    groups, dim = len(edges) - 1, x.shape[1]
    found = torch.empty(groups, dtype=torch.int64, device=x.device)
    if groups:
        x, edges = x.contiguous(), edges.contiguous()
        mean, width = x.new_empty(len(x)), max(16, triton.next_power_of_2(side))
        _means[(groups, side)](x, edges, mean, dim, neighbours, SIDE=width, COLUMNS=COLUMNS, num_warps=4)
        _smallest[(groups,)](x, edges, mean, found, dim, SIDE=width, COLUMNS=COLUMNS, num_warps=4)
    return found


@triton.jit(do_not_specialize=["dim", "neighbours"])
def _means(x, edges, mean, dim, neighbours, SIDE: tl.constexpr, COLUMNS: tl.constexpr):
    """One item of a group: its distances to all others in it, then the nearest one by one."""
    group, item = tl.program_id(0), tl.program_id(1)
    first = tl.load(edges + group)
    size = (tl.load(edges + group + 1) - first).to(tl.int32)
    if item < size:
        number = mean.dtype.element_ty
        other = tl.arange(0, SIDE)
        inside = other < size
        square = tl.zeros([SIDE], dtype=number)
        for start in range(0, dim, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            own = tl.load(x + (first + item) * dim + column, mask=column < dim, other=0)
            rows = x + (first + other)[:, None] * dim + column[None, :]
            difference = tl.load(rows, mask=inside[:, None] & (column < dim)[None, :], other=0) - own[None, :]
            square += tl.sum(difference * difference, 1)
        distance = tl.where(inside & (other != item), tl.sqrt(square), float("inf"))
        near = tl.minimum(neighbours, size // 2)
        total = tl.sum(tl.zeros([SIDE], dtype=number), 0)
        for _ in range(near):
            least = tl.min(distance, 0)
            place = tl.min(tl.where(distance == least, other, SIDE), 0)
            distance = tl.where(other == place, float("inf"), distance)
            total += least
        tl.store(mean + first + item, total / tl.maximum(near, 1))


@triton.jit(do_not_specialize=["dim"])
def _smallest(x, edges, mean, found, dim, SIDE: tl.constexpr, COLUMNS: tl.constexpr):
    """The first item of a group that is equal to that of the smallest mean."""
    group = tl.program_id(0)
    first = tl.load(edges + group)
    size = (tl.load(edges + group + 1) - first).to(tl.int32)
    item = tl.arange(0, SIDE)
    inside = item < size
    own = tl.load(mean + first + item, mask=inside, other=float("inf"))
    best = tl.min(tl.where(inside & (own == tl.min(own, 0)), item, SIDE), 0)
    best = tl.where(best < size, best, 0)
    differ = tl.zeros([SIDE], dtype=tl.int32)
    for start in range(0, dim, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        inner = (column < dim) & (size > 0)
        wanted = tl.load(x + (first + best) * dim + column, mask=inner, other=0)
        rows = x + (first + item)[:, None] * dim + column[None, :]
        value = tl.load(rows, mask=inside[:, None] & inner[None, :], other=0)
        differ += tl.sum((value != wanted[None, :]).to(tl.int32), 1)
    place = tl.min(tl.where(inside & (differ == 0), item, SIDE), 0)
    tl.store(found + group, tl.where(place < size, place, 0).to(tl.int64))
