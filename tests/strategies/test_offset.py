"""Features with a large common offset: distances are those of float64, wherever features live; nobody else changes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from hydra.utils import get_class
from reference.maxherding import maxherding
from reference.probcover import distances, probcover, purity_delta
from strategies.factory import Rows, clusters, make_query

import alfm
from alfm.config.paths import conf_dir
from alfm.features.features import Features
from alfm.features.kept import Kept
from alfm.features.spaces import RAW, UNIT, Centred
from alfm.geometry.kmeans import kmeans
from alfm.heads.base import Classifier
from alfm.heads.dropout import Dropout
from alfm.heads.linear import LinearHead
from alfm.heads.logistic import Logistic
from alfm.heads.propagation import Propagated, propagation_graph
from alfm.strategies.alfamix import AlfaMix
from alfm.strategies.base import Strategy
from alfm.strategies.boss import Boss
from alfm.strategies.cal import Cal
from alfm.strategies.centroid import Centroid
from alfm.strategies.clue import Clue
from alfm.strategies.cluster_margin import ClusterMargin
from alfm.strategies.coreset import Coreset
from alfm.strategies.dcom import Dcom
from alfm.strategies.dropquery import DropQuery
from alfm.strategies.facility_location import FacilityLocation
from alfm.strategies.filtered import Filtered
from alfm.strategies.graph_cut import GraphCut
from alfm.strategies.log_det import LogDet
from alfm.strategies.margins import Margins
from alfm.strategies.maxherding import MaxHerding
from alfm.strategies.parts.sub_pool import Subsampled
from alfm.strategies.probcover import ProbCover
from alfm.strategies.probcover import purity_delta as radius_of
from alfm.strategies.query import Query
from alfm.strategies.random import Random
from alfm.strategies.switch_rules import AfterLabels
from alfm.strategies.switched import Switched
from alfm.strategies.tcm import Tcm
from alfm.strategies.typiclust import TypiClust
from alfm.strategies.uherding import UHerding
from alfm.streams import stream

MAKERS: dict[str, Callable[[], Strategy]] = {
    "typiclust": TypiClust,
    "tcm": Tcm,
    "switched": lambda: Switched(after=AfterLabels(100)),
    "filtered": Filtered,
    "maxherding": MaxHerding,
    "maxherding narrow": lambda: MaxHerding(width=0.01),
    "maxherding sampled": lambda: MaxHerding(exact_up_to=100, sample=300),
    "uherding": UHerding,
    "probcover": ProbCover,
    "probcover cells": lambda: ProbCover(exact_up_to=100, probe=100),
    "coreset": Coreset,
    "coreset cosine": lambda: Coreset(metric="cosine"),
    "coreset head": lambda: Coreset(space="head"),
    "dcom": Dcom,
    "dropquery": DropQuery,
    "centroid": Centroid,
    "clue": Clue,
    "cal": Cal,
    "cluster margin": ClusterMargin,
}
BELOW = 50.0  # mean cosine 0.998
PLAIN = ("coreset head", "clue", "cal")  # measure in the head's space, which may be the plain features
DOTS: dict[str, Callable[[], Strategy]] = {
    "graph_cut": GraphCut, "facility_location": FacilityLocation, "log_det": LogDet
}  # fmt: skip


def features(offset: float, N: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Ten clusters around `offset` in every coordinate, rounded to float32."""
    x, y = clusters(N, 64, 10, seed=3)
    return (x + offset).astype(np.float32), y


def query_at(
    offset: float, dtype: torch.dtype = torch.float32, n: int = 20, classifier: Classifier | None = None, N: int = 500
) -> Query:
    x, y = features(offset, N)
    return make_query(x=x, y=y, C=10, n=n, dtype=dtype, classifier=classifier)


def picks(strategy: Strategy, query: Query, budget: int = 40) -> list[int]:
    return strategy.select(query, budget)[0].tolist()


