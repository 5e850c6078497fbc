"""k-means of more items than one gathers: learned from a random part, then every item is looked at once.

Items are gathered by blocks of a few thousand, so memory is O(part D) whatever their number. Blocks run side by side
and say which item or cluster is nearest, so results depend neither on threads nor on the order of the blocks. Figures:
benchmarks/notes/kmeans.md.

Source of learning on a part with one full assignment: CLARA (Kaufman & Rousseeuw 1990, chapter 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.features.features import Vectors
from alfm.geometry.kmeans import kmeans
from alfm.host_ops import argmax_rows
from alfm.threads import each_of

GATHERED = 100_000
"""Items up to which k-means sees all of them, unless an option says otherwise; of more it sees so many."""
_EACH = 100  # items of the part for each cluster, at least
_KEPT = 16  # nearest items kept for a centroid whose first choice went to another
_AHEAD = 16  # blocks that wait for each other: few, since each holds its items

Take = Callable[[Tensor], Tensor]
"""Places int64 (m,) among n items -> their coordinates (m, D)."""


def centroids_of_part(
    take: Take,
    n: int,
    k: int,
    rng: np.random.Generator,
    device: torch.device,
    weight: Tensor | None = None,
    most: int = GATHERED,
    iterations: int = 20,
    seeding: Literal["d2", "random"] = "d2",
) -> Tensor:
    """Centroids (k, D) of a k-means on max(most, 100 k) of n items, drawn without weights; `weight` (n,) as there."""
    some = torch.from_numpy(np.sort(rng.choice(n, min(n, max(most, _EACH * k)), replace=False))).to(device)
    own = None if weight is None else weight[some]
    return kmeans(take(some), k, rng, own, iterations, seeding=seeding).centroids


def nearest_clusters(points: Vectors, centroids: Sequence[Tensor]) -> list[Tensor]:
    """The nearest of each replicate's centroids, R times (k, D): R times int32 (N,), in one pass over the pool.

    Ties: the lower centroid.
    """
    halves = [-0.5 * torch.linalg.vecdot(c, c) for c in centroids]
    found = [torch.empty(points.N, dtype=torch.int32, device=points.device) for _ in centroids]

    def assign(block: tuple[slice, Tensor]) -> None:
        rows, x = block
        for own, c, half in zip(found, centroids, halves, strict=True):
            own[rows] = argmax_rows(torch.addmm(half, x, c.T)).int()

    size = devices.of(points.device).block_rows(max(points.pool.D, max(map(len, centroids))))
    for _ in each_of(points.blocks(size), assign, points.device, _AHEAD):
        pass
    return found


def nearest_places(take: Take, n: int, centroids: Tensor) -> Tensor:
    """`kmeans.nearest_items` of items that are gathered block by block: distinct places int64 (min(k, n),).

    A second pass where two centroids have the same nearest item. O(n k D) a pass; memory O(k) and a few blocks.
    """
    best, score = _nearest(take, n, centroids, 1)
    distance = 0.5 * torch.linalg.vecdot(centroids, centroids).cpu().numpy() - score[:, 0]
    chosen = np.full(len(centroids), -1, dtype=np.int64)
    taken: set[int] = set()
    losers: list[int] = []
    for c in np.argsort(distance, kind="stable").tolist():
        place = int(best[c, 0])
        if place in taken:
            losers.append(c)
        else:
            chosen[c] = place
            taken.add(place)
    kept = _KEPT
    while losers and len(taken) < n:
        best, _ = _nearest(take, n, centroids[torch.tensor(losers, device=centroids.device)], min(kept, n))
        for row, c in enumerate(losers):
            place = next((int(place) for place in best[row] if int(place) not in taken), -1)
            if place < 0 and len(taken) < n:
                losers = losers[row:]  # its nearest ones are all taken: look at more
                kept *= 4
                break
            if place >= 0:
                chosen[c] = place
                taken.add(place)
        else:
            losers = []
    return torch.from_numpy(chosen[chosen >= 0]).to(centroids.device)


def _nearest(take: Take, n: int, centroids: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places (k, count) of the items nearest to each centroid, nearest first, and x.c - |x|^2 / 2 of them.

    Ties: the lower place.
    """
    device = centroids.device

    def look(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        x = take(torch.arange(rows.start, rows.stop, device=device))
        score = torch.addmm(-0.5 * torch.linalg.vecdot(x, x), centroids, x.T)
        place = argmax_rows(score)[:, None] if count == 1 else score.topk(min(count, len(x))).indices
        return place.cpu().numpy() + rows.start, score.gather(1, place).cpu().numpy()

    size = devices.of(device).block_rows(max(centroids.shape[1], len(centroids)))
    places, scores = np.zeros((len(centroids), 0), dtype=np.int64), np.zeros((len(centroids), 0))
    for _, (place, score) in each_of(_slices(n, size), look, device, _AHEAD):
        places, scores = np.concatenate([places, place], 1), np.concatenate([scores, score], 1)
        order = np.lexsort((places, -scores))[:, :count]
        places, scores = np.take_along_axis(places, order, 1), np.take_along_axis(scores, order, 1)
    return places, scores


def _slices(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
