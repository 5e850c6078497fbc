"""Steps that strategies share: candidates kept by their score, and a diverse batch chosen among candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from alfm.acquisition import margin_uncertainty
from alfm.features.features import Vectors
from alfm.geometry.kmeans import kmeans, nearest_items
from alfm.geometry.kmeans_on_part import GATHERED, centroids_of_part, nearest_places
from alfm.geometry.topk import top, top_each
from alfm.strategies.query import Query
from alfm.threads import side_by_side


def best(query: Query, score: Tensor, k: int) -> Tensor:
    """The k available items of highest score (R, N), best first: int64 (R, k), padded with -1."""
    return top_each(score, query.available, k)


def highest(query: Query, score: Tensor, k: int) -> list[Tensor]:
    """The same as R vectors int64 (<= k,)."""
    rows = best(query, score, k)
    return [own[:count] for own, count in zip(rows, (rows >= 0).sum(1).tolist(), strict=True)]


def typical(query: Query, score: Tensor, k: int) -> list[Tensor]:
    """The k available items whose score (R, N) lies nearest the available items' median, nearest first."""
    out = []
    for r in range(query.R):
        median = score[r][query.available[r]].median()
        out.append(top(-(score[r] - median).abs(), query.available[r], k))
    return out


def clustered(
    query: Query,
    candidates: Sequence[Tensor],
    budget: int,
    embedding: Callable[[int, Tensor], Tensor] | None = None,
    weights: Sequence[Tensor] | None = None,
    up_to: int = GATHERED,
) -> list[Tensor]:
    """k-means with `budget` clusters on the candidates, and the item nearest each centroid.

    candidates: R vectors int64 (K_r,); embedding(r, rows (K,)) -> (K, D'): where distances are taken, by default
    `Features.points`, unit features; weights: R vectors (K_r,) >= 0. Clusters are drawn by each replicate's own stream.
    Returns R vectors of min(budget, K_r) distinct rows. At most 5 passes from k-means++ seeds: the centroids only say
    which items to take, and move little after that.
    Above `up_to` candidates of a replicate centroids are learned from so many random ones, and no more are gathered.
    """
    take = embedding or partial(_unit, query.pool.points())
    weight = [None] * query.R if weights is None else weights

    def cluster(r: int) -> Tensor:
        rows = candidates[r]
        if len(rows) <= budget:
            return rows
        x = take(r, rows)
        clusters = kmeans(x, budget, query.rng(r, "k-means"), weight=weight[r], iterations=5)
        return rows[nearest_items(x, clusters.centroids)]

    def cluster_many(r: int) -> Tensor:
        rows = candidates[r]

        def some(places: Tensor) -> Tensor:
            return take(r, rows[places])

        rng, device = query.rng(r, "k-means"), query.pool.device
        centroids = centroids_of_part(some, len(rows), budget, rng, device, weight[r], up_to, iterations=5)
        return rows[nearest_places(some, len(rows), centroids)]

    many = [r for r, rows in enumerate(candidates) if len(rows) > max(up_to, budget)]
    few = [r for r in range(query.R) if r not in many]
    found = dict(zip(few, side_by_side([partial(cluster, r) for r in few], query.pool.device), strict=True))
    found.update({r: cluster_many(r) for r in many})  # one after the other, each on all cores: one part is held
    return [found[r] for r in range(query.R)]


def _unit(points: Vectors, r: int, rows: Tensor) -> Tensor:
    return points.rows(rows)


Fill = Literal["random", "margins"]
"""Who completes a batch when there are fewer candidates than it has places: the caller by chance, or margins."""


def filled_by_margins(query: Query, picks: Sequence[Tensor], budget: int) -> list[Tensor]:
    """R vectors of picks, int64 (<= budget,), and behind them the available items of smallest margin, up to budget."""
    if all(len(own) >= budget for own in picks):
        return list(picks)
    score = query.walk(lambda seen: margin_uncertainty(seen.logits))
    out = []
    for r, own in enumerate(picks):
        free = query.available[r].clone()
        free[own] = False
        out.append(torch.cat([own, top(score[r], free, budget - len(own))]))
    return out


def all_available(query: Query) -> list[Tensor]:
    """Every available item as a candidate; R vectors int64, ascending."""
    return [torch.nonzero(query.available[r])[:, 0] for r in range(query.R)]
