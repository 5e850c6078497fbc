"""The kernel of `alfm.fused.group_sums`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def group_sums(x: Tensor, rows: Tensor, edges: Tensor, weight: Tensor | None) -> Tensor:
    """See `alfm.fused.group_sums`. A program makes some columns of one group's sum, some rows at a time."""
    (R, n), G, dim = rows.shape, edges.shape[1] - 1, x.shape[1]
    total = torch.empty((R, G, dim), dtype=torch.float64, device=x.device)
    if total.numel():
        x, rows, edges = x.contiguous(), rows.contiguous(), edges.contiguous()
        weights = x if weight is None else weight.contiguous()  # where there are none, anything that is not read
        columns = max(16, min(128, triton.next_power_of_2(dim)))
        _group_sums[(R * G, triton.cdiv(dim, columns))](
            x, rows, edges, weights, total, n, G, dim, WEIGHTED=weight is not None, ROWS=16, COLUMNS=columns
        )
    return total


# not compiled anew for other sizes: it is to be captured in graphs of any
@triton.jit(do_not_specialize=["n", "G", "dim"])
def _group_sums(
    x, rows, edges, weights, total, n, G, dim, WEIGHTED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    group = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    problem = group // G
    edge = edges + group + problem  # G + 1 a problem
    first, last = tl.load(edge), tl.load(edge + 1)
    sums = tl.zeros([ROWS, COLUMNS], tl.float64)
    for start in range(first, last, ROWS):
        place = start + tl.arange(0, ROWS)
        inside = place < last
        row = tl.load(rows + problem * n + place, mask=inside, other=0)
        value = tl.load(x + row[:, None] * dim + column, mask=inside[:, None] & (column < dim), other=0)
        if WEIGHTED:
            value *= tl.load(weights + problem * n + place, mask=inside, other=0)[:, None]
        sums += value.to(tl.float64)
    tl.store(total + group * dim + column, tl.sum(sums, 0)[None, :], mask=column < dim)
