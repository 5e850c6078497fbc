"""Nobody but devices.py asks what a device is; what it offers is asked for at few places of the maths."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from threading import Thread, local
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import alfm
from alfm import devices
from alfm.devices import Device, choose_device
from alfm.extraction.encoding import Encoder
from alfm.heads.estimator import HeadClassifier

ROOT = Path(alfm.__file__).parent
MAY_ASK = ("devices.py", "extraction/", "backbones/")  # the last run others' models, which have habits
MATHS = ("geometry/", "heads/", "strategies/", "posteriors/", "acquisition.py", "metrics.py")
KINDS = {"cpu", "gpu", "cuda", "mps", "xpu"}
OFFERED = {field.name for field in fields(Device)} - {"device"} | {"enqueued"}
MOST = 21


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def named_device(node: ast.AST) -> bool:
    """Is this a device, by its name? A setting of that name (`cfg.device`) is what a user typed."""
    if isinstance(node, ast.Attribute):
        setting = isinstance(node.value, ast.Name) and node.value.id in ("cfg", "given", "settings")
        return node.attr == "device" and not setting
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and named_device(node.func)
    return isinstance(node, ast.Name) and node.id == "device"


def says_a_kind(node: ast.AST) -> bool:
    return any(isinstance(n, ast.Constant) and isinstance(n.value, str) and n.value in KINDS for n in ast.walk(node))


def spellings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Places that ask what a device is, in any spelling."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if node.attr in ("is_cuda", "is_cpu", "is_mps", "is_xpu", "get_device", "device_type"):
                yield node.lineno, node.attr
            elif node.attr == "type" and named_device(node.value):
                yield node.lineno, "device.type"
            elif ast.unparse(node) in ("torch.cuda", "torch.mps", "torch.backends", "torch.accelerator"):
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(map(says_a_kind, sides)) or any(named_device(side) for side in sides):
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            texts = called in ("str", "repr", "format", "getattr") and node.args and named_device(node.args[0])
            if texts or (called.endswith((".startswith", ".endswith")) and says_a_kind(node)):
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Return) and node.value is not None and says_a_kind(node.value):
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Match) and named_device(node.subject):
            yield node.lineno, "match device"


def test_nobody_else_asks_what_a_device_is() -> None:
    found = [
        f"alfm/{name}:{line}: {spelling}"
        for name, tree in sources()
        if not name.startswith(MAY_ASK)
        for line, spelling in spellings(tree)
    ]
    assert not found, "alfm.devices.of(x) offers what follows from a device's kind:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "if x.device.type == 'cpu': pass", "kind = device.type", "if x.is_cuda: pass",
        "if 'cuda' in str(x.device): pass", "if x.device == torch.device('cpu'): pass",
        "if f'{pool.device}' == 'cpu': pass", "torch.cuda.synchronize()", "x.get_device()",
        "def on(x): return 'gpu' if big(x) else 'cpu'", "torch.device('cpu') != x.device",
        "if name.startswith('cuda'): pass", "getattr(x.device, 'type')",
    ],
)  # fmt: skip
def test_every_spelling_is_seen(source: str) -> None:
    assert list(spellings(ast.parse(source)))


def test_the_maths_asks_little() -> None:
    """Every place counts that reads what a device offers, or asks whether picks are `enqueued`, which reads it once.

    How large blocks of features are is for the features to say: they asked when they were made.
    """
    asked = [
        f"alfm/{name}:{node.lineno}: {node.attr}"
        for name, tree in sources()
        if name.startswith(MATHS)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in OFFERED - {"enqueues_picks"}
        and not ast.unparse(node.value).endswith(("pool", "features"))
    ]  # fmt: skip
    assert len(asked) <= MOST, "\n".join(asked)


def test_what_devices_offer() -> None:
    host, cuda, mps = (devices.of(name) for name in ("cpu", "cuda:1", "mps"))
    assert devices.of(torch.zeros(2)) is host and (host.label, cuda.label) == ("cpu", "cuda:1")
    assert host.numpy_reads and host.looks_are_free and host.jobs_run_aside and not host.joins_replicates
    assert cuda.joins_replicates and cuda.enqueues_picks and not cuda.numpy_reads and cuda.has_float64
    assert not (mps.has_float64 or mps.enqueues_picks or mps.numpy_reads)
    assert host.block_rows(384) == 5461 and cuda.block_rows(384) == 174762 and host.block_rows(1 << 20) == 256
    assert (host.at_once(5, 10, 40), host.at_once(5, 100, 40), cuda.at_once(5, 100, 40)) == (4, 1, 5)
    assert (host.widest, mps.widest) == (torch.float64, torch.float32)
    assert host.free_bytes() > 0 and host.peak_bytes() > 0 and host.accelerator is None
    assert devices.Clock(torch.device("cpu")).lap() >= 0
    step = list[int]().clear
    assert host.captured(step, []) is step
    assert host.arithmetic == "cpu" and cuda.arithmetic == devices.of("cuda").arithmetic


def test_the_device_a_user_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device() == choose_device("cpu") == torch.device("cpu")
    for name in ("cuda", "mps", "cuda:0"):
        with pytest.raises(alfm.UserError, match=f"no device {name}: use device=auto"):
            choose_device(name)
    with pytest.raises(alfm.UserError, match="no device 'gpu': use device=auto, cpu, cuda"):
        choose_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device() == choose_device("cuda") == torch.device("cuda")  # the process's current one
    assert choose_device("auto", local_rank=3) == choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(alfm.UserError, match="no device cuda:2"):
        choose_device("cuda:2")


def test_rounds_are_not_for_a_device_without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device() == choose_device("mps") == torch.device("mps")
    assert choose_device(float64=True) == torch.device("cpu")
    with pytest.raises(alfm.UserError, match="device=mps has no float64, which rounds need: use device=cpu"):
        choose_device("mps", float64=True)
    with pytest.raises(alfm.UserError, match="no device 'gpu': use device=auto, cpu, cuda or cuda:1[.]"):
        choose_device("gpu", float64=True)


def test_a_graph_is_captured_on_its_own_device_without_giving_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without a GPU its calls are stood in for, in their order; numbers: see `captured`'s users."""
    told: list[str] = []

    @contextmanager
    def entered(what: str) -> Iterator[None]:
        told.append(f"in {what}")
        try:
            yield
        finally:
            told.append(f"out {what}")

    def stream(name: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, wait_stream=lambda other: told.append(f"{name} waits for {other.name}"))

    def end() -> None:
        told.append("end")
        if refused:
            raise RuntimeError(refused.pop())

    graph = SimpleNamespace(
        capture_begin=lambda capture_error_mode: told.append(f"begin {capture_error_mode}"),
        capture_end=end, replay=lambda: told.append("replay"),
    )  # fmt: skip
    for name, stand_in in {
        "Stream": lambda: stream("side"), "current_stream": lambda: stream("own"), "CUDAGraph": lambda: graph,
        "device": lambda device: entered(str(device)), "stream": lambda one: entered(one.name),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(devices._Aside, "of_thread", local())
    state, refused = torch.zeros(2), list[str]()

    def step() -> None:
        told.append("step")
        state.add_(1)

    def what() -> str:
        """What was done since, between going there and coming back."""
        there, back = "in cuda:1, side waits for own, in side", "own waits for side, out side, out cuda:1"
        done = ", ".join(told)
        told.clear()
        assert done.count(there) == done.count(back) > 0
        return ", ".join(word for word in done.split(", ") if word not in f"{there}, {back}")

    begun = "begin thread_local, step, end"
    assert devices.of("cuda:1").captured(step, [state]) is graph.replay
    assert what() == f"step, {begun}"
    assert state.tolist() == [0, 0]  # as it went in
    assert devices.of("cuda:1").captured(step, [state]) is graph.replay
    assert what() == begun  # it had run there before
    assert devices.of("cuda:1").repeated(step) is graph.replay
    assert what() == f"{begun}, replay"
    refused.append("a library allocates after all")
    assert devices.of("cuda:1").captured(step, [state]) is graph.replay
    assert what() == f"{begun}, step, {begun}"
    done: list[str] = []
    other = Thread(target=lambda: done.append(devices.of("cuda:1").repeated(step) is graph.replay and what()))
    other.start(), other.join()
    assert done == [f"step, {begun}"]  # libraries' handles are a thread's own


def test_what_runs_a_step_again_without_graphs_is_the_step() -> None:
    state = torch.zeros(2)

    def step() -> None:
        state.add_(1)

    devices.of("cpu").repeated(step)()
    assert state.tolist() == [2, 2]


def test_as_many_replicates_as_free_memory_holds_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    free = devices.Device.free_bytes
    monkeypatch.setattr(devices.Device, "free_bytes", lambda self: asked.append(self.label) or 20 << 30)
    cuda, logits = devices.of("cuda"), 10**8  # 4.8 GB each
    assert [cuda.at_once(R, logits, 1) for R in (1, 2, 5)] == [1, 2, 2] and cuda.at_once(5, 10**10, 1) == 1
    del asked[:]
    assert cuda.at_once(5, 10**6, 1) == 5 and not asked  # so little that nobody asks
    monkeypatch.setattr(devices.Device, "free_bytes", free)


def test_memory_that_torch_holds_for_later_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in {"mem_get_info": (1000, 5000), "memory_reserved": 700, "memory_allocated": 300}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, number=number: number)
    assert devices.of("cuda:1").free_bytes() == 1400


