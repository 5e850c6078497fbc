"""Exact k nearest neighbours by blocked products; never a matrix of N x N.

float32 in host memory: faiss's exact flat search finds the candidates, several times faster than blocks in torch. It
promises no order among ties, so a few more than k are asked for and a row whose tie reaches beyond them is searched in
torch. Elsewhere (GPU, float64, features that are not resident) blocks of products in torch: among the items themselves
a block serves both its rows and its columns, so half of them are made. Figures: benchmarks/notes/neighbours.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.features.features import Vectors
from alfm.host_ops import at_most, places

_SIDE = 1024  # rows of a host's search, and a quarter of the pairs that are measured at a time
# |x|^2 + |y|^2 - 2xy loses digits where x and y are close: below this share of |x|^2 + |y|^2 (about three digits of
# float32 left) the few distances that are returned are taken from the differences.
CLOSE = 1e-3
_FEW = 16
_PLAIN = "donot_use_mm_for_euclid_dist"
SPARE = 8  # candidates beyond k, the item itself among them


def knn(vectors: Vectors | Tensor, k: int, queries: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest items of each query: Euclidean distances (n, k), ascending, and rows (n, k) int64.

    vectors: the pool in one space, or a matrix (N, D) float32 or float64. queries: (n, D); None: every item is a
    query and not its own neighbour (an equal other item is one, at distance 0). k is cut to the items there are.
    Equal distances: the lower row first. Memory: O(n k) and a few blocks of products, on CPU 1024 x 1024.
    Raises ValueError for k < 1.
    """
    if k < 1:
        raise ValueError(f"k nearest neighbours need k of at least 1, got {k}")
    N = vectors.N if isinstance(vectors, Vectors) else len(vectors)
    k = min(k, N - (queries is None))
    source = vectors if queries is None else queries
    device = source.device
    n = N if queries is None else len(queries)
    dtype = next(_blocks(vectors, 0))[1].dtype
    base = vectors.matrix if isinstance(vectors, Vectors) else vectors
    if base is not None and base.dtype == torch.float32 and devices.of(device).numpy_reads:
        return _by_faiss(base, k, queries)
    # Scores are x.y - |y|^2 / 2: largest = nearest. Blocks arrive in ascending order of rows, so that a stable merge
    # leaves ties to the lower row.
    score = torch.full((n, k), -torch.inf, dtype=dtype, device=device)
    index = torch.full((n, k), -1, dtype=torch.int64, device=device)
    if k == 0:
        return score, index
    for rows, x in _blocks(source, 0):
        half_x = 0.5 * torch.linalg.vecdot(x, x)
        for columns, y in _blocks(vectors, rows.start if queries is None else 0):
            product = x @ y.T
            same = queries is None and rows.start == columns.start
            if same:
                product.fill_diagonal_(-torch.inf)
            half_y = 0.5 * torch.linalg.vecdot(y, y)
            _merge(score, index, rows, product - half_y, columns.start)
            if queries is None and not same:
                _merge(score, index, columns, product.T.contiguous().sub_(half_x), rows.start)
    return _distances(source, vectors, score, index)


def any_near(unit: Vectors) -> bool:
    """Whether two items of unit length are so near that distances are repaired (`CLOSE`); answered on the host.

    What is near stays near in a projection, where a tree finds the few pairs that are worth a look.
    """
    from scipy.spatial import cKDTree

    radius = math.sqrt(1.01 * CLOSE)
    some = unit.rows(torch.linspace(0, unit.N - 1, min(unit.N, 256), device=unit.device).long(), plain=True)
    axes = torch.linalg.svd(some - some.mean(0), full_matrices=False).Vh[:8].T
    flat = torch.cat([x @ axes for _, x in unit.blocks()]).cpu().numpy()
    tree = cKDTree(flat)
    for start in range(0, unit.N, _SIDE):
        rows = np.arange(start, min(start + _SIDE, unit.N))
        distance, place = tree.query(flat[rows], min(_FEW, unit.N), distance_upper_bound=radius)
        distance, place = distance.reshape(len(rows), -1), place.reshape(len(rows), -1)
        found = np.isfinite(distance) & (place != rows[:, None])
        one, other = (torch.from_numpy(a).to(unit.device) for a in (rows[found.nonzero()[0]], place[found]))
        for i, j in zip(one.split(4 * _SIDE), other.split(4 * _SIDE), strict=True):
            if bool((torch.linalg.vector_norm(unit.rows(i, True) - unit.rows(j, True), dim=1) < radius).any()):
                return True
        crowded = rows[np.isfinite(distance[:, -1])] if unit.N > _FEW else rows[:0]  # there may be more than these
        if len(crowded) and _near_any(unit, torch.from_numpy(crowded).to(unit.device), radius):
            return True
    return False


def _near_any(unit: Vectors, items: Tensor, radius: float) -> bool:
    """Whether one of the items int64 (m,) has another within radius; products say which pairs to measure."""
    x = unit.rows(items, plain=True)
    sq_x = torch.linalg.vecdot(x, x)[:, None]
    for rows, y in unit.blocks(_SIDE):
        near = sq_x + torch.linalg.vecdot(y, y) - 2 * (x @ y.T) < 1.1 * radius**2
        i, j = (near & (items[:, None] != torch.arange(rows.start, rows.stop, device=x.device))).nonzero(as_tuple=True)
        for a, b in zip(i.split(4 * _SIDE), j.split(4 * _SIDE), strict=True):
            if bool((torch.linalg.vector_norm(x[a] - y[b], dim=1) < radius).any()):
                return True
    return False


