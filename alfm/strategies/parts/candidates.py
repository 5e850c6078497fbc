"""Steps that strategies share: candidates kept by their score, and a diverse batch chosen among candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from alfm import devices
from alfm.acquisition import margin_uncertainty
from alfm.geometry.kmeans import kmeans_each, nearest_items_each
from alfm.geometry.kmeans_on_part import GATHERED, by_twos, centroids_of_part, nearest_places, nearest_rows
from alfm.geometry.topk import top, top_each
from alfm.strategies.query import Embedded, Query
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
    embedding: Callable[[int], Embedded] | None = None,
    weights: Sequence[Tensor] | None = None,
    up_to: int = GATHERED,
) -> list[Tensor]:
    """k-means with `budget` clusters on the candidates, and the item nearest each centroid.

    candidates: R vectors int64 (K_r,), ascending; embedding(r): where distances are taken, by default
    `Features.points`, unit features; weights: R vectors (K_r,) >= 0. Clusters are drawn by each replicate's own stream.
    Returns R vectors of min(budget, K_r) distinct rows. At most 5 passes from k-means++ seeds: the centroids only say
    which items to take, and move little after that.
    Above `up_to` candidates of a replicate centroids are learned from some random ones, and no more are gathered:
    then the pool is read on, once for all replicates, or few candidates block by block.
    """
    device, N = query.pool.device, query.pool.N
    if embedding is None:
        unit = Embedded(query.pool.points())
        places = [unit] * query.R
    else:
        places = [embedding(r) for r in range(query.R)]

    def cluster(some: list[int]) -> list[Tensor]:
        x = [places[r].rows(candidates[r]) for r in some]
        rngs, own = [query.rng(r, "k-means") for r in some], None if weights is None else [weights[r] for r in some]
        found = kmeans_each(x, [budget] * len(some), rngs, own, iterations=5)
        nearest = nearest_items_each(x, [clusters.centroids for clusters in found])
        return [candidates[r][own] for r, own in zip(some, nearest, strict=True)]

    def take(r: int, some: Tensor) -> Tensor:
        return places[r].rows(candidates[r][some])

    def learn(r: int) -> Tensor:
        rng, count, weight = query.rng(r, "k-means"), len(candidates[r]), None if weights is None else weights[r]
        return centroids_of_part(partial(take, r), count, budget, rng, device, weight, up_to, iterations=5)

    found = {r: rows for r, rows in enumerate(candidates) if len(rows) <= budget}
    many = [r for r, rows in enumerate(candidates) if len(rows) > max(up_to, budget)]
    few = [r for r in range(query.R) if r not in many and r not in found]
    numbers = query.pool.D * max((len(candidates[r]) for r in few), default=0)
    size = devices.of(device).at_once(query.R, numbers, 1)
    groups = [few[start : start + size] for start in range(0, len(few), size)]
    for group, picks in zip(groups, side_by_side([partial(cluster, group) for group in groups], device), strict=True):
        found |= zip(group, picks, strict=True)
    learned = dict(zip(many, by_twos([partial(learn, r) for r in many], device), strict=True))
    walked: dict[Embedded, list[int]] = {}
    for r in many:
        if 8 * len(candidates[r]) < N:
            found[r] = candidates[r][nearest_places(partial(take, r), len(candidates[r]), learned[r])]
        else:
            walked.setdefault(places[r], []).append(r)
    for points, alike in walked.items():
        wanted = [torch.zeros(N, dtype=torch.bool, device=device).index_fill_(0, candidates[r], True) for r in alike]
        found |= zip(alike, nearest_rows(points.at, wanted, [learned[r] for r in alike]), strict=True)
    return [found[r] for r in range(query.R)]


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
