"""MaxHerding: whole sequences and coverage, the target's own best, what is kept between rounds, no label at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.maxherding import coverage, kernel, maxherding
from strategies.factory import (
    SITUATIONS,
    assert_equivariant,
    assert_replicates_independent,
    make_query,
    picks_in,
    seen,
)

from alfm.geometry.pairs import block_pairs
from alfm.strategies.ask import ask
from alfm.strategies.base import Strategy
from alfm.strategies.facility_location import FacilityLocation
from alfm.strategies.maxherding import MaxHerding
from alfm.strategies.query import Query
from alfm.strategies.uherding import UHerding


@pytest.mark.parametrize("width", [1.0, 0.3, 2.0])
@pytest.mark.parametrize("n", [1, 12])
@pytest.mark.parametrize("pairs", [0, 12 << 20])
def test_sequence_and_coverage(width: float, n: int, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alfm.geometry.herding_lists.pair_block", lambda vectors: 50)  # blocks, the last one not full
    monkeypatch.setattr("alfm.geometry.herding_lists.PAIRS", pairs)  # without lists and with them
    query = make_query(n=n, block_rows=50)
    view = seen(query)
    h, known = query.pool.features.numpy(), view.labelled.tolist()
    picks = MaxHerding(width).select(query, 10)[0].tolist()
    assert picks == maxherding(h, view.labelled, view.free, 10, width)
    k = kernel(h, width)
    at_random = np.random.default_rng(0).choice(np.flatnonzero(view.free), 10, replace=False).tolist()
    assert coverage(k, known + picks) > coverage(k, known + at_random)


@pytest.mark.parametrize("width", [1.0, 0.3])
@pytest.mark.parametrize("pairs", [0, 12 << 20])
def test_every_pick_of_a_long_batch_gains_most(width: float, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two items that cover only each other gain the same, so late in a batch rounding chooses between exact ties."""
    monkeypatch.setattr("alfm.geometry.herding_lists.PAIRS", pairs)
    query = make_query(n=12, block_rows=50)
    view = seen(query)
    k, chosen = kernel(query.pool.features.numpy(), width), view.labelled.tolist()
    for pick in MaxHerding(width).select(query, 108)[0].tolist():
        value = [coverage(k, [*chosen, int(i)]) for i in np.flatnonzero(view.free) if i not in chosen]
        assert coverage(k, [*chosen, pick]) >= max(value) - 1e-12
        chosen.append(pick)


def test_the_gain_counts_what_the_target_lacks_not_the_candidate() -> None:
    """With kappa of the candidate in place of the target's the sequence differs here, so this can tell."""
    query = make_query()
    view = seen(query)
    k = kernel(query.pool.features.numpy())
    picks: list[int] = []
    for _ in range(10):
        kappa = k[:, [*view.labelled, *picks]].max(1)
        gain = np.maximum(k - kappa[:, None], 0).mean(1)  # rows are candidates
        gain[[*view.labelled, *picks]] = -1
        picks.append(int(gain.argmax()))
    found = MaxHerding().select(query, 10)[0].tolist()
    known = view.labelled.tolist()
    assert found != picks
    assert coverage(k, known + found) > coverage(k, known + picks)


def carried(query: Query, picks: list[int]) -> Query:
    later = make_query(rows=[query.labelled(0).tolist() + picks])
    later.pool, later.carry = query.pool, query.carry
    return later


@pytest.mark.parametrize("pairs", [0, 12 << 20])
def test_rounds_with_kept_state_equal_one_long_batch(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alfm.geometry.herding_lists.PAIRS", pairs)
    query = make_query(n=3)
    view = seen(query)
    picks: list[int] = []
    states = set()
    for _ in range(4):
        picks += MaxHerding().select(carried(query, picks), 8)[0].tolist()
        states.add(id(next(own[0] for own in query.carry.values() if own)))
    assert picks == maxherding(query.pool.features.numpy(), view.labelled, view.free, 32)
    assert len(states) == 1  # kept, not made again


def test_a_state_belongs_to_its_width_and_its_labels() -> None:
    query = make_query(n=3)
    h = query.pool.features.numpy()
    first = MaxHerding(1.0).select(query, 6)[0].tolist()
    later = carried(query, first)
    expected = maxherding(h, later.labelled(0).numpy(), later.available[0].numpy(), 8, 0.3)
    assert MaxHerding(0.3).select(later, 8)[0].tolist() == expected
    # the same number of labels, others than were picked
    other = [int(i) for i in np.flatnonzero(later.available[0].numpy())[:14]]
    later = carried(query, other)
    expected = maxherding(h, later.labelled(0).numpy(), later.available[0].numpy(), 8, 0.3)
    assert MaxHerding(0.3).select(later, 8)[0].tolist() == expected


def test_without_a_label() -> None:
    query = make_query(rows=[[0]])
    query.rows, query.targets, query.head = query.rows[:, :0], query.targets[:, :0], None
    query.available[:] = True
    picks, filled = ask(MaxHerding(), query, 20)
    expected = maxherding(query.pool.features.numpy(), np.array([], int), np.ones(120, bool), 20)
    assert picks[0].tolist() == expected and filled == [0]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    assert picks_in(MaxHerding(), situation)[1] == 0


@pytest.mark.parametrize("pairs", [0, 12 << 20])
def test_replicates_and_order(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alfm.geometry.herding_lists.PAIRS", pairs)
    assert_replicates_independent(MaxHerding)
    assert_equivariant(MaxHerding())


@pytest.mark.parametrize("make", [MaxHerding, UHerding, FacilityLocation])
def test_one_pass_over_pairs_in_a_run_that_begins_with_labels(
    make: type[Strategy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later rounds live on lists, for all replicates; and pick what a round with nothing kept picks."""
    passes: list[int] = []

    def counting(*args: object) -> object:
        passes.append(1)
        return block_pairs(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("alfm.geometry.herding_lists.block_pairs", counting)
    query = make_query(n=8, seeds=(1, 2, 3), dtype=torch.float32)
    rows = [query.labelled(r).tolist() for r in range(3)]
    for round in range(2, 5):
        later = make_query(rows=rows, seeds=(1, 2, 3), dtype=torch.float32, round=round)
        fresh = make_query(rows=rows, seeds=(1, 2, 3), dtype=torch.float32, round=round)
        later.pool, later.carry = query.pool, query.carry
        picks = make().select(later, 7)
        assert passes == [1]
        assert torch.equal(make().select(fresh, 7), picks)
        passes.pop()
        rows = [known + new for known, new in zip(rows, picks.tolist(), strict=True)]
