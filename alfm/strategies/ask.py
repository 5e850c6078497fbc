"""The one place where a batch is checked and completed."""

from __future__ import annotations

import torch
from torch import Tensor

from alfm import devices
from alfm.devices import full_precision
from alfm.errors import UserError
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query


def ask(strategy: Strategy, query: Query, budget: int) -> tuple[Tensor, list[int]]:
    """`ask_on_host` with the picks on the pool's device."""
    picks, filled = ask_on_host(strategy, query, budget)
    return picks.to(query.pool.device), filled


@full_precision()
def ask_on_host(strategy: Strategy, query: Query, budget: int) -> tuple[Tensor, list[int]]:
    """Exactly min(budget, available) distinct available items per replicate: (R, B) int64, and how many were filled.

    Where replicates differ in what is left, B is what the poorest has; where they ask for different numbers
    (`Query.wanted`), B is the largest, and others' rows end with -1.

    What the strategy left open is drawn uniformly from the remaining available items, never twice. Raises UserError
    when the strategy needs a head and there is none; RuntimeError when it returns an item that is not available or
    one item twice (a defect of the strategy: hiding it would bias every comparison).
    """
    if strategy.needs_head and query.head is None:
        raise UserError(
            f"Query strategy {strategy.name!r} needs a fitted head and cannot be a cold start; "
            "choose another init_strategy, for example random or centroid."
        )
    if query.wanted is None:
        budget = min(budget, int(query.available.sum(1).min()))
    picks = strategy.select(query, budget)
    if picks.shape != (query.R, budget):
        raise RuntimeError(f"{strategy.name} returned shape {tuple(picks.shape)}, wanted {(query.R, budget)}")
    if picks.is_floating_point() or picks.dtype == torch.bool:
        raise RuntimeError(f"{strategy.name} returned numbers of {picks.dtype}, wanted rows, torch.int64")
    picks = devices.of(query.available).sent(picks).long()
    filled = []
    free = query.available.gather(1, picks.clamp(0, query.pool.N - 1))
    host, allowed = torch.stack([picks, free]).cpu()
    allowed[host >= query.pool.N] = False
    for r, wanted in enumerate(query.budgets(budget)):
        picked = host[r, :wanted] >= 0
        own = host[r, :wanted][picked]
        if len(own.unique()) != len(own) or not bool(allowed[r, :wanted][picked].all()):
            raise RuntimeError(f"{strategy.name} returned a repeated or unavailable item (replicate {r})")
        missing = wanted - len(own)
        if missing:
            left = query.available[r].cpu().clone()
            left[own] = False
            rest = left.nonzero()[:, 0].numpy()
            drawn = query.rng(r, "complete the batch").choice(rest, missing, replace=False)
            own = torch.cat([own, torch.from_numpy(drawn)])
        host[r, :wanted], host[r, wanted:] = own, -1
        filled.append(missing)
    return host, filled
