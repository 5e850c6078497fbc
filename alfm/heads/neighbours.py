"""k nearest neighbours as a classifier: what a cache's geometry knows without any training.

Neighbours vote with weights exp(cosine / 0.07), as in Wu et al. 2018 (arXiv 1805.01978) and Caron et al. 2021 (arXiv
2104.14294). k is the one that predicts the pool's own items best, each by the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from alfm.features.features import Features
from alfm.geometry.knn import knn
from alfm.streams import stream

TEMPERATURE = 0.07
KS = (1, 3, 5, 10, 20, 50, 100, 200)
SAMPLE = 5000
"""Items by which k is chosen."""
_AT_ONCE = 1024
"""Queries."""


def choose_k(pool: Features, labels: Tensor, num_classes: int, ks: Sequence[int] = KS) -> int:
    """The k of `ks` under which most of up to `SAMPLE` items of the pool (drawn by seed 0) get their own class from the
    others; the smallest of equals. labels int64 (N,)."""
    ks = [k for k in ks if k < pool.N] or [1]
    rows = stream(0, 0, "k nearest neighbours").permutation(pool.N)[:SAMPLE]
    some = torch.from_numpy(np.sort(rows)).to(pool.device)
    right = torch.zeros(len(ks), dtype=torch.int64, device=pool.device)
    for at, votes in _votes(pool, labels, num_classes, pool.points().rows(some, plain=True), ks, some):
        right += (votes.argmax(2) == labels[some[at]]).sum(1)
    return ks[int(right.argmax())]


def shares(pool: Features, labels: Tensor, num_classes: int, test: Features, k: int) -> Tensor:
    """Each class's share of the votes for every test item, (T, C)."""
    queries = test.vectors(pool.point_space())
    found = []
    for rows in test.slices(_AT_ONCE):
        index = torch.arange(rows.start, rows.stop, device=test.device)
        for _, votes in _votes(pool, labels, num_classes, queries.rows(index, plain=True), [k]):
            found.append(votes[0] / votes[0].sum(1, keepdim=True))
    return torch.cat(found)


def _votes(
    pool: Features, labels: Tensor, num_classes: int, queries: Tensor, ks: Sequence[int], own: Tensor | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Sums of the votes of the k nearest of the pool for each k, (K, b, C), for blocks of queries (n, D').

    own int64 (n,): rows of the pool that the queries are, which do not vote for themselves.
    """
    points = pool.points()
    for start in range(0, len(queries), _AT_ONCE):
        at = slice(start, min(start + _AT_ONCE, len(queries)))
        distance, index = knn(points, max(ks) + (own is not None), queries[at])
        other = torch.ones_like(index, dtype=torch.bool) if own is None else index != own[at, None]
        rank = other.cumsum(1)
        weight = (-0.5 * distance.square() / TEMPERATURE).exp()  # exp(cosine / T) but for a factor
        counted = torch.stack([weight * (other & (rank <= k)) for k in ks])
        classes = labels[index].expand(len(ks), -1, -1)
        votes = weight.new_zeros(len(ks), len(index), num_classes)
        for j in range(index.shape[1]):  # one neighbour after the other: sums in the same order everywhere
            votes.scatter_add_(2, classes[..., j : j + 1], counted[..., j : j + 1])
        yield at, votes
