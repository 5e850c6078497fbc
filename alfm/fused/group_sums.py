"""Sums of rows by group, of rows that are sorted by their group."""

from __future__ import annotations

import torch
from torch import Tensor

from alfm.fused.operation import define

_NUMBERS = 1 << 25  # that the text in torch's operations has in memory beside its result


def group_sums(x: Tensor, rows: Tensor, edges: Tensor, weight: Tensor | None = None) -> Tensor:
    """Of R problems with G groups, the sums of rows of x (M, D): float64 (R, G, D), each in the order of `rows`.

    rows: int64 (R, n); group g of problem r has those from edges[r, g] up to edges[r, g + 1], int64 (R, G + 1). weight:
    (R, n), what each of them is multiplied by, in the dtype of x.
    """
    return torch.ops.alfm.group_sums(x, rows, edges, weight)


def _group_sums(x: Tensor, rows: Tensor, edges: Tensor, weight: Tensor | None) -> Tensor:
    (R, n), G, dim = rows.shape, edges.shape[1] - 1, x.shape[1]
    total = torch.zeros(R, G, dim, dtype=torch.float64, device=x.device)
    size = max(256, _NUMBERS // max(1, R * dim))
    for start in range(0, n, size):
        part = rows[:, start : start + size]
        m = part.shape[1]
        offsets = (edges - start).clamp(0, m) + m * torch.arange(R, device=x.device)[:, None]
        offsets = torch.nn.functional.pad(offsets.flatten(), (0, 1), value=R * m)  # and what is in no group
        values = x.index_select(0, part.flatten())
        if weight is not None:
            values.mul_(weight[:, start : start + size].reshape(-1, 1))
        found = torch.segment_reduce(values.double(), "sum", offsets=offsets, unsafe=True)
        total += found.unflatten(0, (R, G + 1))[:, :G]
    return total


define("group_sums(Tensor x, Tensor rows, Tensor edges, Tensor? weight) -> Tensor", _group_sums)
