"""Centre of gravity against its reference, and in hard situations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.cog import cog
from strategies.factory import (
    SITUATIONS,
    assert_equivariant,
    assert_replicates_independent,
    make_query,
    picks_in,
    raw_head,
    seen,
)

from alfm.heads.dropout import Dropout
from alfm.strategies.cog import Cog


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("classifier", [None, Dropout()])
def test_sequence(per_class: bool, classifier) -> None:
    query = make_query(block_rows=50, classifier=classifier)
    view = seen(query)
    label = view.p.argmax(1) if per_class else None
    assert Cog(per_class).select(query, 30)[0].tolist() == cog(view.phi, view.free, 30, label)


def test_mean_is_over_the_whole_pool_and_labelled_items_are_not_picked() -> None:
    # the mean of all five is 4; of the four free ones alone it would be 2.5, and 6 would come first
    x = np.array([[0.0], [1.0], [3.0], [6.0], [10.0]])
    query = make_query(x=x, y=np.array([0, 1, 0, 1, 0]), C=2, rows=[[4]], head=raw_head(torch.zeros(1, 2, 1).double()))
    assert Cog().select(query, 4)[0].tolist() == [0, 1, 3, 2]


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("per_class", [False, True])
def test_hard_situations(situation: str, per_class: bool) -> None:
    assert picks_in(Cog(per_class), situation)[1] == 0


def test_replicates_and_order() -> None:
    assert_replicates_independent(Cog)
    assert_replicates_independent(lambda: Cog(per_class=True), classifier=Dropout(max_epochs=5))
    assert_equivariant(Cog())
    assert_equivariant(Cog(per_class=True))
