"""The most typical of some items: the one with the smallest mean distance to its nearest neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from alfm import devices
from alfm.geometry.knn import CLOSE, SPARE, knn
from alfm.host_ops import holds_any

_SEARCH = 256  # members up to which, on CPU, a search for neighbours costs more than all distances
_NOISE = 256  # units of rounding: squared distances from products are better than that
_BLOCK = 1 << 24  # distances held at once on a GPU: 64 MB


def most_typical(x: Tensor, neighbours: int) -> Tensor:
    """Index of the item with the smallest mean distance to its min(neighbours, m // 2) nearest others; x (m, D).

    int64 (1,) on x's device, which is not waited for unless it is the CPU. Ties, equal items among them: the lower
    index. Near distances come from differences, as in `knn`: all of them up to _SEARCH members, beyond on a GPU those
    of the nearest.
    """
    m = len(x)
    k = min(neighbours, m // 2)
    if k < 1:
        return torch.zeros(1, dtype=torch.int64, device=x.device)
    sq = torch.linalg.vecdot(x, x)
    ask = devices.of(x).looks_are_free
    if ask and m > _SEARCH:
        best = _found(x, sq, k).argmin(0, keepdim=True)
    else:
        size = _rows_at_once(m)
        parts = [slice(start, min(start + size, m)) for start in range(0, m, size)]
        best = torch.cat([_mean_distances(x, sq, rows, k, ask) for rows in parts]).argmin(0, keepdim=True)
    # products of equal items may round differently
    return (x == x.index_select(0, best)).all(1).to(torch.uint8).argmax(0, keepdim=True)


def _found(x: Tensor, sq: Tensor, k: int) -> Tensor:
    """Mean distance (m,) of each item of x (m, D) to the k nearest others, by search; sq (m,): squared lengths."""
    distance = knn(x, k)[0]
    mean = distance.mean(1)
    # so near that the search could not tell them from others as near
    lost = (distance[:, -1].square() < _NOISE * torch.finfo(x.dtype).eps * sq).nonzero()[:, 0]
    for rows in lost.split(_SEARCH):
        every = torch.cdist(x[rows], x, compute_mode="donot_use_mm_for_euclid_dist")
        every[torch.arange(len(rows)), rows] = torch.inf
        mean[rows] = every.topk(k, largest=False).values.mean(1)
    return mean


def _mean_distances(x: Tensor, sq: Tensor, rows: slice, k: int, ask: bool) -> Tensor:
    """Mean distance (b,) of some rows of x (m, D) to the k nearest others; sq (m,): squared lengths."""
    every = (sq[rows, None] + sq - 2 * (x[rows] @ x.T)).clamp_min_(0)
    every.diagonal(rows.start).fill_(torch.inf)
    near = every < CLOSE * sq[rows, None]
    if ask and not holds_any(near):
        return every.topk(k, largest=False, sorted=False).values.sqrt_().mean(1)
    if len(x) <= _SEARCH:
        exact = torch.cdist(x[rows], x, compute_mode="donot_use_mm_for_euclid_dist").square_()
        found = torch.where(near, exact, every)
    else:
        found, place = every.topk(min(k + SPARE, len(x) - 1), largest=False)
        exact = torch.stack([(x[rows] - x.index_select(0, own)).square().sum(1) for own in place.T], 1)
        found = torch.where(found < CLOSE * sq[rows, None], exact, found)
    # in order, so that equal distances have equal means
    return found.topk(k, largest=False).values.sqrt_().mean(1)


def _rows_at_once(m: int) -> int:
    return max(_SEARCH, _BLOCK // m)
