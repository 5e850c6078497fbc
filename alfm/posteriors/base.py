"""Distributions over classifiers, from which draws are made around a fitted head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from alfm.features.features import Features
from alfm.heads.base import Classifier
from alfm.heads.linear import LinearHead
from alfm.heads.passes import Draws, apart, walk_draws

__all__ = ["Draws", "Posterior", "pool_pass", "row_index"]


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

    `walk_draws` for a function of one replicate; it runs in several threads at once, so it must be pure.
    """
    return walk_draws(pool, draws, apart(lambda x, logits, rows, r: fn(logits, rows, r)), size)


def row_index(rows: slice | Tensor, device: torch.device) -> Tensor:
    """Rows as int64 (b,)."""
    return torch.arange(rows.start, rows.stop, device=device) if isinstance(rows, slice) else rows
