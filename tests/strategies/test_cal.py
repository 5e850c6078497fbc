"""CAL against its reference, ties among neighbours, hard situations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.cal import cal
from strategies.factory import SITUATIONS, assert_equivariant, assert_replicates_independent, make_query, picks_in, seen

from alfm.geometry.knn import nearest
from alfm.heads.dropout import Dropout
from alfm.strategies.cal import Cal


@pytest.mark.parametrize("n, neighbours", [(40, 10), (6, 10), (25, 1)])
@pytest.mark.parametrize("classifier", [None, Dropout()])
def test_sequence(n: int, neighbours: int, classifier) -> None:
    query = make_query(n=n, block_rows=50, classifier=classifier)
    view = seen(query)
    expected = cal(view.phi, view.p, view.labelled, view.free, 30, neighbours)
    assert Cal(neighbours).select(query, 30)[0].tolist() == expected


def test_ties_among_neighbours_go_to_the_lower_row() -> None:
    distance = torch.tensor([[2.0, 1.0, 1.0, 1.0], [0.0, 3.0, 0.0, 5.0], [4.0, 3.0, 2.0, 1.0]])
    expected = [[1, 2], [0, 2], [2, 3]]
    assert nearest(distance, 2).tolist() == expected


def test_underflowing_probabilities_give_no_nan() -> None:
    picks, filled = picks_in(Cal(), "extreme logits")
    query, budget = SITUATIONS["extreme logits"]()
    view = seen(query)
    log_p = view.logits - view.logits.max(1, keepdims=True)  # the others underflow: log p is the gap to the largest
    near = np.argsort(((view.phi[:, None] - view.phi[view.labelled]) ** 2).sum(2), axis=1)[:, :10]
    score = np.array([-view.p[view.labelled[near[i]]].mean(0) @ log_p[i] for i in range(len(log_p))])
    score[~view.free] = -np.inf
    assert picks.tolist() == np.argsort(-score, kind="stable")[:budget].tolist() and filled == 0


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    assert picks_in(Cal(), situation)[1] == 0


def test_replicates_and_order() -> None:
    assert_replicates_independent(Cal)
    assert_equivariant(Cal())
