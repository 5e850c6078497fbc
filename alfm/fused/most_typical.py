"""The most typical item of each of many groups."""

from __future__ import annotations

import torch
from torch import Tensor

from alfm.fused.operation import define

_NUMBERS = 1 << 24  # that the text in torch's operations makes at once: 64 MB


def most_typical(x: Tensor, edges: Tensor, side: int, neighbours: int) -> Tensor:
    """Of each group the item with the smallest mean distance to its min(neighbours, m // 2) nearest others.

    x (T, D): the items of all groups; group g has those from edges[g] up to edges[g + 1], int64 (G + 1,), which are m,
    at most `side`. Returns places in the groups, int64 (G,). Distances come from differences; ties, equal items among
    them: the first. A group of none has 0.
    """
    return torch.ops.alfm.most_typical(x, edges, side, neighbours)


def _most_typical(x: Tensor, edges: Tensor, side: int, neighbours: int) -> Tensor:
    """Groups made as large as the largest may be."""
    size, place = edges.diff()[:, None], torch.arange(side, device=x.device)
    at_once = max(1, _NUMBERS // (side * max(side, x.shape[1])))
    found = []
    for start, m in zip(edges[:-1, None].split(at_once), size.split(at_once), strict=True):
        inside = place < m
        own = x.index_select(0, torch.where(inside, start + place, 0).flatten()).unflatten(0, inside.shape)
        every = torch.cdist(own, own, compute_mode="donot_use_mm_for_euclid_dist")
        every.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        every.masked_fill_(~inside[:, None], torch.inf)
        k = (m // 2).clamp_max(neighbours)
        near = every.topk(min(neighbours, max(1, side // 2)), dim=2, largest=False).values
        counts = torch.arange(near.shape[2], device=x.device) < k[..., None]
        mean = near.where(counts, 0).sum(2) / k.clamp_min(1)
        best = mean.masked_fill(~inside, torch.inf).argmin(1)
        # means of equal items may round differently
        equal = (own == own.gather(1, best[:, None, None].expand(-1, 1, x.shape[1]))).all(2) & inside
        found.append(equal.to(torch.uint8).argmax(1))
    return torch.cat(found)


define("most_typical(Tensor x, Tensor edges, int side, int neighbours) -> Tensor", _most_typical)
