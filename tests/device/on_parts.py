"""Cold starts, heads, posteriors, measures, where features live, and one extraction: on the device as on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from device import start
from device.rounds import COLD_STARTS, CONF, C, N, X, Y, rounds, task
from extraction.standins import Tiny

import alfm
from alfm import metrics
from alfm.config.parts import from_config
from alfm.extraction.encoding import Encoder
from alfm.features.features import Features
from alfm.heads.dropout import Dropout
from alfm.heads.neighbours import choose_k, shares
from alfm.metrics import evaluate
from alfm.posteriors import DropoutPosterior, Ensemble, Laplace, pool_pass
from alfm.strategies.bait import Bait
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query

HEADS = sorted(path.stem for path in (CONF / "classifier").glob("*.yaml"))
POSTERIORS = {
    "dropout": DropoutPosterior(),
    "dropout, joint": DropoutPosterior(per_item=False),
    "ensemble": Ensemble(3),
    "laplace": Laplace(),
}
SHORTER: dict[str, dict[str, Any]] = {name: {"max_epochs": 12} for name in ("adapter", "dropout")}
SEEDS = [1, 2, 3, 4, 5]
DEVICES = ("cpu", "cuda")


class OnHost(Strategy):
    """The first available items, on the host."""

    needs_head = False

    def select(self, query: Query, budget: int) -> torch.Tensor:
        return torch.stack([own.nonzero()[:budget, 0] for own in query.available.cpu()])


def test_picks_may_be_on_the_host() -> None:
    given = task("cuda")
    found = next(alfm.run(given, from_config("classifier", "logistic"), OnHost(), OnHost(), [C] * 2, [1, 2]))
    assert found.picks.tolist() == [list(range(C))] * 2


class Rows:
    """Features that stay in a file."""

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.shape = x, x.shape

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.x[start:stop]

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.x[rows]


def features(device: str, dtype: str = "float32", memory: Any = "auto") -> Features:
    x = X.astype(dtype)
    return Features(Rows(x) if memory == "file" else x, device, memory="auto" if memory == "file" else memory)


def labelled(R: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (R, 40) of every replicate, the last one's fewer and padded, and their classes."""
    rows = torch.from_numpy(np.stack([np.random.default_rng(seed).permutation(N)[:40] for seed in SEEDS[:R]]))
    rows[-1, 30:] = -1
    return rows.to(device), torch.where(rows >= 0, torch.from_numpy(Y)[rows.clamp_min(0)], -1).to(device)


def fitted(head: str, device: str, R: int, dtype: str = "float32", memory: Any = "auto"):
    pool, (rows, targets) = features(device, dtype, memory), labelled(R, device)
    classifier = from_config("classifier", head, **SHORTER.get(head, {}))
    return pool, classifier, rows, targets, classifier.fit(pool, rows, targets, C, SEEDS[:R], 1)


@pytest.mark.parametrize("name", COLD_STARTS)
def test_a_cold_start_picks_what_it_picks_on_the_cpu(name: str) -> None:
    picks = [next(rounds(task(device, "float64"), "random", SEEDS[:2], name)).picks for device in DEVICES]
    assert np.array_equal(*picks)


