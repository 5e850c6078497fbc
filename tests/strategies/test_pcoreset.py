"""PCoreSet: the sequence, in flat probabilities too, and that features do not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.coreset import coreset
from reference.pcoreset import pcoreset
from strategies.factory import (
    SITUATIONS,
    assert_equivariant,
    assert_replicates_independent,
    make_query,
    picks_in,
    raw_head,
    seen,
)

from alfm.strategies.pcoreset import PCoreSet


@pytest.mark.parametrize("classes", [2, 5])
def test_sequence(classes: int) -> None:
    query = make_query(C=classes, seeds=(1, 2))
    picks = PCoreSet().select(query, 12)
    for r in (0, 1):
        view = seen(query, r)
        assert picks[r].tolist() == pcoreset(view.p, view.labelled, view.free, 12)
        assert picks[r].tolist() != coreset(view.phi, view.labelled, view.free, 12)


def test_flat_probabilities_keep_their_digits() -> None:
    """In float32 the squared distances between these lie at the rounding of the probabilities' own squares."""
    weight = 1e-3 * torch.from_numpy(np.random.default_rng(0).normal(size=(1, 4, 8)))
    exact = make_query(head=raw_head(weight))
    single = make_query(head=raw_head(weight.float()), dtype=torch.float32)
    expected = pcoreset(seen(exact).p, seen(exact).labelled, seen(exact).free, 10)
    assert PCoreSet().select(single, 10)[0].tolist() == expected


def test_labelled_predictions_are_centres() -> None:
    """An item predicted as a labelled one is never taken while others are left."""
    x = np.repeat(np.random.default_rng(1).normal(size=(20, 3)), 2, 0)
    query = make_query(x=x, y=np.arange(40) % 3, C=3, rows=[list(range(0, 10))])
    assert min(PCoreSet().select(query, 15)[0].tolist()) >= 10


def test_permuting_the_pool_permutes_the_picks() -> None:
    assert_equivariant(PCoreSet())


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    assert picks_in(PCoreSet(), situation)[1] == 0


def test_replicates() -> None:
    assert_replicates_independent(PCoreSet)
