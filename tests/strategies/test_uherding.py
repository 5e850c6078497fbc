"""UHerding: whole sequences with its own temperature and width, both parameters, no label at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.maxherding import maxherding
from reference.uherding import calibration_error, temperature, uherding, width
from strategies.factory import SITUATIONS, assert_replicates_independent, clusters, make_query, picks_in, seen

from alfm.strategies.ask import ask
from alfm.strategies.query import Query
from alfm.strategies.uherding import UHerding


def noisy(n: int = 40, flips: float = 0.4, **options) -> Query:
    """Labels that contradict the features, so that the head is overconfident."""
    x, y = clusters(120, 8, 4)
    rng = np.random.default_rng(1)
    y = np.where(rng.random(120) < flips, rng.integers(4, size=120), y)
    return make_query(x=x, y=y, C=4, n=n, **options)


def held_out(query: Query, strategy: UHerding) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of the 30 % that calibrate, by a head fitted on the others."""
    rows, labels = query.labelled(0), query.labels_of(0)
    order = torch.from_numpy(query.rng(0, "calibration").permutation(len(rows)))
    m = max(1, round(strategy.held_out * len(rows)))
    held, rest = order[:m], order[m:]
    assert query.classifier is not None
    head = query.classifier.fit(query.pool, rows[rest][None], labels[rest][None], 4, query.seeds, query.round)
    return head.forward(query.pool.features[rows[held]], 0).numpy(), labels[held].numpy()


def expected_temperature(query: Query, strategy: UHerding) -> float:
    return temperature(*held_out(query, strategy))


@pytest.mark.parametrize("flips", [0.0, 0.4, 0.8])
@pytest.mark.parametrize("share", [0.3, 0.5])
@pytest.mark.parametrize("pairs", [0, 12 << 20])
def test_sequence(flips: float, share: float, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alfm.geometry.herding_lists.PAIRS", pairs)  # without lists and with them
    monkeypatch.setattr("alfm.geometry.herding_lists.pair_block", lambda vectors: 50)  # blocks, the last one not full
    query, strategy = noisy(flips=flips, block_rows=50), UHerding(share)
    view = seen(query)
    tau = expected_temperature(query, strategy)
    expected = uherding(query.pool.features.numpy(), view.logits, tau, view.labelled, view.free, 20)
    assert strategy.select(query, 20)[0].tolist() == expected


def test_temperature_is_that_of_smallest_calibration_error() -> None:
    query = noisy(flips=0.8)
    tau = float(UHerding()._temperatures(query)[0])
    assert tau == pytest.approx(expected_temperature(query, UHerding()))
    assert tau > 1.0
    logits, labels = held_out(query, UHerding())
    assert len(labels) == 12  # 30 % of 40
    assert calibration_error(logits / tau, labels) < calibration_error(logits, labels)


def test_no_temperature_while_a_class_has_fewer_than_two_labels() -> None:
    query = noisy(flips=0.8)
    assert float(UHerding()._temperatures(query)[0]) > 1.0
    rare = torch.where(query.targets == 2, 1, query.targets)
    rare[0, 0] = 2
    query.targets = rare
    assert float(UHerding()._temperatures(query)[0]) == 1.0


def test_without_labels_it_is_maxherding() -> None:
    query = make_query(rows=[[0]])
    query.rows, query.targets, query.head = query.rows[:, :0], query.targets[:, :0], None
    query.available[:] = True
    picks, filled = ask(UHerding(), query, 15)
    h, nobody, everyone = query.pool.features.numpy(), np.array([], int), np.ones(120, bool)
    assert picks[0].tolist() == maxherding(h, nobody, everyone, 15) == uherding(h, None, 1.0, nobody, everyone, 15)
    assert filled == [0]


def test_certain_regions_are_left_alone() -> None:
    """The same query without uncertainties picks otherwise."""
    query = noisy()
    view = seen(query)
    h = query.pool.features.numpy()
    plain = maxherding(h, view.labelled, view.free, 10, width(h, view.labelled))
    assert UHerding().select(query, 10)[0].tolist() != plain


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    assert picks_in(UHerding(), situation)[1] == 0


def test_replicates_and_seeds() -> None:
    assert_replicates_independent(UHerding, n=30)
    taus = {float(UHerding()._temperatures(noisy(seeds=(s,), rows=[list(range(40))]))[0]) for s in range(6)}
    assert len(taus) > 1  # each seed calibrates on a part of its own
