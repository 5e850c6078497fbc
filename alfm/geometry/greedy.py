"""Greedy maximisation of a monotone submodular function, lazily: old gains are bounds (Minoux 1978).

Twice the same picks. `lazy` asks after every refresh whether it decided the pick: for the CPU. On a GPU a
question of the host (`bool(...)`, `.item()`, a mask as an index) waits until all that was enqueued is done, and the
device then idles until the host has enqueued more. In `stepwise` a step of fixed shape refreshes the largest
bounds and makes a pick if that decides it; if not, it changes bounds only and the next step goes on. So the host need
not know which steps made a pick, and asks once in many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from alfm import devices
from alfm.geometry.kernels import WIDTH

if TYPE_CHECKING:
    from alfm.features.features import Vectors

STEPS = 32  # steps between two questions
BATCH = 32  # bounds refreshed in a step: a pass over the pool for fewer costs as much

# -- asked after every refresh ---------------------------------------------------------------------------------------


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


def lazy(
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


# -- by kernels alone -----------------------------------------------------------------------------------------------


def enqueued(vectors: Vectors) -> bool:
    """Whether picks are made by kernels alone: where they can, unless features cross from host memory or a file."""
    return devices.of(vectors.device).enqueues_picks and vectors.pool.memory == "device"


class Stepwise(Protocol):
    """A monotone submodular function of a growing set of picks that never asks the device for a number."""

    def look(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """What each of the items, int64 (m,), would add now, (m,), and what `take` has to know of it, (m, T)."""
        ...

    def take(self, row: Tensor, live: Tensor) -> None:
        """Adds the item whose row (T,) `look` gave, if live, bool (1,); otherwise nothing changes."""
        ...

    def renew(self, bounds: Tensor) -> bool:
        """Asked between steps: lowers all bounds (N,) in place where that is cheaper by now, says if it did."""
        ...


def stepwise(
    objective: Stepwise,
    bounds: Tensor,
    allowed: Tensor,
    budget: int,
    least: float = -math.inf,
    steps: int | None = None,
) -> Tensor:
    """Picks int64 (m,), m <= min(budget, allowed items): repeatedly the allowed item of largest gain, ties lower index.

    bounds: (N,), at least each item's gain; overwritten with gains as they are found, so it stays valid for the next
    call. allowed: bool (N,). Ends before the first gain below `least`. The host waits once for how many are allowed,
    and once per `steps` steps (default STEPS), of which a pick needs one when BATCH bounds decide it.
    """
    steps = STEPS if steps is None else steps
    free = allowed.to(bounds.device, copy=True)
    budget = min(budget, int(free.sum()))
    picks = torch.zeros(budget + 1, dtype=torch.int64, device=bounds.device)  # the last place is for steps without one
    count, over = picks.new_zeros(1), free.new_zeros(1)
    made, renewed, ended = 0, 0, False
    while made < budget and not ended:
        for _ in range(min(steps, max(budget - made, 8))):
            open_ = bounds.where(free, -math.inf)
            values, items = open_.topk(min(BATCH - 1, len(open_)))
            best = open_.argmax(0, keepdim=True)  # the first of equals, which topk need not hold
            items = torch.cat([best, torch.where(values > -math.inf, items, best)])
            gains, rows = objective.look(items)
            # Never up, though a product may round differently in another batch: so the steps for a pick come to an end.
            gains = torch.minimum(gains, bounds.index_select(0, items))
            bounds.index_copy_(0, items, gains)
            open_.index_copy_(0, items, gains)
            best = open_.argmax(0, keepdim=True)
            here = items == best  # if anywhere, its gain is up to date and no other's can be larger
            known, enough = here.any(0, keepdim=True), open_.index_select(0, best) >= least
            live = known & enough & (count < budget)
            over |= known & ~enough
            objective.take(rows.index_select(0, here.to(torch.uint8).argmax(0, keepdim=True))[0], live)
            picks.index_copy_(0, torch.where(live, count, budget), best)
            free.index_copy_(0, best, free.index_select(0, best) & ~live)
            count += live
        made, ended = torch.cat([count, over.long()]).tolist()
        # Not again before the next pick: among many equals a second renewal could undo the refreshes.
        if renewed < made < budget and objective.renew(bounds):
            renewed = made
    return picks[:made]
