"""The head's input phi of one replicate, for strategies that visit it more than once per round."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from torch import Tensor

from alfm.pool import Vectors
from alfm.spaces import RAW, UNIT, unit_rows
from alfm.strategies.base import Query
from alfm.threads import side_by_side

T = TypeVar("T")


def embedding(query: Query, r: int) -> Vectors:
    """phi of replicate r: `rows`, `blocks`, and `matrix` (N, D') where the pool keeps coordinates resident.

    Coordinates of a head with its own scaling per replicate are computed once here instead of at every visit, and
    live as long as the caller holds them: N D' numbers.
    """
    assert query.head is not None
    vectors = query.pool.vectors(query.head.spaces[r])
    if vectors.matrix is None and query.pool.resident:
        vectors.matrix = query.pool.materialise(vectors.space)
    return vectors


def unit_embedding(query: Query, r: int, rows: Tensor) -> Tensor:
    """phi / |phi| of pool rows, int64 (m,) -> (m, D'), for distances: see `Pool.points`."""
    assert query.head is not None
    space, pool = query.head.spaces[r], query.pool
    if space is RAW and pool.offset:
        return pool.points(UNIT).rows(rows)
    return unit_rows(pool.vectors(space).rows(rows))


def per_replicate(query: Query, job: Callable[[int], T]) -> list[T]:
    """job(r) for every replicate, side by side on the CPU's cores with one thread each; results in order."""
    if query.head is not None and query.head.shared:
        query.pool.vectors(query.head.spaces[0])  # made once, before the jobs that share it
    return side_by_side([partial(job, r) for r in range(query.R)], query.pool.device)