@pytest.mark.parametrize("R", [1, 5])
@pytest.mark.parametrize("head", HEADS)
def test_heads_measure_as_on_the_cpu(head: str, R: int) -> None:
    """Features in float16 where there is one replicate, in float32 where there are five."""
    host, there = (
        task(device).measure(fitted(head, device, R, "float16" if R == 1 else "float32")[-1]) for device in DEVICES
    )
    for ours, theirs in zip(there, host, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_a_head_of_more_labels_than_a_batch_holds_is_a_graph_an_epoch() -> None:
    """And learns what it learns on the CPU, batches in an order of their own every epoch."""
    heads, epochs = [], 25
    for device in DEVICES:
        pool, (rows, targets) = features(device, "float64"), labelled(1, device)
        head = Dropout(max_epochs=epochs, batch_size=9, patience=epochs)
        with nullcontext() if start.REAL else start.simulated.counting() as cost:
            heads.append(head.fit(pool, rows, targets, C, SEEDS[:1]).weight.cpu())
        if device == "cuda" and cost is not None:
            assert cost.launches < 40 * epochs and cost.syncs < epochs  # a batch launches about a hundred
    assert torch.allclose(*heads, atol=1e-8)


@pytest.mark.parametrize("memory", ["device", "host", "file"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_wherever_features_live(memory: str, dtype: str) -> None:
    """A round that passes over the pool and gathers from it."""
    picks = []
    for pool in (features("cpu", dtype), features("cuda", dtype, memory)):
        of = task(str(pool.device), dtype)
        of.pool = pool
        going = rounds(of, "dropquery", SEEDS[:2])
        next(going)
        picks.append(next(going).picks)
    assert np.array_equal(*picks)


@pytest.mark.parametrize("name", ["coreset", "uherding"])
def test_an_interruption_or_company_changes_no_pick(name: str) -> None:
    """What is promised where replicates share products: the picks that one makes alone, and after it was resumed."""
    whole = [made.picks for made in rounds(task("cuda", "float64"), name, SEEDS[:2])]
    done = np.concatenate(whole[:2], 1)
    resumed = [made.picks for made in rounds(task("cuda", "float64"), name, SEEDS[:2], done=done)]
    alone = [made.picks[0] for made in rounds(task("cuda", "float64"), name, SEEDS[1:2])]
    assert len(resumed) == len(whole) - 2 and all(map(np.array_equal, resumed, whole[2:]))
    assert all(map(np.array_equal, alone, (made[1] for made in whole)))


@pytest.mark.parametrize("variant", ["binary", "full", "top_k", "diagonal"])
@pytest.mark.parametrize("left", [N, 35])
def test_bait_where_replicates_differ_in_what_is_left_or_labelled(left: int, variant: str) -> None:
    """Fewer are free than two batches, and fewer than are picked ahead."""
    picks = []
    for device in DEVICES:
        pool, classifier, rows, targets, head = fitted("logistic", device, 3, "float64")
        free = torch.ones(3, N, dtype=torch.bool, device=device)
        free[:, rows.clamp_min(0).flatten()] = False
        free[1, left:] = False
        query = Query(pool, rows, targets, free, C, SEEDS[:3], 2, head, classifier)
        picks.append(Bait(variant).select(query, 25).cpu())
    assert torch.equal(*picks)


@pytest.mark.skipif(start.REAL, reason="only a simulated device counts")
@pytest.mark.parametrize("variant", ["full", "top_k", "diagonal"])
def test_other_forms_of_bait_go_for_all_replicates_at_once(variant: str) -> None:
    launches = []
    for R in (1, 3):
        pool, classifier, rows, targets, head = fitted("logistic", "cuda", R, "float64")
        free = torch.ones(R, N, dtype=torch.bool, device="cuda")
        free[:, rows.clamp_min(0).flatten()] = False
        query = Query(pool, rows, targets, free, C, SEEDS[:R], 2, head, classifier)
        with start.simulated.counting() as cost:
            Bait(variant).select(query, 10)
        launches.append(cost.launches)
    assert launches[1] < 2 * launches[0]


@pytest.mark.skipif(start.REAL, reason="of the simulated device")
def test_features_of_the_host_are_pinned_by_blocks_and_cross_without_a_wait() -> None:
    pool = features("cuda", "float16", "host")
    assert isinstance(pool.features, torch.Tensor) and not pool.features.is_pinned()
    with start.simulated.counting() as cost:
        seen = [x for _, x in pool.raw_blocks(100)]
    assert cost.syncs == 0
    assert np.array_equal(torch.cat(seen).cpu().numpy(), X.astype("float16").astype("float32"))


@pytest.mark.parametrize("name", POSTERIORS)
def test_posteriors_draw_as_on_the_cpu(name: str) -> None:
    posterior = POSTERIORS[name]
    means = []
    for device in DEVICES:
        pool, classifier, rows, targets, head = fitted("logistic", device, 2, "float64")
        draws = posterior.bind(pool, head, classifier, rows, targets, SEEDS[:2], 1)
        means.append(pool_pass(pool, draws, lambda logits, rows, r: logits.softmax(-1).mean(0)).cpu())
    assert torch.allclose(*means, atol=1e-6)


def test_measures_and_neighbours() -> None:
    y = torch.from_numpy(Y)
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(N, C))).float()
    assert evaluate(logits.cuda(), y.cuda()) == pytest.approx(evaluate(logits, y), abs=1e-6)
    found = []
    for device in DEVICES:
        pool = features(device)
        found.append((choose_k(pool, y.to(device), C), shares(pool, y.to(device), C, features(device), 5).cpu()))
    assert found[0][0] == found[1][0] and torch.allclose(found[0][1], found[1][1], atol=1e-6)


@pytest.mark.parametrize("waits", [False, True])
def test_measures_of_the_next_round_are_a_graph(waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless one of them, somebody's own, waits for the device."""
    if waits:
        own = metrics.Metric("own", lambda of: of.hit.double().mean(-1) if float(of.top.sum()) else of.top[..., 0])
        monkeypatch.setitem(metrics.METRICS, "own", own)
    y = torch.from_numpy(Y)
    labels = metrics.TestLabels.prepare(y.cuda(), C)
    for seed in range(3):
        logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, N, C))).float()
        with nullcontext() if start.REAL else start.simulated.counting() as cost:
            found = metrics.evaluate_all([logits.cuda()], y.cuda(), labels)
        for one, wanted in zip(found, metrics.evaluate_all(logits, y), strict=True):
            assert one == pytest.approx(wanted, abs=1e-6)
        if cost is not None and seed:
            assert (cost.launches < 10) == (not waits)


