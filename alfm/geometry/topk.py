"""The k items of highest score, with ties in a defined order.

`torch.topk` and `argpartition` promise no order among equal scores, so a run would depend on the library's version
and on the device. Here a tie always goes to the lower index.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alfm import devices


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


def top_each(score: Tensor, allowed: Tensor, k: int) -> Tensor:
    """`top` of each row: (R, N) and (R, N) -> int64 (R, min(k, N)), padded with -1.

    Row by row where a count costs nothing; elsewhere by one stable sort of all, and one question of the host.
    """
    R, N = score.shape
    k = min(k, N)
    if devices.of(score).looks_are_free:
        picks = torch.full((R, k), -1, dtype=torch.int64)
        for own, one, free in zip(picks, score, allowed, strict=True):
            rows = top(one, free, k)
            own[: len(rows)] = rows
        return picks
    for one, free, lost in zip(score, allowed, (score.isnan() & allowed).any(1).tolist(), strict=True):
        if lost:
            top(one, free, k)  # says which item's
    order = torch.where(allowed, -score, torch.nan).sort(dim=1, stable=True).indices[:, :k]  # NaN comes last
    return order.where(allowed.gather(1, order), -1)
