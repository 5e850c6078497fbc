"""The one walk over features with what fitted heads, or draws around them, say of every item.

A walk loads a block once and calls a function of several replicates' numbers at once, (R', b, C). How many is for the
device to say: one where its own product keeps a replicate's numbers, to the last bit, independent of which others run
beside it (CPU); as many as a block allows where joined products cost less (GPU). Nobody holds (R, N, C).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from alfm import devices
from alfm.features.features import Features, Vectors
from alfm.features.spaces import RAW, Space
from alfm.threads import each_of


class Seen(NamedTuple):
    """What a function is shown at a time: b items of N, as R' of R replicates see them.

    phi: (b, D') where the replicates share their coordinates, else (R', b, D'); raw features (b, D) where there are
    draws. logits: (R', b, C), or (R', M, b, C) of M draws.
    """

    rows: slice
    replicates: slice
    phi: Tensor
    logits: Tensor


Result = Tensor | tuple[Tensor, ...]
Function = Callable[[Seen], Result]
"""seen -> (R', b, ...) or a tuple of such. Several run in threads of their own at once, so it must be pure."""


class Heads(Protocol):
    """R fitted heads: see `LinearHead`."""

    @property
    def spaces(self) -> Sequence[Space]: ...
    @property
    def shared(self) -> bool: ...
    @property
    def R(self) -> int: ...
    @property
    def C(self) -> int: ...
    def part(self, replicates: slice) -> Heads: ...
    def embed(self, x: Tensor) -> Tensor: ...
    def at(self, rows: slice | Tensor, phi: Tensor) -> Tensor: ...


class Draws(Protocol):
    """M draws from a distribution over classifiers for each of R replicates, bound to one round.

    joint: a draw is one weight setting shared by all items, which joint quantities (batchbald, epig) need.
    """

    passes: int
    joint: bool
    R: int
    C: int

    def logits(self, rows: slice | Tensor, x: Tensor, r: int) -> Tensor:
        """Pool rows (a slice, or int64 (b,)) and their raw features (b, D) -> logits (M, b, C) of replicate r.

        An item's logits do not depend on the other items of the block.
        """
        ...


@runtime_checkable
class JoinedDraws(Draws, Protocol):
    """Draws of several replicates at a time."""

    def of_several(self, rows: slice | Tensor, x: Tensor, replicates: slice) -> Tensor:
        """`logits` of several replicates, (R', M, b, C)."""
        ...


@runtime_checkable
class OwnDraws(Draws, Protocol):
    """Draws of several replicates at a time, each about items of its own."""

    def of_own(self, rows: Tensor, x: Tensor, replicates: slice) -> Tensor:
        """Pool rows int64 (R', b) and their raw features (R', b, D) -> logits (R', M, b, C)."""
        ...


def draws_at(features: Features, draws: Draws, rows: Tensor, replicates: slice) -> Tensor:
    """Logits (R', M, b, C) of some replicates' own items, pool rows int64 (R', b)."""
    x = features.gather(rows.flatten(), plain=True).unflatten(0, rows.shape)
    if len(rows) > 1 and isinstance(draws, OwnDraws):
        return draws.of_own(rows, x, replicates)
    own = [draws.logits(rows[i], x[i], replicates.start + i) for i in range(len(rows))]
    return own[0][None] if len(own) == 1 else torch.stack(own)


def walk(features: Features | Vectors, head: Heads, fn: Function, joined: bool = True, size: int | None = None) -> Any:
    """One pass over the items with every replicate's logits: what fn returned, as (R, N, ...) or a tuple of such.

    features: or their coordinates, where these are at hand and all replicates of `head` share them. joined: may fn see
    several replicates at a time? size: of a block, by default the features' own.
    """
    if isinstance(features, Vectors):
        source, shared = features, True
    else:
        source, shared = features.vectors(head.spaces[0] if head.shared else RAW), head.shared
    at_once = 1
    if joined:
        each = max(head.C, 0 if shared else source.pool.D)  # numbers of an item and a replicate
        numbers = min(size or source.pool.block_rows, source.N) * each
        at_once = devices.of(source.device).at_once(head.R, numbers, 1)
    groups = together(head.R, at_once)
    heads = {which.start: head.part(which) for which in groups}

    def see(rows: slice, x: Tensor, which: slice) -> Result:
        own = heads[which.start]
        phi = x if shared else own.embed(x)
        return fn(Seen(rows, which, phi, own.at(rows, phi)))

    # enough jobs for every core, few enough blocks to hold
    return _visited(source.pool.slices(size), source.at, source.held, groups, see, source.N, source.device, 8)


def walk_draws(features: Features, draws: Draws, fn: Function, size: int | None = None, joined: bool = False) -> Any:
    """One pass over the items with every replicate's draws: what fn returned, as (R, N, ...) or a tuple of such.

    Blocks are so small that M b C and b D numbers stay near the caches (CPU) or below 64 MB (GPU); `size` fixes them
    instead. joined: may fn see several replicates at a time, where the device gains by it?
    """
    each = max(features.D, draws.passes * draws.C)
    size = size or max(64, features.block_numbers // 4 // each)
    loaded = max(size, features.block_rows // size * size)
    at_once = 1
    if joined and isinstance(draws, JoinedDraws):
        at_once = devices.of(features.device).at_once(draws.R, min(size, features.N) * each, 1)

    def see(rows: slice, x: Tensor, which: slice) -> Result:
        if isinstance(draws, JoinedDraws) and which.stop - which.start > 1:
            return fn(Seen(rows, which, x, draws.of_several(rows, x, which)))
        return fn(Seen(rows, which, x, draws.logits(rows, x, which.start)[None]))

    raw, groups = features.raw, together(draws.R, at_once)
    if raw.held or devices.of(raw.device).jobs_run_aside:
        slices = features.slices(size)
        return _visited(slices, raw.at, raw.held, groups, see, features.N, features.device, loaded // size)
    pieces = _pieces(features.raw_blocks(loaded), size)
    return visit(pieces, groups, see, features.N, features.device, loaded // size * len(groups))


def logits_of(features: Features | Vectors, head: Heads, r: int) -> Tensor:
    """Logits (N, C) of replicate r alone, for a test split, or where a replicate holds that much of its own."""
    return walk(features, head.part(slice(r, r + 1)), lambda seen: seen.logits)[0]


def visit(
    blocks: Iterable[tuple[slice, Tensor]],
    groups: Sequence[slice],
    see: Callable[[slice, Tensor, slice], Result],
    N: int,
    device: torch.device,
    ahead: int = 16,
) -> Any:
    """see(rows, x (b, ..), replicates) of every block and group -> (R', b, ...), as (R, N, ...) or a tuple of such.

    groups: which replicates are seen together, R in all. ahead: visits that wait for each other on CPU.
    """
    found = _Found(groups[-1].stop, N)
    visits = ((rows, x, which) for rows, x in blocks for which in groups)
    for (rows, _, which), value in each_of(visits, lambda one: see(*one), device, ahead):
        found.put(rows, which, value)
    return found.whole


def _visited(
    slices: Iterable[slice],
    at: Callable[[slice], Tensor],
    held: bool,
    groups: Sequence[slice],
    see: Callable[[slice, Tensor, slice], Result],
    N: int,
    device: torch.device,
    ahead: int,
) -> Any:
    """`visit` of blocks at(rows), `ahead` of them at a time. Where they are not `held` in memory, whoever computes with
    one loads it, once for all groups: so loading goes on side by side too."""
    found = _Found(groups[-1].stop, N)
    jobs = [[which] for which in groups] if held else [list(groups)]

    def job(one: tuple[slice, list[slice]]) -> list[Result]:
        x = at(one[0])
        return [see(one[0], x, which) for which in one[1]]

    visits = ((rows, some) for rows in slices for some in jobs)
    for (rows, some), values in each_of(visits, job, device, ahead * len(jobs)):
        for which, value in zip(some, values, strict=True):
            found.put(rows, which, value)
    return found.whole


class _Found:
    """What was found of R replicates and N items, put together."""

    def __init__(self, R: int, N: int) -> None:
        self.R, self.N, self.single = R, N, True
        self.out: list[Tensor] = []

    def put(self, rows: slice, which: slice, value: Result) -> None:
        """(R', b, ..) or a tuple of such."""
        self.single = isinstance(value, Tensor)
        values = (value,) if isinstance(value, Tensor) else value
        if not self.out:
            self.out = [v.new_empty((self.R, self.N, *v.shape[2:])) for v in values]
        for whole, v in zip(self.out, values, strict=True):
            whole[which, rows] = v

    @property
    def whole(self) -> Any:
        return self.out[0] if self.single else tuple(self.out)


def together(R: int, size: int) -> list[slice]:
    """R replicates, `size` at a time."""
    return [slice(start, min(start + size, R)) for start in range(0, R, size)]


def apart(fn: Callable[[Tensor, Tensor, slice, int], Result]) -> Function:
    """fn(phi (b, D'), logits (b, C), rows, r), which knows one replicate only, as a function of what is seen.

    For walks that are not `joined`.
    """

    def one(seen: Seen) -> Result:
        phi = seen.phi if seen.phi.ndim == 2 else seen.phi[0]
        value = fn(phi, seen.logits[0], seen.rows, seen.replicates.start)
        return value[None] if isinstance(value, Tensor) else tuple(v[None] for v in value)

    return one


def _pieces(blocks: Iterable[tuple[slice, Tensor]], size: int) -> Iterator[tuple[slice, Tensor]]:
    for rows, x in blocks:
        for start in range(rows.start, rows.stop, size):
            piece = slice(start, min(start + size, rows.stop))
            yield piece, x[start - rows.start : piece.stop - rows.start]