def precisions() -> list[str]:
    return [torch.get_float32_matmul_precision(), str(torch.backends.cuda.matmul.allow_tf32)]


@pytest.fixture
def loose_products() -> Iterator[None]:
    """A user who said that fewer bits do."""
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("loose_products")
def test_products_are_exact_while_anybody_is_inside() -> None:
    first, second = devices.full_precision(), devices.full_precision()
    with first:
        assert precisions() == ["highest", "False"]
        with ThreadPoolExecutor(1) as pool:
            pool.submit(second.__enter__).result()
    assert precisions() == ["highest", "False"]  # the other thread is still inside
    second.__exit__(None, None, None)
    assert precisions() == ["high", "True"]
    with pytest.raises(ValueError, match="inside"), devices.full_precision():
        raise ValueError("inside")
    assert precisions() == ["high", "True"]


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="one switch for all")
def test_switches_that_were_set_one_by_one_come_back() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        with devices.full_precision():
            assert precisions() == ["highest", "False"]
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        assert torch.backends.mkldnn.matmul.fp32_precision != "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")


class Products(TorchDispatchMode):
    """The precision that each product of float32 was made with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "linear", "dot", "matmul"):
            self.seen.append(torch.get_float32_matmul_precision())
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("loose_products")
@pytest.mark.parametrize("what", ["rounds", "arrays", "head", "annotator", "embedding"])
def test_whatever_computes_is_exact(what: str, digits_cache: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32), np.arange(60) % 3
    products = Products()
    with products:
        if what == "rounds":
            alfm.simulate(digits_cache, "uherding", seeds=[0], rounds=3)
        elif what == "arrays":
            alfm.select_batch(x, np.where(np.arange(60) < 9, y, -1), 3, "bait")
        elif what == "head":
            HeadClassifier().fit(x, y).predict(x)
        elif what == "annotator":
            learner = alfm.ActiveLearner(digits_cache, labels_in_cache="ignore", query_strategy="margins")
            batch = learner.ask(6)
            learner.tell(batch, [str(item.row % 3) for item in batch])
            learner.ask(3), learner.predict(), learner.suggestions()
        else:
            encoder = Encoder(Linear(), torch.device("cpu"), "float32")
            encoder.finish(encoder.start(torch.from_numpy(x), len(x)))
    assert products.seen and set(products.seen) == {"highest"}
    assert precisions() == ["high", "True"]


class Linear:
    name = "linear"

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        return batch @ torch.ones(5, 2)
