"""k-means of more items than one gathers: learned from a random part, then every item is looked at once.

Items are gathered by blocks of a few thousand, so memory is O(part D) whatever their number. Blocks run side by side
and say which item or cluster is nearest, so results depend neither on threads nor on the order of the blocks. Figures:
benchmarks/notes/kmeans.md.

Source of learning on a part with one full assignment: CLARA (Kaufman & Rousseeuw 1990, chapter 3).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.features.features import Vectors
from alfm.geometry.kmeans import kmeans
from alfm.host_ops import argmax_rows
from alfm.threads import asking_together, each_of, side_by_side

GATHERED = 100_000
"""Items up to which k-means sees all of them, unless an option says otherwise; of more it sees a part."""
_PART = 20_000  # items of the part: more would lower the inertia by less than 1 %
_EACH = 100  # of these for each cluster, at least
_KEPT = 16  # nearest items kept for a centroid whose first choice went to another
_AHEAD = 16  # blocks that wait for each other: few, since each holds its items
_PIECE = 512  # of a block's items in one product on CPU, whose caches hold what it gives

Take = Callable[[Tensor], Tensor]
"""Places int64 (m,) among n items -> their coordinates (m, D)."""

Block = Callable[[slice], Tensor]
"""Consecutive items -> their coordinates (b, D)."""


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
    """Centroids (k, D) of a k-means on a part of more than `most` items, n of them; `weight` (n,) as there.

    The part are 20,000 of them, or 100 k, drawn without weights; no more than `most` but for the hundred a cluster.
    """
    size = max(min(most, _PART), _EACH * k)
    some = torch.from_numpy(np.sort(rng.choice(n, min(n, size), replace=False))).to(device)
    own = None if weight is None else weight[some]
    return kmeans(take(some), k, rng, own, iterations, seeding=seeding).centroids


def by_twos(jobs: Sequence[Callable[[], Tensor]], device: torch.device) -> list[Tensor]:
    """`centroids_of_part` of several replicates, two at a time side by side: so many parts are held, and what one core
    does alone in one of them leaves the other something to do."""
    return [found for i in range(0, len(jobs), 2) for found in side_by_side(jobs[i : i + 2], device)]


def nearest_clusters(points: Vectors, centroids: Sequence[Tensor]) -> list[Tensor]:
    """The nearest of each replicate's centroids, R times (k, D): R times int32 (N,), in one pass over the pool.

    Ties: the lower centroid.
    """
    halves = [-0.5 * torch.linalg.vecdot(c, c) for c in centroids]
    found = [torch.empty(points.N, dtype=torch.int32, device=points.device) for _ in centroids]

    def assign(rows: slice) -> None:
        x = points.at(rows)
        try:
            room = rooms.pop()
        except IndexError:
            room = x.new_empty(piece * most)
        for own, c, half in zip(found, centroids, halves, strict=True):
            for start in range(0, len(x), piece):
                some = x[start : start + piece]
                score = torch.addmm(half, some, c.T, out=room[: len(some) * len(c)].view(len(some), len(c)))
                own[rows.start + start : rows.start + start + len(some)] = argmax_rows(score).int()
        rooms.append(room)

    most = max(map(len, centroids))
    size = devices.of(points.device).block_rows(max(points.pool.D, most))
    piece = size if points.pool.joins_replicates else min(size, _PIECE)
    rooms: list[Tensor] = []  # for products, one a thread: fresh memory each time costs a fifth of them
    for _ in each_of(_slices(points.N, size), assign, points.device, _AHEAD):
        pass
    return found


def nearest_places(take: Take, n: int, centroids: Tensor) -> Tensor:
    """`kmeans.nearest_items` of items that are gathered block by block: distinct places int64 (min(k, n),).

    A second pass where two centroids have the same nearest item. O(n k D) a pass; memory O(k) and a few blocks.
    """

    def block(rows: slice) -> Tensor:
        return take(torch.arange(rows.start, rows.stop, device=centroids.device))

    return _settled([_choose(n, centroids)], block, n, [None])[0]


def nearest_rows(block: Block, wanted: Sequence[Tensor], centroids: Sequence[Tensor]) -> list[Tensor]:
    """The same for R replicates in one pass over a pool, each among the items it wants, bool (N,): rows of the pool.

    Reading on costs less than gathering where a replicate wants an eighth of the items or more.
    """
    choices = [_choose(int(own.sum()), c) for own, c in zip(wanted, centroids, strict=True)]
    return _settled(choices, block, len(wanted[0]), wanted)


Asked = tuple[Tensor, int]
Told = tuple[np.ndarray, np.ndarray]


def _choose(n: int, centroids: Tensor) -> Generator[Asked, Told, Tensor]:
    """Asks for the items nearest to some centroids, so many each, of n; what is told is of `_nearest`."""
    best, score = yield centroids, 1
    distance = 0.5 * torch.linalg.vecdot(centroids, centroids).cpu().numpy() - score[:, 0]
    chosen = np.full(len(centroids), -1, dtype=np.int64)
    taken: set[int] = set()
    losers: list[int] = []
    for c in np.argsort(distance, kind="stable").tolist():
        place = int(best[c, 0])
        if place in taken:
            losers.append(c)
        elif place >= 0:
            chosen[c] = place
            taken.add(place)
    kept = _KEPT
    while losers and len(taken) < n:
        best, _ = yield centroids[torch.tensor(losers, device=centroids.device)], min(kept, n)
        for row, c in enumerate(losers):
            place = next((int(place) for place in best[row] if place >= 0 and int(place) not in taken), -1)
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


def _settled(
    choices: Sequence[Generator[Asked, Told, Tensor]], block: Block, N: int, wanted: Sequence[Tensor | None]
) -> list[Tensor]:
    """What the choices come to, R of them, with one pass over the items for whatever they ask at a time."""
    return asking_together(choices, lambda asked: _nearest(block, N, [*asked.values()], [wanted[r] for r in asked]))


def _nearest(block: Block, N: int, asked: Sequence[Asked], wanted: Sequence[Tensor | None]) -> list[Told]:
    """For each who asks: places (k, count) of the items nearest to each centroid, nearest first, and x.c - |x|^2 / 2 of
    them; -1 and -inf where there are no more. wanted: bool (N,), or None for all. Ties: the lower place.
    """
    device = asked[0][0].device

    def look(rows: slice) -> list[list[Told]]:
        x = block(rows)
        half = -0.5 * torch.linalg.vecdot(x, x)
        return [
            [seen(x, half, rows, slice(start, start + piece), *one, own) for start in range(0, len(x), piece)]
            for one, own in zip(asked, wanted, strict=True)
        ]

    def seen(
        x: Tensor, half: Tensor, rows: slice, some: slice, centroids: Tensor, count: int, own: Tensor | None
    ) -> Told:
        open_ = half[some] if own is None else half[some].masked_fill(~own[rows][some], -torch.inf)
        score = torch.addmm(open_, centroids, x[some].T)
        place = argmax_rows(score)[:, None] if count == 1 else score.topk(min(count, score.shape[1])).indices
        value = score.gather(1, place).cpu().numpy()
        return np.where(value > -np.inf, place.cpu().numpy() + rows.start + some.start, -1), value

    there = devices.of(device)
    size = there.block_rows(max(asked[0][0].shape[1], *(len(centroids) for centroids, _ in asked)))
    piece = size if there.joins_replicates else min(size, _PIECE)
    told = [(np.zeros((len(c), 0), dtype=np.int64), np.zeros((len(c), 0), dtype=np.float64)) for c, _ in asked]
    for _, found in each_of(_slices(N, size), look, device, _AHEAD):
        for i, (one, others) in enumerate(zip(told, found, strict=True)):
            places, scores = (np.concatenate(parts, 1) for parts in zip(one, *others, strict=True))
            order = np.lexsort((places, -scores))[:, : asked[i][1]]
            told[i] = np.take_along_axis(places, order, 1), np.take_along_axis(scores, order, 1)
    return told


def _slices(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
