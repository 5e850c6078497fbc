"""On a GPU no strategy waits per pick: what CUDA runs picks what the CPU's form picks, and asks the host rarely.

No GPU is needed: the form for CUDA runs on the CPU's tensors, and every operation that would wait is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from strategies.factory import SITUATIONS, clusters, make_query, picks_in
from waits import Waits

from alfm.geometry import greedy
from alfm.geometry import herding_lists as closer
from alfm.heads.dropout import Dropout
from alfm.strategies.badge import Badge
from alfm.strategies.base import Strategy
from alfm.strategies.coreset import Coreset
from alfm.strategies.dcom import Dcom
from alfm.strategies.facility_location import FacilityLocation
from alfm.strategies.falcun import Falcun
from alfm.strategies.graph_cut import GraphCut
from alfm.strategies.log_det import LogDet
from alfm.strategies.maxherding import MaxHerding
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


@pytest.mark.parametrize("case", CASES)
def test_the_host_waits_less_than_once_in_ten_picks(case: str, enqueued: None) -> None:
    counts = []
    for budget in (10, 110):
        one = query(dtype=torch.float32)
        one.pool.views = torch.zeros(one.pool.N, 1, one.pool.D)  # whether a row is one of them is not asked either
        with Waits() as waits:
            picks = CASES[case]().select(one, budget)
        assert int((picks >= 0).sum()) > 0.9 * budget
        counts.append(waits.count)
    # badge's bounds live on the host, which draws tens of proposals at a time; few are accepted in a pool this small
    assert counts[1] - counts[0] < (60 if case == "badge" else 10)


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("case", CASES)
def test_hard_situations(case: str, situation: str, enqueued: None) -> None:
    filled = picks_in(CASES[case](), situation)[1]
    assert filled == 0 or case in ("badge", "vessal")  # duplicates have no distance, a stream may end early


def test_waits_are_seen() -> None:
    x, i = torch.rand(6, 4), torch.tensor([2])
    mask, square = x[:, 0] > 2, torch.eye(3)
    asking: list[Callable[[], object]] = [
        lambda: x[0, 0].item(),
        lambda: float(x[0, 0]),
        lambda: int(i),
        lambda: bool(mask.any()),
        lambda: x[:, i[0]],  # a number as an index
        lambda: x[mask],
        lambda: x.masked_select(mask[:, None]),
        lambda: mask.nonzero(),
        lambda: torch.where(mask),
        lambda: i.unique(),
        lambda: x.tolist(),
        lambda: x.cpu(),
        lambda: x.numpy(),
        lambda: np.asarray(x),
        lambda: torch.equal(x, x),
        lambda: torch.bincount(i),
        lambda: torch.tensor([1.0]),
        lambda: torch.from_numpy(np.zeros(2)),
        lambda: x[[1, 2]],
        lambda: torch.linalg.cholesky(square),
    ]
    for ask in asking:
        with Waits() as waits:
            ask()
        assert waits.count >= 1
    for index in (i, mask, (torch.arange(1), i)):
        with Waits() as waits:
            x[index] = 0.0
        assert waits.count >= 1
    with Waits() as waits:
        _ = x[i], x.index_select(0, i), x.where(x > 0.5, -torch.inf).argmax(0), x.topk(2), x[2], x[:, 1:3], x.double()
        x.index_fill_(0, i, 0.0)
        x[2:3] = x.index_select(0, i)
    assert waits.count == 0
