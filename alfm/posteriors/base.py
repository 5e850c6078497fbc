"""Draws from a distribution over classifiers, and the one pass over the pool in which scores read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from alfm.features.features import Features
from alfm.heads.base import Classifier
from alfm.heads.linear import LinearHead
from alfm.threads import side_by_side


class Draws(Protocol):
    """M draws for each of R replicates, bound to one round.

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
class Posterior(Protocol):
    """What `posterior=` names: how draws are made from a fitted head.

    bind: head is fitted on rows (R, n) int64 pool rows padded with -1, targets (R, n) int64, by classifier; seeds (R)
    and round address the random streams. Call it once per round, then use the draws for any rows.
    """

    @property
    def passes(self) -> int:
        """M, draws for each replicate."""
        ...

    @property
    def joint(self) -> bool:
        """See `Draws`."""
        ...

    def bind(
        self,
        pool: Features,
        head: LinearHead,
        classifier: Classifier,
        rows: Tensor,
        targets: Tensor,
        seeds: Sequence[int],
        round: int,
    ) -> Draws: ...


def pool_pass(
    pool: Features,
    draws: Draws,
    fn: Callable[[Tensor, slice, int], Tensor | tuple[Tensor, ...]],
    size: int | None = None,
) -> Any:
    """One pass over the pool: fn(logits (M, b, C), rows, r) -> (b, ...) or a tuple of such; returns (R, N, ...).

    `fn` runs in several threads at once, so it must be pure. Blocks are so small that M b C and b D numbers stay near
    the caches (CPU) or below 256 MB (GPU); `size` fixes them instead.
    """
    size = size or block_rows(pool, draws)
    out: list[Tensor] = []
    single = True
    for outer, x in pool.raw_blocks(max(size, pool.block_rows // size * size)):
        jobs, places = [], []
        for start in range(outer.start, outer.stop, size):
            rows = slice(start, min(start + size, outer.stop))
            block = x[rows.start - outer.start : rows.stop - outer.start]
            for r in range(draws.R):
                places.append((r, rows))
                jobs.append(partial(_reduce, draws, fn, rows, block, r))
        for (r, rows), value in zip(places, side_by_side(jobs, pool.device), strict=True):
            single = isinstance(value, Tensor)
            values = (value,) if isinstance(value, Tensor) else value
            if not out:
                out = [v.new_empty((draws.R, pool.N, *v.shape[1:])) for v in values]
            for whole, v in zip(out, values, strict=True):
                whole[r, rows] = v
    return out[0] if single else tuple(out)


def _reduce(draws: Draws, fn: Callable[..., Any], rows: slice, x: Tensor, r: int) -> Any:
    return fn(draws.logits(rows, x, r), rows, r)


def block_rows(pool: Features, draws: Draws) -> int:
    """Items whose features and logits are held together."""
    return max(64, pool.block_numbers // 4 // max(pool.D, draws.passes * draws.C))


def row_index(rows: slice | Tensor, device: torch.device) -> Tensor:
    """Rows as int64 (b,)."""
    return torch.arange(rows.start, rows.stop, device=device) if isinstance(rows, slice) else rows
