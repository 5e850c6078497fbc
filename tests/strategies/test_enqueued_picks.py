"""What CUDA runs picks what the CPU's form picks: the form for CUDA runs on the CPU's tensors here.

`tests/device/` counts how rarely it asks the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from strategies.factory import SITUATIONS, clusters, make_query, picks_in

from alfm import devices
from alfm.geometry import greedy
from alfm.geometry import herding_lists as closer
from alfm.heads.dropout import Dropout
from alfm.strategies.badge import Badge
from alfm.strategies.base import Strategy
from alfm.strategies.cal import Cal
from alfm.strategies.coreset import Coreset
from alfm.strategies.dcom import Dcom
from alfm.strategies.facility_location import FacilityLocation
from alfm.strategies.falcun import Falcun
from alfm.strategies.graph_cut import GraphCut
from alfm.strategies.log_det import LogDet
from alfm.strategies.maxherding import MaxHerding
from alfm.strategies.pcoreset import PCoreSet
from alfm.strategies.probcover import ProbCover
from alfm.strategies.query import Query
from alfm.strategies.uherding import UHerding
from alfm.strategies.vessal import Vessal

CASES: dict[str, Callable[[], Strategy]] = {
    "badge": Badge,
    "coreset": Coreset,
    "coreset cosine": lambda: Coreset(metric="cosine"),
    "coreset head": lambda: Coreset(space="head"),
    "dcom": lambda: Dcom(k=5.0),
    "facility_location": FacilityLocation,
    "facility_location flvmi": lambda: FacilityLocation(query_classes=[1]),
    "facility_location flqmi": lambda: FacilityLocation(query_classes=[1], form="flqmi"),
    "falcun": Falcun,
    "falcun deterministic": lambda: Falcun(deterministic=True),
    "graph_cut": GraphCut,
    "log_det": LogDet,
    "log_det query": lambda: LogDet(query_classes=[1]),
    "maxherding": MaxHerding,
    "maxherding narrow": lambda: MaxHerding(width=0.3),
    "probcover": lambda: ProbCover(delta=0.3, memory_cap=0),
    "uherding": UHerding,
    "vessal": Vessal,
}


def query(**options) -> Query:
    x, y = clusters(500, 8, 4)
    return make_query(x=x, y=y, C=4, n=12, block_rows=200, **options)


@pytest.fixture
def no_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU."""
    monkeypatch.setattr(closer, "PAIRS", 0)
    monkeypatch.setattr("alfm.geometry.balls.NearPairs._largest", lambda self, pairs: -1.0)


@pytest.fixture
def enqueued(no_lists: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greedy, "enqueued", lambda vectors: True)
    monkeypatch.setattr("alfm.strategies.vessal.surely_empty", lambda mask: False)  # an accelerator is not asked


@pytest.mark.parametrize("classifier", [None, Dropout()])
@pytest.mark.parametrize("case", CASES)
def test_picks_are_those_of_the_cpu(case: str, classifier, no_lists: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a later round with what is carried, and where coordinates are not resident."""
    rounds = []
    for form in (False, True):
        monkeypatch.setattr(greedy, "enqueued", lambda vectors, form=form: form)
        one, strategy = query(classifier=classifier, seeds=(1, 2)), CASES[case]()
        one.pool.resident = classifier is None
        first = strategy.select(one, 40)
        rows = torch.cat([one.rows, first], 1)
        labels = torch.from_numpy(clusters(500, 8, 4)[1])
        available = one.available.clone().scatter_(1, first, False)
        later = replace(one, rows=rows, targets=labels[rows], available=available, round=3)
        rounds.append([first.tolist(), strategy.select(later, 30).tolist()])
    assert rounds[0] == rounds[1]


JOINED = {
    **{name: CASES[name] for name in ("coreset head", "dcom", "graph_cut", "log_det", "maxherding", "uherding")},
    "cal": Cal,
    "pcoreset": PCoreSet,
}


@pytest.mark.parametrize("fewer", [0, 5], ids=["alike", "ragged"])
@pytest.mark.parametrize("case", JOINED)
def test_replicates_in_joined_products_pick_what_each_picks(
    case: str, fewer: int, no_lists: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of pairs that replicates share, and one with fewer labels than the others."""
    rng, real = np.random.default_rng(0), devices._known
    x, y = clusters(200, 8, 4)
    rows = [rng.permutation(200)[: 24 - fewer * r].tolist() for r in range(3)]
    monkeypatch.setattr("alfm.geometry.herding.pair_block", lambda vectors: 64)
    monkeypatch.setattr("alfm.geometry.balls.pair_block", lambda vectors: 64)
    picks = []
    for joins in (False, True):
        with monkeypatch.context() as patched:
            if joins:
                patched.setattr(devices, "_known", lambda device: _of_cuda(real(device)))
            one = make_query(x=x, y=y, C=4, seeds=(1, 2, 3), rows=rows, block_rows=90)
            assert one.pool.joins_replicates == joins
            patched.setattr(greedy, "enqueued", lambda vectors, joins=joins: joins)
            picks.append(JOINED[case]().select(one, 6).tolist())
    assert picks[0] == picks[1]


def _of_cuda(there: devices.Device) -> devices.Device:
    """This one with CUDA's policy for replicates and picks."""
    return replace(
        there, joins_replicates=True, enqueues_picks=True, keeps_pair_lists=False, jobs_run_aside=False,
        looks_are_free=False,
    )  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("case", CASES)
def test_hard_situations(case: str, situation: str, enqueued: None) -> None:
    filled = picks_in(CASES[case](), situation)[1]
    assert filled == 0 or case in ("badge", "vessal")  # duplicates have no distance, a stream may end early
