"""Lazy greedy maximisation of a monotone submodular function (Minoux 1978)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from alfm.geometry.kernels import WIDTH

# -- lazy greedy -----------------------------------------------------------------------------------------------------


class Objective(Protocol):
    """A monotone submodular function of a growing set of picks."""

    def gains(self, items: Tensor) -> Tensor:
        """What each of the items, int64 (m,), would add to the picks so far: (m,)."""
        ...

    def add(self, rows: Tensor) -> None:
        """Adds items, int64 (m,), to the picks."""
        ...

    def renew(self, bounds: Tensor) -> bool:
        """Asked before every refresh: lowers all bounds (N,) in place where that is cheaper by now, says if it did."""
        ...


def largest(bounds: Tensor, batch: int) -> Tensor:
    """int64 (min(batch, N),) items of the largest bounds (N,); the first again in place of those at -Inf."""
    values, items = bounds.topk(min(batch, len(bounds)))
    return torch.where(values > -torch.inf, items, items[0])


def lazy_greedy(
    objective: Objective,
    bounds: Tensor,
    allowed: Tensor,
    budget: int,
    batch: int = WIDTH,
    choose: Callable[[Tensor, int], Tensor] = largest,
) -> Tensor:
    """Picks int64 (min(budget, allowed items),): repeatedly the allowed item of largest gain, ties lower index.

    bounds: (N,), at least each item's gain; overwritten with gains as they are found, so it stays valid for the next
    call. allowed: bool (N,). `batch` stale items are refreshed until the largest bound of all is fresh; `choose` finds
    them from the stale bounds (-Inf elsewhere) and always answers with the same number of items.
    """
    free = allowed.to(bounds.device, copy=True)
    picks: list[Tensor] = []
    for _ in range(min(budget, int(free.sum()))):
        fresh = torch.zeros_like(free)
        renewed = False
        while True:
            open_bounds = bounds.where(free, -torch.inf)
            best = open_bounds.argmax()[None]  # the first of equals
            if bool(fresh[best]):
                break
            # Once per pick: a renewal makes nothing fresh, so among many equals a second one could undo the refreshes.
            if not renewed and objective.renew(bounds):
                renewed = True
                fresh.zero_()
                open_bounds = bounds.where(free, -torch.inf)
            items = choose(open_bounds.where(~fresh, -torch.inf), batch)
            bounds[items] = objective.gains(items)
            fresh[items] = True
        objective.add(best)
        free[best] = False
        picks.append(best)
    return torch.cat(picks) if picks else torch.zeros(0, dtype=torch.int64, device=bounds.device)
