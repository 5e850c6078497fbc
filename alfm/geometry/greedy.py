"""Greedy maximisation of a monotone submodular function, lazily: old gains are bounds (Minoux 1978).

Twice the same picks. `lazy` asks after every refresh whether it decided the pick: for the CPU. On a GPU a
question of the host (`bool(...)`, `.item()`, a mask as an index) waits until all that was enqueued is done, and the
device then idles until the host has enqueued more. In `stepwise` a step of fixed shape refreshes the largest
bounds and makes a pick if that decides it; if not, it changes bounds only and the next step goes on. So the host need
not know which steps made a pick, and asks once in many. Such a step is one for all replicates, and is captured as a
graph; what they pick is what each picks alone, but for the rounding of products of another shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from alfm import devices
from alfm.geometry.kernels import WIDTH
from alfm.threads import side_by_side

if TYPE_CHECKING:
    from typing import Self

    from alfm.features.features import Vectors

STEPS = 32  # steps between two questions


def refreshed(replicates: int) -> int:
    """Bounds of each replicate that a step refreshes. A lone one's pass over the pool costs as much for fewer, while
    for several their products are what costs, and half as many decide nearly as many picks."""
    return 32 if replicates == 1 else 16


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


def repeat(step: Callable[[], None], state: Sequence[Tensor], times: int) -> None:
    """A step of fixed shapes so many times, as a graph where there are any; it changes `state` alone, in place."""
    run = devices.of(state[0]).captured(step, state) if times > 2 else step
    for _ in range(times):
        run()


class Alone(Protocol):
    """One replicate's greedy picks."""

    def select(self, allowed: Tensor, budget: int) -> Tensor:
        """The next picks, int64 (min(budget, allowed items),). allowed: bool (N,)."""
        ...


@runtime_checkable
class Replicate(Alone, Protocol):
    """One replicate's greedy picks, by itself or together with others'."""

    @property
    def vectors(self) -> Vectors:
        """Where its items are."""
        ...

    def alike(self) -> Hashable | None:
        """Equal for those that can go `together`; None for one that goes alone."""
        ...

    @classmethod
    def together(cls, states: Sequence[Self], allowed: Tensor, budget: int) -> list[Tensor]:
        """`select` of states that are alike by the same kernels, the pool read once for all. allowed: bool (R, N)."""
        ...


def of_all(make: Sequence[Callable[[], Alone]], allowed: Tensor, budget: int) -> list[Tensor]:
    """Picks of every replicate, each of a state that make[r]() gives. allowed: bool (R, N).

    Where picks are enqueued those that are alike go together; elsewhere each has its own job, side by side.
    """

    def alone(r: int) -> Tensor:
        return of_one(make[r](), allowed[r], budget)

    if not devices.of(allowed).enqueues_picks:
        return side_by_side([partial(alone, r) for r in range(len(make))], allowed.device)
    states = [one() for one in make]
    groups: dict[Hashable, list[int]] = {}
    for r, state in enumerate(states):
        groups.setdefault(r if (key := _alike(state)) is None else key, []).append(r)
    picks: dict[int, Tensor] = {}
    for own in groups.values():
        first: Any = states[own[0]]
        if len(own) == 1:
            picks[own[0]] = of_one(first, allowed[own[0]], budget)
        else:
            some = allowed if len(own) == len(states) else torch.stack([allowed[r] for r in own])
            picks |= zip(own, first.together([states[r] for r in own], some, budget), strict=True)
    return [picks[r] for r in range(len(states))]


def of_one(state: Alone, allowed: Tensor, budget: int) -> Tensor:
    """Picks of one replicate, int64 (min(budget, allowed items),), enqueued where they can be. allowed: bool (N,)."""
    if isinstance(state, Replicate) and _alike(state) is not None:
        return state.together([state], allowed[None], budget)[0]
    return state.select(allowed, budget)


def _alike(state: Alone) -> Hashable | None:
    """What those have in common that go together; None for one that goes alone."""
    if not isinstance(state, Replicate) or not enqueued(state.vectors) or (own := state.alike()) is None:
        return None
    return type(state), own


