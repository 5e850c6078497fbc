"""The k items of highest score, with ties in a defined order.

`torch.topk` and `argpartition` promise no order among equal scores, so a run would depend on the library's version
and on the device. Here a tie always goes to the lower index.
"""

from __future__ import annotations

import torch
from torch import Tensor


def top(score: Tensor, allowed: Tensor, k: int) -> Tensor:
    """Rows of the k highest scores among the allowed, highest first, ties by the lower index.

    score: (N,) float (infinities are fine); allowed: (N,) bool. Returns int64 (m,), m = min(k, allowed.sum()).
    Raises ValueError when an allowed score is NaN: a NaN has no place in the order and would be picked first.
    """
    rows = allowed.nonzero()[:, 0]
    candidates = score[rows]
    if bool(torch.isnan(candidates).any()):
        bad = int(rows[torch.isnan(candidates)][0])
        raise ValueError(f"the score of item {bad} is NaN")
    m = min(k, len(rows))
    if m <= 0:
        return rows[:0]
    chosen = torch.arange(len(rows), device=rows.device)
    if m < len(rows):
        level = torch.topk(candidates, m, sorted=False).values.min()
        above = (candidates > level).nonzero()[:, 0]
        equal = (candidates == level).nonzero()[: m - len(above), 0]
        chosen = torch.cat([above, equal])  # ascending within each level, which the stable sort keeps
    order = torch.sort(candidates[chosen], descending=True, stable=True).indices
    return rows[chosen[order]]
