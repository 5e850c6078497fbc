"""Log determinant, plain and about a query set: whole sequences, the volume reached, hard situations."""

from __future__ import annotations

import numpy as np
import pytest
from reference.log_det import log_det
from strategies.factory import (
    SITUATIONS,
    assert_equivariant,
    assert_replicates_independent,
    make_query,
    picks_in,
    seen,
)

from alfm.strategies.log_det import LogDet


@pytest.mark.parametrize("n", [1, 12])
@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_sequence(n: int, ridge: float) -> None:
    """More picks than dimensions: beyond D only the ridge keeps the determinant positive."""
    query = make_query(n=n, block_rows=50)
    view = seen(query)
    expected = log_det(query.pool.features.numpy(), view.labelled.tolist(), view.free, 15, ridge=ridge)
    assert LogDet(ridge=ridge).select(query, 15)[0].tolist() == expected


@pytest.mark.parametrize("eta", [1.0, 0.6])
@pytest.mark.parametrize("shown", [[5], [50, 2, 77]])
def test_sequence_about_a_query_set(shown: list[int], eta: float) -> None:
    query = make_query(block_rows=50)
    view = seen(query)
    free = view.free.copy()
    free[shown] = False
    query.available[0, shown] = False
    expected = log_det(query.pool.features.numpy(), view.labelled.tolist(), free, 6, shown, eta=eta)
    assert LogDet(query_rows=shown, eta=eta).select(query, 6)[0].tolist() == expected


def test_the_batch_spans_more_than_one_at_random() -> None:
    query = make_query(n=2)
    view = seen(query)
    h = query.pool.features.numpy()
    u = h / np.linalg.norm(h, axis=1, keepdims=True)

    def volume(rows: list[int]) -> float:
        return float(np.linalg.slogdet(u[rows] @ u[rows].T + 0.01 * np.eye(len(rows)))[1])

    known = view.labelled.tolist()
    at_random = [
        np.random.default_rng(seed).choice(np.flatnonzero(view.free), 6, replace=False).tolist() for seed in range(20)
    ]
    picks = LogDet().select(query, 6)[0].tolist()
    assert volume(known + picks) > max(volume(known + some) for some in at_random)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    for options in ({}, {"query_rows": [0, 3]}):
        assert picks_in(LogDet(**options), situation)[1] == 0


def test_replicates_and_order() -> None:
    assert_replicates_independent(LogDet)
    assert_equivariant(LogDet())
