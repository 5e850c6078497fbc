"""The one place where a batch is checked and completed."""

from __future__ import annotations

import torch
from torch import Tensor

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
    filled = []
    host = picks.cpu()
    available = query.available.cpu()
    for r, wanted in enumerate(query.budgets(budget)):
        own = host[r, :wanted]
        own = own[own >= 0]
        if len(own.unique()) != len(own) or not bool(available[r][own].all()):
            raise RuntimeError(f"{strategy.name} returned a repeated or unavailable item (replicate {r})")
        missing = wanted - len(own)
        if missing:
            free = available[r].clone()
            free[own] = False
            rest = free.nonzero()[:, 0].numpy()
            drawn = query.rng(r, "complete the batch").choice(rest, missing, replace=False)
            own = torch.cat([own, torch.from_numpy(drawn)])
        host[r, :wanted], host[r, wanted:] = own, -1
        filled.append(missing)
    return host, filled