@pytest.mark.parametrize("offset", [100.0, 4096.0])
@pytest.mark.parametrize("name", MAKERS)
def test_picks_are_those_of_float64(name: str, offset: float) -> None:
    # k-means with 40 clusters alone differs by up to 7 picks between the two precisions without any offset
    N = 900 if name in ("dropquery", "centroid", "clue") else 500
    single, double = query_at(offset, N=N), query_at(offset, torch.float64, N=N)
    assert single.pool.offset and not double.pool.offset
    assert len({*picks(MAKERS[name](), single)} & {*picks(MAKERS[name](), double)}) >= 36


@pytest.mark.parametrize("offset", [100.0, 4096.0])
@pytest.mark.parametrize("name", PLAIN)
def test_picks_on_the_plain_features_are_those_of_float64(name: str, offset: float) -> None:
    """With float64's head on both sides: fitting without any scaling is another matter."""
    double = query_at(offset, torch.float64, classifier=Logistic(scaling="none"))
    single, head = query_at(offset), double.head
    assert head is not None and head.spaces[0] is RAW
    single.head = LinearHead(head.spaces, head.weight.float(), head.bias.float())
    assert len({*picks(MAKERS[name](), single)} & {*picks(MAKERS[name](), double)}) >= 36


@pytest.mark.parametrize("offset", [100.0, 4096.0])
def test_picks_are_those_of_the_references(offset: float) -> None:
    x, y = features(offset, 120)
    query = make_query(x=x, y=y, C=10, n=10, dtype=torch.float32)
    h, labelled, free = x.astype(np.float64), query.rows[0].numpy(), query.available[0].numpy()
    assert picks(MaxHerding(), query, 6) == maxherding(h, labelled, free, 6)
    unit = query.pool.points()
    pseudo = kmeans(unit.matrix, 10, stream(0, 0, "pseudo-classes")).assignment.numpy()
    delta = purity_delta(h, pseudo)
    assert radius_of(query, 10, 0.95) == pytest.approx(delta, rel=1e-4) and delta > 0
    found = picks(ProbCover(), query, 20)
    assert len({*found} & {*probcover(h, delta, labelled, free, 20)}) >= 18
    d = torch.cdist(unit.matrix, unit.matrix, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    np.testing.assert_allclose(d, distances(h), rtol=1e-4, atol=1e-9)


def test_clusters_are_as_tight_as_those_of_float64() -> None:
    x, _ = features(4096.0)
    u = Features(x.astype(np.float64)).unit.matrix
    inertia = []
    for points in (Features(x).points().matrix, u):
        found = kmeans(points, 30, np.random.default_rng(0)).assignment
        means = torch.stack([u[found == c].mean(0) for c in range(30)])
        inertia.append(float((u - means[found]).square().sum()))
    assert inertia[0] <= 1.05 * inertia[1]


@pytest.mark.parametrize("name", ["typiclust", "maxherding", "uherding", "probcover", "coreset", "dcom", "centroid"])
def test_wherever_features_live(name: str) -> None:
    x, y = features(4096.0, 200)
    query = make_query(x=x, y=y, C=10, dtype=torch.float32)
    expected = picks(MAKERS[name](), query, 20)
    for pool in (Features(x, memory="host", block_rows=97), Features(Rows(x), memory="file", block_rows=1000)):
        assert pool.offset and not pool.resident
        query.pool, query.carry = pool, {}
        assert len({*picks(MAKERS[name](), query, 20)} & {*expected}) >= 18


@pytest.mark.parametrize("name", ["typiclust", "uherding", "probcover", "coreset cosine", "dcom", "centroid", "clue"])
def test_below_the_threshold_nothing_changes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    query = query_at(BELOW)
    u = query.pool.unit.matrix.double()
    assert 0.99 < float(u.mean(0).square().sum()) < 0.999
    assert not query.pool.offset and query.pool.points() is query.pool.unit and query.pool.points(RAW) is query.pool.raw
    found = picks(MAKERS[name](), query)
    plain = query_at(BELOW)
    monkeypatch.setattr(Features, "offset", False)
    assert picks(MAKERS[name](), plain) == found


def test_the_graph_of_label_propagation(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = features(4096.0, 300)
    x[7] = 0.0  # no direction, hence no edges
    monkeypatch.setattr("alfm.features.features.OFFSET", 0.99)  # one item in 300 is not the rule
    pools = Features(x), Features(x.astype(np.float64))
    assert pools[0].offset
    graph, truth = (propagation_graph(pool, 10, 1.0).to_dense() for pool in pools)
    assert graph[7].count_nonzero() == graph[:, 7].count_nonzero() == 0
    assert int(((graph > 0) != (truth > 0)).sum()) <= 0.001 * int((truth > 0).sum())
    torch.testing.assert_close(graph.sum(1), truth.sum(1).float(), rtol=1e-2, atol=0)


@pytest.mark.parametrize("name", DOTS)
def test_cosines_are_warned_of_once(name: str) -> None:
    query = query_at(4096.0)
    with pytest.warns(UserWarning, match=f"^{name} compares items by their cosines.*choose maxherding") as caught:
        DOTS[name]().select(query, 3)
        DOTS[name]().select(query, 3)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DOTS[name]().select(query_at(BELOW), 3)
        DOTS[name]().select(query_at(4096.0, torch.float64), 3)


def test_answers_kept_beside_a_cache_tell_the_coordinates_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = picks(ProbCover(), query_at(4096.0))
    for centred in (False, True, True):
        query = query_at(4096.0)
        query.pool.kept = Kept(tmp_path / "a.h5", "features")
        with monkeypatch.context() as patch:
            if not centred:
                patch.setattr(Features, "offset", False)
            found = picks(ProbCover(), query)
        assert (found == expected) is centred
    names = [file.name for file in (tmp_path / "a.geometry").iterdir()]
    assert sum("centred" in name for name in names) == len(names) / 2 == 2


@pytest.fixture(scope="module")
def simulations(tmp_path_factory: pytest.TempPathFactory) -> dict[float, alfm.Simulation]:
    out = {}
    for offset in (0.0, 4096.0):
        x, y = features(offset, 400)
        path = tmp_path_factory.mktemp("caches") / "model.h5"
        with h5py.File(path, "w") as file:
            for split, rows in (("train", slice(0, 300)), ("test", slice(300, 400))):
                file[f"{split}/features"], file[f"{split}/labels"] = x[rows], y[rows]
        out[offset] = alfm.Simulation(path, "cpu")
    return out


STRATEGIES = sorted(path.stem for path in (conf_dir() / "query_strategy").glob("*.yaml") if path.stem != "replay")
MEASURE = {  # distances between unit or plain features
    "boss", "centroid", "cluster_margin", "coreset", "dcom", "dropquery", "filtered", "maxherding", "probcover",
    "switched", "tcm", "typiclust", "uherding",
}  # fmt: skip


@pytest.mark.parametrize("name", STRATEGIES)
def test_only_runs_with_other_picks_get_a_behaviour(name: str, simulations: dict[float, alfm.Simulation]) -> None:
    options = yaml.safe_load((conf_dir() / "query_strategy" / f"{name}.yaml").read_text("utf-8"))
    plain = {option: value for option, value in options.items() if isinstance(value, int | float)}
    strategy = get_class(options["_target_"])(**plain)
    for offset, task in simulations.items():
        changed = {"offset": 1} if offset and name in MEASURE else {}
        for classifier in (Logistic(), Dropout()):
            assert task.behaviour(strategy, Random(), classifier) == changed


def test_what_decides_the_behaviour_beside_the_query_strategy(simulations: dict[float, alfm.Simulation]) -> None:
    plain, offset = simulations.values()
    concerned: list[tuple[Strategy, Strategy, Classifier]] = [
        (Random(), Centroid(), Logistic()),
        (Random(), Random(), Propagated(Logistic())),
        (Margins(cluster_features=True), Random(), Logistic()),
        (Boss(strategies=[Random(), ProbCover()]), Random(), Logistic()),
        *((one, Random(), Logistic(scaling="none")) for one in (Cal(), Clue(), AlfaMix(), Coreset(space="head"))),
    ]
    others: list[tuple[Strategy, Strategy, Classifier]] = [
        (Boss(strategies=[Random(), Margins()]), Random(), Logistic()),
        (Coreset(space="head"), Random(), Logistic()),
        (DropQuery(cluster_head=True), Random(), Logistic()),
        (Margins(), Random(), Logistic(scaling="none")),
    ]
    for run in concerned:
        assert offset.behaviour(*run) == {"offset": 1} and plain.behaviour(*run) == {}
    for run in others:
        assert offset.behaviour(*run) == {} == plain.behaviour(*run)


def test_typiclust_on_a_pool_with_near_items_has_a_behaviour(tmp_path: Path) -> None:
    x, y = features(0.0, 400)
    x[5] = x[70] * (1 + 1e-4)
    with h5py.File(tmp_path / "model.h5", "w") as file:
        for split, rows in (("train", slice(0, 300)), ("test", slice(300, 400))):
            file[f"{split}/features"], file[f"{split}/labels"] = x[rows], y[rows]
    task = alfm.Simulation(tmp_path / "model.h5", "cpu")
    for strategy in (TypiClust(), Tcm(), Boss()):
        assert task.behaviour(strategy, Random(), Logistic()) == {"near": 1}
    assert task.behaviour(Random(), TypiClust(), Logistic()) == {"near": 1}
    for strategy in (ProbCover(), Margins()):
        assert task.behaviour(strategy, Random(), Logistic()) == {}


@pytest.mark.parametrize("memory", ["device", "host", "file"])
@pytest.mark.parametrize("block_rows", [7, 1000])
def test_the_origin_depends_on_the_features_alone(memory: str, block_rows: int) -> None:
    x, _ = features(4096.0)
    first = Features(x)
    half = x.astype(np.float16)
    assert torch.equal(Features(half).points().matrix, Features(half.astype(np.float32)).points().matrix)
    pool = Features(Rows(x) if memory == "file" else x, memory=memory, block_rows=block_rows)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for space in (UNIT, RAW):
            matrix = torch.cat([block for _, block in pool.points(space).blocks()])
            assert torch.equal(matrix, first.points(space).matrix)
    finally:
        torch.set_num_threads(threads)


def test_parts_of_a_pool_measure_as_the_whole_does() -> None:
    x, _ = features(BELOW)
    whole = Features(np.concatenate([x, -x[:1]]))
    narrow = np.argsort(np.linalg.norm(x - x.mean(0), axis=1))[:200]
    assert Features(x[narrow] + 50).offset and not Features(x[narrow] + 50, part_of=whole).offset
    far = Features(features(4096.0)[0])
    part = Features(x, part_of=far)
    assert isinstance(part.points().space, Centred) and part.points().space is far.points().space
    assert part.points(RAW).space is far.points(RAW).space


def test_clusters_on_a_part_of_the_pool_have_a_behaviour(tmp_path: Path) -> None:
    """Whatever asks for them, in a query or a cold start, but not where the pool or the part asked about is small."""
    x, y = features(0.0, 400)
    with h5py.File(tmp_path / "model.h5", "w") as file:
        for split, rows in (("train", slice(0, 300)), ("test", slice(300, 400))):
            file[f"{split}/features"], file[f"{split}/labels"] = x[rows], y[rows]
    task, one = alfm.Simulation(tmp_path / "model.h5", "cpu"), TypiClust(cluster_up_to=200)
    inside, near = Filtered(members={"typiclust": one}), ProbCover(exact_up_to=30, sample=20)
    for strategy in (one, DropQuery(cluster_up_to=299), Subsampled(one, 250), inside, near):
        assert task.behaviour(strategy, Random(), Logistic()) == {"clusters_on_part": 2}
    assert task.behaviour(Random(), one, Logistic()) == {"clusters_on_part": 2}
    few, below = inside.varied(most=150), near.varied(sample=31)
    for strategy in (DropQuery(cluster_up_to=300), Subsampled(one, 150), few, below, Filtered(), Tcm()):
        assert "clusters_on_part" not in task.behaviour(strategy, Random(), Logistic())