class Stepwise(Protocol):
    """R monotone submodular functions of growing sets of picks that never ask the device for a number."""

    @property
    def state(self) -> Sequence[Tensor]:
        """What `take` changes, in place."""
        ...

    def look(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """What each of the items, int64 (R, m), would add now, (R, m), and what `take` is to know of it, (R, m, T)."""
        ...

    def take(self, rows: Tensor, live: Tensor) -> None:
        """Adds the items whose rows (R, T) `look` gave where live, bool (R, 1); elsewhere nothing changes."""
        ...

    def renew(self, bounds: Tensor, steps: int) -> bool:
        """Asked between steps, so many since the last question: lowers all bounds (R, N) in place where that is cheaper
        by now, says if it did."""
        ...


def stepwise(
    objective: Stepwise,
    bounds: Tensor,
    allowed: Tensor,
    budget: int,
    least: float = -math.inf,
    steps: int | None = None,
) -> list[Tensor]:
    """R times picks int64 (m,), m <= min(budget, allowed items): repeatedly the allowed item of largest gain, ties
    lower index.

    bounds: (R, N), at least each item's gain; overwritten with gains as they are found, so it stays valid for the next
    call. allowed: bool (R, N). A replicate ends before its first gain below `least`. The host waits once for how many
    are allowed, and once per `steps` steps (default STEPS), of which a pick needs one when what is `refreshed` decides
    it. A step is of fixed shape whatever it finds, so it is one graph where there are graphs.
    """
    steps = STEPS if steps is None else steps
    free = allowed.to(bounds.device, copy=True)
    most = free.sum(1, keepdim=True).clamp_max(budget)
    wanted = most.flatten().tolist()
    picks = free.new_zeros(len(free), max(wanted) + 1, dtype=torch.int64)  # the last place is for steps without a pick
    count, over = torch.zeros_like(most), torch.zeros_like(most, dtype=torch.bool)
    batch = refreshed(len(free))

    def step() -> None:
        open_ = bounds.where(free, -math.inf)
        values, items = open_.topk(min(batch - 1, open_.shape[1]), 1)
        best = open_.argmax(1, keepdim=True)  # the first of equals, which topk need not hold
        items = torch.cat([best, torch.where((values > -math.inf) & (items != best), items, best)], 1)
        gains, rows = objective.look(items)
        gains = torch.where(items == best, gains[:, :1], gains)  # an item that is there twice has one gain
        # Never up, though a product may round differently in another batch: so the steps for a pick come to an end.
        gains = torch.minimum(gains, bounds.gather(1, items))
        bounds.scatter_(1, items, gains)
        open_ = bounds.where(free, -math.inf)
        best = open_.argmax(1, keepdim=True)
        here = items == best  # if anywhere, its gain is up to date and no other's can be larger
        known, enough = here.any(1, keepdim=True), open_.gather(1, best) >= least
        live = known & enough & (count < most)
        over.logical_or_(known & ~enough)
        place = here.to(torch.uint8).argmax(1)[:, None, None].expand(-1, 1, rows.shape[2])
        objective.take(rows.gather(1, place)[:, 0], live)
        picks.scatter_(1, torch.where(live, count, picks.shape[1] - 1), best)
        free.scatter_(1, best, free.gather(1, best) & ~live)
        count.add_(live)

    made, renewed, since, left = [0] * len(wanted), 0, 0, max(wanted)
    run = devices.of(bounds).captured(step, [bounds, free, picks, count, over, *objective.state]) if left else step
    while left:
        now = min(steps, max(left, 8))
        for _ in range(now):
            run()
        since += now
        made, ended = torch.cat([count, over.long()], 1).T.tolist()
        left = max((w - m for w, m, end in zip(wanted, made, ended, strict=True) if not end), default=0)
        # Not again before the next pick: among many equals a second renewal could undo the refreshes.
        if left and renewed < sum(made):
            if objective.renew(bounds, since):
                renewed = sum(made)
            since = 0
    return [own[:m] for own, m in zip(picks, made, strict=True)]
