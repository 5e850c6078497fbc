"""Strategies whose work grows with N^2, on pools where that no longer answers: exact on a random part of the pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from alfm.features.features import Features
from alfm.heads.linear import LinearHead
from alfm.strategies.query import Query, stack_picks
from alfm.streams import stream


def on_samples(query: Query, budget: int, size: int, select: Callable[[Query, int], Tensor]) -> Tensor:
    """select(part, budget) for each replicate on `size` random items and what is labelled: int64 (R, budget).

    Both candidates and targets come from that part, drawn by the replicate's own stream once per run, so that what a
    strategy carries between rounds stays right and a resumed run sees the same part. At least 20 x budget items are
    drawn when there are as many. Memory: 4 bytes x size x D per replicate, and what `select` needs for one.
    """
    picks = []
    for r in range(query.R):
        labelled = query.labelled(r)
        wanted = max(size, 20 * budget)  # of this round alone, or a resumed run with growing batches saw another part
        drawn, items, pool, carry = query.carry.get(f"sample {r}", (0, None, None, {}))
        if drawn != wanted or not bool(torch.isin(labelled, items).all()):
            items, carry = _drawn(query, r, wanted), {}
            whole = query.pool
            pool = Features(whole.gather(items), whole.device, views=whole.views_of(items), part_of=whole)
        query.carry[f"sample {r}"] = (wanted, items, pool, carry)
        own = select(_part(query, r, items, pool, carry), min(budget, int(query.available[r, items].sum())))[0]
        picks.append(items[own[own >= 0]])
    return stack_picks(picks, budget, query.pool.device)


def _drawn(query: Query, r: int, size: int) -> Tensor:
    """Ascending rows: the sample of the whole pool, whatever is labelled by now, and the labelled rows."""
    N = query.pool.N
    rows = stream(query.seeds[r], 0, "sample").choice(N, min(size, N), replace=False)
    return torch.cat([torch.from_numpy(rows).to(query.pool.device), query.labelled(r)]).unique()


def _part(query: Query, r: int, items: Tensor, pool: Features, carry: dict[str, Any]) -> Query:
    """Replicate r's query as it looks on the part of the pool that holds `items`."""
    head = None
    if query.head is not None:
        head = LinearHead((query.head.spaces[r],), query.head.weight[r : r + 1], query.head.bias[r : r + 1])
    return Query(
        pool=pool,
        rows=torch.searchsorted(items, query.labelled(r))[None],
        targets=query.labels_of(r)[None],
        available=query.available[r, items][None],
        num_classes=query.num_classes,
        seeds=query.seeds[r : r + 1],
        round=query.round,
        head=head,
        classifier=query.classifier,
        carry=carry,
    )
