"""The most typical of some items: the one with the smallest mean distance to its nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.features.features import Vectors
from alfm.fused import most_typical as fused
from alfm.geometry.kmeans_on_part import Take
from alfm.geometry.knn import CLOSE, SPARE, knn
from alfm.host_ops import holds_any, smallest

_TOLD_APART = 3  # members from which on one can be more typical than another
_SEARCH = 256  # members up to which, on CPU, a search for neighbours costs more than all distances
_NOISE = 256  # units of rounding: squared distances from products are better than that
_BLOCK = 1 << 24  # distances held at once on a GPU: 64 MB
PART = 1024  # members among which the most typical is looked for, of a cluster of a large pool
_FINAL = 64  # of these, the ones that are measured among more
_WIDE = 10  # times as many members
_SIDES = (32, 1024)  # members up to which, on a GPU, groups are found together, by all distances from differences


def most_typical(x: Tensor, neighbours: int) -> Tensor:
    """Index of the item with the smallest mean distance to its min(neighbours, m // 2) nearest others; x (m, D).

    int64 (1,) on x's device, which is not waited for unless it is the CPU. Ties, equal items among them: the lower
    index. Near distances come from differences, as in `knn`: all of them up to _SEARCH members, beyond on a GPU those
    of the nearest.
    """
    k = min(neighbours, len(x) // 2)
    if len(x) < _TOLD_APART:
        return torch.zeros(1, dtype=torch.int64, device=x.device)
    best = _mean_to_nearest(x, k).argmin(0, keepdim=True)
    # products of equal items may round differently
    return (x == x.index_select(0, best)).all(1).to(torch.uint8).argmax(0, keepdim=True)


def most_typical_of_part(take: Take, m: int, neighbours: int, rng: np.random.Generator, device: torch.device) -> Tensor:
    """A place, int64 (1,), of an item among m about as typical as `most_typical`, found without all their distances.

    PART random items are compared with one another; of the most typical 64 the mean distance to the nearest among ten
    times as many says which it is. Up to PART items: the most typical itself. O(PART^2 D); memory O(PART D).
    """
    return typical_of_drawn(take, drawn(m, rng), neighbours, device)


def drawn(m: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
    """The only random part of `most_typical_of_part`, so that the rest can be done side by side: places int64 of at
    most ten PART items of m, ascending, and PART of these places' places, or None where all are compared."""
    if m <= PART:
        return np.arange(m), None
    wide = np.sort(rng.choice(m, min(m, _WIDE * PART), replace=False))
    return wide, np.sort(rng.choice(len(wide), PART, replace=False))


def typical_of_drawn(
    take: Take, places: tuple[np.ndarray, np.ndarray | None], neighbours: int, device: torch.device
) -> Tensor:
    """See `most_typical_of_part`; places: of `drawn`."""
    wide = torch.from_numpy(places[0]).to(device)
    x = take(wide)
    if places[1] is None:
        return most_typical(x, neighbours)
    narrow = torch.from_numpy(places[1]).to(device)
    k = min(neighbours, PART // 2)
    few = narrow[_means_among(x[narrow], None, k).argsort(stable=True)[:_FINAL]]
    return wide[few[_means_among(x, few, k).argmin(0, keepdim=True)]]


def _means_among(x: Tensor, items: Tensor | None, k: int) -> Tensor:
    """Mean distance (b,) of some items int64 (b,) of x (m, D), or all, to the k nearest others; near pairs are few."""
    some = x if items is None else x.index_select(0, items)
    sq, own = torch.linalg.vecdot(x, x), torch.arange(len(x), device=x.device) if items is None else items
    every = torch.addmm(sq, some, x.T, alpha=-2).add_(sq[own, None]).clamp_min_(0)
    every[torch.arange(len(own), device=x.device), own] = torch.inf
    row, column = (every < CLOSE * sq[own, None]).nonzero(as_tuple=True)
    for i, j in zip(row.split(_BLOCK >> 10), column.split(_BLOCK >> 10), strict=True):
        every[i, j] = (some[i] - x[j]).square().sum(1)
    return smallest(every, k).sqrt_().mean(1)


def _looks(device: torch.device) -> bool:
    """Whether the host looks at what it found, since that costs it nothing there."""
    return devices.of(device).looks_are_free


def _mean_to_nearest(x: Tensor, k: int) -> Tensor:
    """Mean distance (m,) of each item of x (m, D) to the k nearest others."""
    m, sq = len(x), torch.linalg.vecdot(x, x)
    ask = _looks(x.device)
    if ask and m > _SEARCH:
        return _found(x, sq, k)
    size = _rows_at_once(m)
    parts = [slice(start, min(start + size, m)) for start in range(0, m, size)]
    return torch.cat([_mean_distances(x, sq, rows, k, ask) for rows in parts])


def most_typical_each(points: Vectors, rows: Tensor, sizes: Sequence[int], neighbours: int) -> Tensor:
    """`most_typical` of each of G groups of items, `sizes` of the rows int64 (m,) one after another: places among the
    rows, int64 (G,).

    Where looks cost a wait, groups of about one size are one operation, and the host does not wait.
    """
    starts = np.cumsum([0, *sizes])
    if _looks(points.device):
        found = [most_typical(points.rows(own, plain=True), neighbours) for own in rows.split(list(sizes))]
        return torch.cat(found) + torch.from_numpy(starts[:-1])
    parts: dict[int, list[int]] = {}
    for i, size in enumerate(sizes):
        parts.setdefault(next((side for side in _SIDES if size <= side), -1 - i), []).append(i)
    there, found = devices.of(points.device), []
    for side, part in parts.items():
        own = [sizes[i] for i in part]
        items = rows if len(parts) == 1 else torch.cat([rows[starts[i] : starts[i + 1]] for i in part])
        x = points.rows(items, plain=True)
        edges, first = there.sent(torch.from_numpy(np.concatenate([np.cumsum([0, *own]), starts[part]]))).tensor_split(
            [len(part) + 1]
        )
        place = most_typical(x, neighbours) if side < 0 else fused.most_typical(x, edges, max(own), neighbours)
        found.append(place + first)
    if len(found) == 1:
        return found[0]
    order = np.argsort([i for part in parts.values() for i in part])
    return torch.cat(found).index_select(0, there.sent(torch.from_numpy(order)))


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
