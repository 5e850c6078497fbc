"""Switched: whose turn it is in which round and replicate, and that each is asked as if it were alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from reference.switched import agreement, by_labels, by_rounds
from strategies.factory import SITUATIONS, assert_replicates_independent, clusters, make_query, picks_in, seen

from alfm.errors import UserError
from alfm.posteriors import Ensemble
from alfm.simulation.cached_task import fits_heads
from alfm.strategies.badge import Badge
from alfm.strategies.bait import Bait
from alfm.strategies.boss import Boss
from alfm.strategies.coreset import Coreset
from alfm.strategies.epig import Epig
from alfm.strategies.margins import Margins
from alfm.strategies.qbc import Qbc
from alfm.strategies.query import Query
from alfm.strategies.random import Random
from alfm.strategies.switch_rules import AfterAgreement, AfterLabels, AfterRounds, SwitchRule
from alfm.strategies.switched import Switched
from alfm.strategies.typiclust import TypiClust
from alfm.strategies.uherding import UHerding


@dataclass
class Given:
    """A rule that says what it was told."""

    answers: list[bool]

    def ready(self, query: Query) -> list[bool]:
        return self.answers


@pytest.mark.parametrize("round", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_after_rounds(round: int, rounds: int) -> None:
    assert AfterRounds(rounds).ready(make_query(round=round)) == [by_rounds(round, rounds) == "then"]


@pytest.mark.parametrize("per_class", [0, 2.9, 3, 3.1])
def test_after_labels(per_class: float) -> None:
    rows = [list(range(12)), list(range(3))]
    query = make_query(seeds=(1, 2), rows=rows, C=4)  # classes without a label count
    assert AfterLabels(per_class).ready(query) == [by_labels(len(own), 4, per_class) == "then" for own in rows]


def test_after_agreement() -> None:
    x, y = clusters(120, 3, 4, spread=4.0)
    query = make_query(x=x, y=y, C=4, seeds=(1, 2), block_rows=50)
    shares = []
    for r in (0, 1):
        view = seen(query, r)
        h = query.pool.features.numpy()  # type: ignore[union-attr]
        free = np.flatnonzero(view.free)
        shares.append(agreement(h, view.p.argmax(1), view.labelled, view.targets, free))
    low, high = sorted(shares)
    assert 0.3 < low < high < 1
    assert AfterAgreement((low + high) / 2).ready(query) == [one > (low + high) / 2 for one in shares]
    assert AfterAgreement(low).ready(query) == [True, True] and AfterAgreement(1.0).ready(query) == [False, False]
    assert AfterAgreement(0.0, per_class=3.1).ready(query) == [False, False]  # 12 labels of 4 classes


@pytest.mark.parametrize("answers", [[False] * 3, [True] * 3, [False, True, False]])
def test_each_replicate_has_the_picks_of_whose_turn_it_is(answers: list[bool]) -> None:
    query = make_query(seeds=(1, 2, 3), dtype=torch.float32)
    first, then = (one.select(make_query(seeds=(1, 2, 3), dtype=torch.float32), 9) for one in (Coreset(), Badge()))
    picks = Switched(Coreset(), Badge(), Given(answers)).select(query, 9)
    for r, later in enumerate(answers):
        assert picks[r].tolist() == (then if later else first)[r].tolist()


def test_what_is_kept_goes_on_when_a_replicate_leaves() -> None:
    """Distances of the two replicates that stay are those of the round before, under the numbers that they have now."""
    query = make_query(seeds=(1, 2, 3), dtype=torch.float32)
    rule = Given([False] * 3)
    strategy = Switched(Coreset(), Margins(), rule)
    picks = strategy.select(query, 5)
    states = dict(query.carry["switched"]["first"]["coreset"])
    later = make_query(
        seeds=(1, 2, 3), dtype=torch.float32, rows=[query.labelled(r).tolist() + picks[r].tolist() for r in range(3)]
    )
    later.pool, later.carry, rule.answers = query.pool, query.carry, [True, False, False]
    picks = strategy.select(later, 5)
    kept = later.carry["switched"]["first"]["coreset"]
    assert set(kept) == {1, 2} and kept[1] is states[1] and kept[2] is states[2]
    fresh = make_query(seeds=(1, 2, 3), dtype=torch.float32, rows=[later.labelled(r).tolist() for r in range(3)])
    assert Coreset().select(fresh, 5)[1:].tolist() == picks[1:].tolist()


def test_two_of_a_kind_keep_things_apart() -> None:
    one, other = Coreset(), Coreset(metric="cosine")
    query = make_query(dtype=torch.float32)
    rule = Given([False])
    strategy = Switched(one, other, rule)
    strategy.select(query, 4)
    rule.answers = [True]
    assert strategy.select(query, 6).tolist() == other.select(make_query(dtype=torch.float32), 6).tolist()


def test_without_a_head_it_is_the_first() -> None:
    query = make_query(round=9)
    query.head = None
    assert Switched(TypiClust(), Bait(), AfterRounds(0)).select(query, 8).shape == (1, 8)


def test_it_is_what_its_parts_are() -> None:
    plain = Switched(Random(), Margins())
    assert plain.stochastic and not plain.needs_head and not plain.refits and not plain.measures
    assert Switched(Margins(), Bait()).needs_head and not Switched(Margins(), Bait()).stochastic
    assert Switched(Margins(), Boss()).oracle and set(Switched(Coreset(), UHerding()).measures) == {"raw", "unit"}
    assert fits_heads(Switched(Margins(), Qbc(posterior=Ensemble()))) and not fits_heads(plain)
    assert set(Switched().needs or ()) == {"features", "probabilities", "embedding", "labels"}
    with pytest.raises(UserError, match="asks epig, which was given row numbers"):
        Switched(Margins(), Epig(targets=[3]))
    assert isinstance(AfterLabels(), SwitchRule)


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("after", [AfterLabels(0), AfterLabels(100), AfterAgreement(per_class=0)])
def test_hard_situations(situation: str, after: SwitchRule) -> None:
    assert picks_in(Switched(after=after), situation)[1] == 0


def test_replicates() -> None:
    assert_replicates_independent(Switched)
    assert_replicates_independent(lambda: Switched(after=AfterAgreement(per_class=0)))
