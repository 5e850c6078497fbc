"""The head's input phi of one replicate, for strategies that visit it more than once per round."""

from __future__ import annotations

from alfm.pool import Vectors
from alfm.strategies.base import Query


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