def _by_faiss(base: Tensor, k: int, queries: Tensor | None) -> tuple[Tensor, Tensor]:
    import faiss

    source = (base if queries is None else queries).contiguous()
    faiss.omp_set_num_threads(torch.get_num_threads())  # one inside `side_by_side`
    most = min(len(base), k + SPARE)
    squared, index = map(torch.from_numpy, faiss.knn(source.numpy(), base.contiguous().numpy(), most))
    if queries is None:
        own = index == torch.arange(len(base))[:, None]
        own[~own.any(1), -1] = True  # crowded out by its duplicates: the last goes instead
        squared, index = squared[~own].view(len(base), -1), index[~own].view(len(base), -1)
    # far from the origin the search loses digits of small distances: they come from the differences
    sq = torch.linalg.vecdot(source, source)[:, None]
    query, place = (squared < CLOSE * sq).nonzero(as_tuple=True)
    for part in range(0, len(query), 4 * _SIDE):
        q, p = query[part : part + 4 * _SIDE], place[part : part + 4 * _SIDE]
        squared[q, p] = (source[q] - base[index[q, p]]).square().sum(1)
    by_row = index.argsort(dim=1)
    order = by_row.gather(1, squared.gather(1, by_row).argsort(dim=1, stable=True))
    squared, index = squared.gather(1, order), index.gather(1, order)
    if squared.shape[1] > k:
        tied = (squared[:, -1] <= squared[:, k - 1] * (1 + 1e-6)).nonzero()[:, 0]
        for part in tied.split(256):
            exact = torch.cdist(source[part], base, compute_mode=_PLAIN).square_()
            if queries is None:
                exact[torch.arange(len(part)), part] = torch.inf
            value, place = torch.sort(exact, dim=1, stable=True)
            squared[part, :k], index[part, :k] = value[:, :k], place[:, :k]
    return squared[:, :k].sqrt(), index[:, :k].contiguous()


def _side(device: torch.device) -> int:
    """Rows and columns of a block of products: 4 MB in float32 on CPU, 128 MB on a GPU, where launches cost."""
    return math.isqrt(devices.of(device).block_rows(2))


def _blocks(vectors: Vectors | Tensor, start: int) -> Iterator[tuple[slice, Tensor]]:
    """Blocks from row `start` (a multiple of the side) on."""
    N, side = vectors.N if isinstance(vectors, Vectors) else len(vectors), _side(vectors.device)
    for begin in range(start, N, side):
        rows = slice(begin, min(begin + side, N))
        yield rows, _take(vectors, torch.arange(rows.start, rows.stop, device=vectors.device))


def _take(vectors: Vectors | Tensor, index: Tensor) -> Tensor:
    return vectors.rows(index) if isinstance(vectors, Vectors) else vectors[index]


def _merge(score: Tensor, index: Tensor, rows: slice, block: Tensor, first: int) -> None:
    """Merge the k largest of block (b, c), whose columns are items first, first + 1, ..., into rows' lists."""
    hopeful = (block.amax(1) > score[rows, -1]).nonzero()[:, 0]
    if len(hopeful) < len(block):
        block = block[hopeful]
    rows = hopeful + rows.start
    k = min(score.shape[1], block.shape[1])
    more = min(k + 1, block.shape[1])
    value, column = torch.topk(block, more, dim=1)
    if more > k:
        # topk promises nothing about ties: rows where the last place is tied are sorted in full.
        tied = (value[:, k] == value[:, k - 1]).nonzero()[:, 0]
        if len(tied):
            order = torch.sort(block[tied], dim=1, descending=True, stable=True)
            value[tied], column[tied] = order.values[:, :more], order.indices[:, :more]
        value, column = value[:, :k], column[:, :k]
    column, by_row = column.sort(dim=1)
    both = torch.cat([score[rows], value.gather(1, by_row)], dim=1)
    items = torch.cat([index[rows], column + first], dim=1)
    order = torch.sort(both, dim=1, descending=True, stable=True)
    score[rows] = order.values[:, : score.shape[1]]
    index[rows] = items.gather(1, order.indices[:, : score.shape[1]])


def _distances(
    source: Vectors | Tensor, vectors: Vectors | Tensor, score: Tensor, index: Tensor
) -> tuple[Tensor, Tensor]:
    """Scores to distances, close ones from the differences, ascending."""
    out = torch.empty_like(score)
    for rows, x in _blocks(source, 0):
        sq = torch.linalg.vecdot(x, x)[:, None]
        squared = (sq - 2 * score[rows]).clamp_min_(0)
        query, place = (squared < CLOSE * sq).nonzero(as_tuple=True)
        for part in range(0, len(query), 4 * _SIDE):
            q, p = query[part : part + 4 * _SIDE], place[part : part + 4 * _SIDE]
            squared[q, p] = (x[q] - _take(vectors, index[rows][q, p])).square().sum(1)
        # By (distance, row): ascending rows first, then a stable sort of the distances.
        by_row = index[rows].argsort(dim=1)
        order = by_row.gather(1, squared.gather(1, by_row).argsort(dim=1, stable=True))
        out[rows] = squared.gather(1, order).sqrt_()
        index[rows] = index[rows].gather(1, order)
    return out, index


def nearest(distance: Tensor, k: int) -> Tensor:
    """Columns (b, min(k, n)) int64 of each row's smallest distances (b, n), in their order; ties to the lower."""
    b, n = distance.shape
    k = min(k, n)
    chosen = at_most(distance, k)
    found = places(chosen)
    if len(found) > b * k:
        tied = (chosen.sum(1) > k).nonzero()[:, 0]
        order = torch.sort(distance[tied], dim=1, stable=True).indices[:, :k]
        chosen[tied] = torch.zeros_like(chosen[tied]).scatter_(1, order, True)
        found = places(chosen)
    return found.view(b, k) % n
