"""Steps that strategies share: candidates kept by their score, and a diverse batch chosen among candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from alfm import devices
from alfm.acquisition import margin_uncertainty
from alfm.features.features import Vectors
from alfm.geometry.kmeans import kmeans_each, nearest_items_each
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

    def cluster(some: list[int]) -> list[Tensor]:
        x = [take(r, candidates[r]) for r in some]
        rngs, own = [query.rng(r, "k-means") for r in some], None if weights is None else [weights[r] for r in some]
        found = kmeans_each(x, [budget] * len(some), rngs, own, iterations=5)
        places = nearest_items_each(x, [clusters.centroids for clusters in found])
        return [candidates[r][own] for r, own in zip(some, places, strict=True)]

    def cluster_many(r: int) -> Tensor:
        rows = candidates[r]

        def some(places: Tensor) -> Tensor:
            return take(r, rows[places])

        rng, device = query.rng(r, "k-means"), query.pool.device
        centroids = centroids_of_part(some, len(rows), budget, rng, device, weight[r], up_to, iterations=5)
        return rows[nearest_places(some, len(rows), centroids)]

    found = {r: rows for r, rows in enumerate(candidates) if len(rows) <= budget}
    many = [r for r, rows in enumerate(candidates) if len(rows) > max(up_to, budget)]
    few = [r for r in range(query.R) if r not in many and r not in found]
    numbers = query.pool.D * max((len(candidates[r]) for r in few), default=0)
    size = devices.of(query.pool.device).at_once(query.R, numbers, 1)
    groups = [few[start : start + size] for start in range(0, len(few), size)]
    for group, picks in zip(
        groups, side_by_side([partial(cluster, group) for group in groups], query.pool.device), strict=True
    ):
        found |= zip(group, picks, strict=True)
    found |= {r: cluster_many(r) for r in many}  # one after the other, each on all cores: one part is held
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


def where(mask: Tensor) -> list[Tensor]:
    """The places of each row of a mask (R, N): R vectors int64, ascending."""
    counts = mask.sum(1).tolist()
    return list(mask.nonzero()[:, 1].split(counts))


def all_available(query: Query) -> list[Tensor]:
    """Every available item as a candidate; R vectors int64, ascending."""
    return where(query.available)