def test_an_extraction() -> None:
    found = []
    for device in map(torch.device, DEVICES):
        backbone = Tiny("tiny", 5, 0.0, None, None, "image", 0)
        backbone.load(device)
        encoder = Encoder(backbone, device, "float32")
        batches = torch.randint(0, 256, (3, 6, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        pending = [encoder.start(batch, len(batch)) for batch in batches]
        found.append(np.concatenate([encoder.finish(one)[0] for one in pending]))
    assert np.allclose(*found, atol=1e-5)


def asking(x: torch.Tensor) -> dict[str, Callable[[], object]]:
    """What makes the host wait for the device."""
    mask, i = x[:, 0] > 2, torch.tensor([2], device="cuda")
    return {
        "item": lambda: x[0, 0].item(),
        "bool": lambda: bool(mask.any()),
        "a mask": lambda: x[mask],
        "nonzero": lambda: mask.nonzero(),
        "where": lambda: torch.where(mask),
        "unique": lambda: i.unique(),
        "equal": lambda: torch.equal(x, x),
        "bincount": lambda: torch.bincount(i),
        "numbers": lambda: x.tolist(),
        "to the host": lambda: x.cpu(),
        "from the host": lambda: torch.ones(3).to("cuda"),
        "cholesky": lambda: torch.linalg.cholesky(x[:2, :2].T @ x[:2, :2]),
    }


@pytest.mark.skipif(start.REAL, reason="of the simulated device")
def test_what_waits_is_seen_and_what_does_not_is_not() -> None:
    x = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)).to("cuda")
    for name, ask in asking(x).items():
        with start.simulated.counting() as cost:
            ask()
        assert cost.syncs >= 1, name
    i = torch.arange(2, device="cuda")
    with start.simulated.counting() as cost:
        _ = x[i], x.where(x > 0.5, -torch.inf).argmax(0), x.topk(2), x[2], x[:, 1:3].double(), x @ x.T
        x.index_fill_(0, i, 0.0)
    assert cost.syncs == 0 and cost.launches > 5


@pytest.mark.skipif(start.REAL, reason="of the simulated device")
def test_what_cuda_refuses_is_refused() -> None:
    x = torch.ones(3, 3).to("cuda")
    with pytest.raises(RuntimeError, match="same device"):
        x @ torch.ones(3, 3)
    with pytest.raises(TypeError, match="numpy"):
        np.asarray(x)
    late = x.to("cpu", non_blocking=True)
    assert late.isnan().all()  # nobody has waited for it
    torch.cuda.synchronize()
    assert (late == 1).all()
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin()
    x.add_(1)
    graph.capture_end()
    assert float(x.sum()) == 9  # nothing was done yet
    graph.replay()
    assert float(x.sum()) == 18


@pytest.mark.skipif(start.REAL, reason="only a simulated device tells")
def test_nothing_else_is_wrong() -> None:
    """Memory that a copy in flight needed was left alone, in all that ran above."""
    assert not start.simulated.S.problems
