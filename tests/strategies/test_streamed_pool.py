"""Strategies that visit embeddings again and again pick the same when the pool keeps no coordinates resident."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from strategies.factory import make_query

from alfm.features.features import Features
from alfm.heads.base import Classifier
from alfm.heads.dropout import Dropout
from alfm.heads.logistic import Logistic
from alfm.strategies.alfamix import AlfaMix
from alfm.strategies.bait.bait import Bait
from alfm.strategies.base import Strategy
from alfm.strategies.cal import Cal
from alfm.strategies.clue import Clue
from alfm.strategies.cluster_margin import ClusterMargin
from alfm.strategies.cog import Cog
from alfm.strategies.falcun import Falcun
from alfm.strategies.vaal import Vaal
from alfm.strategies.vessal import Vessal

STRATEGIES: list[Callable[[], Strategy]] = [
    Bait,
    lambda: Bait("full"),
    lambda: Bait("diagonal"),
    Vessal,
    AlfaMix,
    Falcun,
    Cal,
    Cog,
    lambda: Vaal(steps=5),
    Clue,
    lambda: ClusterMargin(exact_up_to=60),
]


@pytest.mark.parametrize("make", STRATEGIES, ids=lambda make: type(make()).__name__)
@pytest.mark.parametrize("classifier", [Logistic(), Dropout(max_epochs=10)], ids=["shared", "own"])
def test_same_picks(make: Callable[[], Strategy], classifier: Classifier) -> None:
    query = make_query(seeds=(1, 2), classifier=classifier)
    expected = make().select(query, 6)
    assert isinstance(query.pool.features, torch.Tensor)
    query.pool = Features(query.pool.features, memory="host", block_rows=33)
    assert not query.pool.resident
    assert make().select(query, 6).tolist() == expected.tolist()
