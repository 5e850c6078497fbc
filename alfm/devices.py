"""The one place that asks what a device is. Everybody else asks what there is of it, and what is worth doing on it.

`of(x)` gives a `Device`: quantities (how large blocks are, how often the host looks) and abilities (what is cheap
there). A new kind of accelerator is a row of this file. `choose_device` finds the device that a user names.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from threading import Lock, local
from typing import Any

import torch
from torch import Tensor

from alfm.errors import UserError

COPIES = 12
"""Of the logits of a fit, as many as its gradient, its line search and what they hold together are."""

SURELY_FREE = 1 << 29
"""Bytes that are taken without a question."""


@dataclass(frozen=True)
class Device:
    """What one device offers.

    block_numbers: numbers that a block of a pass over features holds. Few stay near a CPU's caches and are enough for
    full speed there; on an accelerator launches are what costs. Code for smaller blocks takes a share of it.
    steps_between_looks: steps that are enqueued before the host asks how far they are: 1 where asking costs nothing.
    numpy_reads: NumPy and faiss compute on tensors in place.
    looks_are_free: the host reads a value of a tensor without waiting for anything, so it may stop early, count first,
    or leave out what does not matter.
    jobs_run_aside: independent jobs on threads of the host take less time than one after the other.
    joins_replicates: replicates padded to one length in one product take less time than their own products. Elsewhere
    each has its own, and its bits do not depend on its company.
    keeps_pair_lists: lists of near pairs, walked by loops of the host, take less time than all products once more.
    enqueues_picks: greedy picks can be made by kernels alone, the host some picks ahead (`alfm.geometry.greedy`).
    pins_host_memory: copies from pinned host memory run beside computation.
    has_float64: float64 can be computed there.
    """

    device: torch.device
    block_numbers: int
    steps_between_looks: int
    numpy_reads: bool = False
    looks_are_free: bool = False
    jobs_run_aside: bool = False
    joins_replicates: bool = False
    keeps_pair_lists: bool = False
    enqueues_picks: bool = False
    pins_host_memory: bool = False
    has_float64: bool = True

    def block_rows(self, dim: int) -> int:
        """Items of `dim` numbers each that a pass visits together."""
        return max(256, self.block_numbers // dim)

    def at_once(self, replicates: int, numbers: int, most: int) -> int:
        """How many replicates of so many numbers one product takes: all where that joins them, as far as what is made
        on the way, COPIES of the numbers, fits into half of the free memory; elsewhere while they are small, `most`
        numbers together."""
        if not self.joins_replicates:
            return max(1, most // max(1, numbers))
        each = 4 * COPIES * numbers
        if replicates * each < SURELY_FREE:
            return replicates  # free memory is not asked for
        return min(replicates, max(1, self.free_bytes() // 2 // each))

    def sent(self, x: Tensor) -> Tensor:
        """x on this device. What was enqueued there is not waited for, where host memory can be pinned."""
        if self.pins_host_memory and x.device.type == "cpu":
            return x.pin_memory().to(self.device, non_blocking=True)
        return x.to(self.device)

    @property
    def widest(self) -> torch.dtype:
        """The widest float that can be computed there."""
        return torch.float64 if self.has_float64 else torch.float32

    @property
    def label(self) -> str:
        """As a user would name it."""
        return str(self.device)

    @property
    def arithmetic(self) -> str:
        """What rounds alike: numbers found on a device serve every device of this name."""
        return self.device.type

    @cached_property
    def accelerator(self) -> str | None:
        """The maker's name of the accelerator, where the system tells it."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None

    def free_bytes(self) -> int:
        """Memory to be had now, what torch holds for its next tensors included."""
        if self.device.type == "cuda":
            held = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            return int(torch.cuda.mem_get_info(self.device)[0]) + held
        try:
            with open("/proc/meminfo", encoding="ascii") as lines:
                for line in lines:
                    if line.startswith("MemAvailable:"):
                        return int(line.split()[1]) * 1024
        except OSError:
            pass
        return 8 << 30  # where the system does not say

    def peak_bytes(self) -> int:
        """Most bytes held so far, over all runs of the process: on CUDA by torch's allocator, else its resident set.

        0 where the system does not tell (Windows).
        """
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        try:
            import resource
        except ImportError:
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def current(self) -> AbstractContextManager[Any]:
        """Makes a GPU the current one while it is entered."""
        return torch.cuda.device(self.device)

    def captured(self, step: Callable[[], None], state: Sequence[Tensor], kind: Hashable = None) -> Callable[[], None]:
        """A step of fixed shapes that changes nothing but `state`, in place: as a graph to replay, where there are any.

        Elsewhere the step itself. `state` comes out as it went in. kind: see `repeated`.
        """
        if self.device.type != "cuda":
            return step
        if (graph := self._again(step, kind)) is not None:
            return graph.replay
        before = [s.clone() for s in state]
        again = self._first(step, kind)
        for s, b in zip(state, before, strict=True):
            s.copy_(b)
        return again

    def repeated(self, step: Callable[[], None], kind: Hashable = None) -> Callable[[], None]:
        """Runs a step of fixed shapes once, and gives what runs it again: a graph to replay, where there are any.

        The step works on tensors that stay, and leaves there, in place, what it has found. kind: what its kernels
        depend on besides its code.
        """
        if self.device.type != "cuda":
            step()
            return step
        if (graph := self._again(step, kind)) is not None:
            graph.replay()
            return graph.replay
        return self._first(step, kind)

    def _again(self, step: Callable[[], None], kind: Hashable = None) -> Any:
        """A graph of a step that this thread has run here before; None where it has not, or a library allocates."""
        with self._aside() as own:
            known = (_code(step), kind) in own.known
        try:
            return self._graph(step) if known else None
        except RuntimeError:
            return None

    def _first(self, step: Callable[[], None], kind: Hashable = None) -> Callable[[], None]:
        """Runs a step, and gives what runs it again: a graph, or itself where something in it waits."""
        with self._aside() as own:
            step()
        try:
            again: Callable[[], None] = self._graph(step).replay
        except RuntimeError:
            return step
        own.known.add((_code(step), kind))
        return again

    def _graph(self, step: Callable[[], None]) -> Any:
        """A step as a graph; nothing is run.

        Not `torch.cuda.graph`, whose stream is of the device that was current at the first capture of all and which
        gives the cache of freed memory back each time. Other threads may go on meanwhile.
        """
        with self._aside():
            graph = torch.cuda.CUDAGraph()
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                step()
            finally:
                graph.capture_end()
        return graph

    @contextmanager
    def _aside(self) -> Iterator[_Aside]:
        """On this thread's stream for captures."""
        with self.current():  # a capture belongs to the current device, whatever its stream's is
            every, current = _Aside.of_thread.__dict__, torch.cuda.current_stream()
            own = every.get(str(self.device)) or every.setdefault(str(self.device), _Aside())
            own.stream.wait_stream(current)
            with torch.cuda.stream(own.stream):
                try:
                    yield own
                finally:
                    current.wait_stream(own.stream)

    def finish(self) -> None:
        """Waits until all that was enqueued is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class _Aside:
    """A thread's stream for captures on a device, and steps it has run there.

    Libraries allocate what they need at their first call, by thread and by stream, and may not while a step is
    captured: so a step runs once before it is, and need not again.
    """

    of_thread = local()

    def __init__(self) -> None:
        self.stream, self.known = torch.cuda.Stream(), set[Any]()


def _code(step: Callable[[], None]) -> Any:
    """What a step does, whatever tensors it works on."""
    return getattr(step, "__code__", step)


def of(x: Tensor | torch.device | str) -> Device:
    """What the device of a tensor, or a device, offers."""
    return _known(x.device if isinstance(x, Tensor) else torch.device(x))


@lru_cache(maxsize=64)
def _known(device: torch.device) -> Device:
    if device.type == "cpu":
        return Device(
            device, block_numbers=1 << 21, steps_between_looks=1, numpy_reads=True, looks_are_free=True,
            jobs_run_aside=True, keeps_pair_lists=True,
        )  # fmt: skip
    cuda = device.type == "cuda"
    return Device(
        device, block_numbers=1 << 26, steps_between_looks=10, joins_replicates=True, enqueues_picks=cuda,
        pins_host_memory=cuda, has_float64=device.type != "mps",
    )  # fmt: skip


class _Products:
    """How many are inside `full_precision`, and what the switches were before the first."""

    lock = Lock()
    inside = 0
    before: Callable[[], None]


@contextmanager
def full_precision() -> Iterator[None]:
    """Products of float32 in float32 while this is entered, by any number of threads; afterwards as it was.

    A container (`TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1`) or a user (`set_float32_matmul_precision("high")`) may have said
    that 10 or 7 bits do, on GPUs and on some CPUs: distances of near items and fits to a tolerance need all 23. A
    decorator too.
    """
    with _Products.lock:
        if not _Products.inside:
            _Products.before = _switches()
            torch.set_float32_matmul_precision("highest")
        _Products.inside += 1
    try:
        yield
    finally:
        with _Products.lock:
            _Products.inside -= 1
            if not _Products.inside:
                _Products.before()


def _switches() -> Callable[[], None]:
    """Puts the precision of products back to what it is now: one switch for all, and since torch 2.9 one for each."""
    mkldnn: Any = torch.backends.mkldnn
    every: list[Any] = [torch.backends.cuda.matmul, mkldnn, getattr(mkldnn, "matmul", None)]
    backends = [one for one in every if hasattr(one, "fp32_precision")]
    own = [one.fp32_precision for one in backends]
    try:
        common = torch.get_float32_matmul_precision()
    except RuntimeError:  # the switches were set one by one and differ
        common = "highest"

    def restore() -> None:
        torch.set_float32_matmul_precision(common)
        for one, precision in zip(backends, own, strict=True):
            if one.fp32_precision != precision:
                one.fp32_precision = precision

    return restore


class Clock:
    """Wall time between laps, with the device's queue drained at each."""

    def __init__(self, device: torch.device) -> None:
        self.device = of(device)
        self.last = self._now()

    def _now(self) -> float:
        self.device.finish()
        return time.perf_counter()

    def lap(self) -> float:
        """Seconds since the lap before."""
        now = self._now()
        seconds, self.last = now - self.last, now
        return seconds


def choose_device(wanted: str = "auto", local_rank: int | None = None, float64: bool = False) -> torch.device:
    """The device a user names. `auto`: CUDA, else MPS, else CPU.

    local_rank: of a worker among several, which takes that GPU; None for the process's current one. float64: for what
    is computed in it in part, as distances, clusters and picks are: MPS has none. Raises UserError for a device that
    this machine does not have, or that will not do.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = torch.backends.mps.is_available()
    if wanted in ("auto", "cuda") and gpus:
        return torch.device("cuda") if local_rank is None else torch.device("cuda", local_rank % gpus)
    if wanted == "auto":
        return torch.device("mps" if mps and not float64 else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        names = "auto, cpu, cuda or cuda:1" if float64 else "auto, cpu, cuda, cuda:1 or mps"
        raise UserError(f"There is no device {wanted!r}: use device={names}.") from None
    if (device.index or 0) >= {"cuda": gpus, "mps": int(mps), "cpu": 1}.get(device.type, 0):
        raise UserError(f"This machine has no device {wanted}: use device=auto, or another.")
    if float64 and not of(device).has_float64:
        raise UserError(f"device={wanted} has no float64, which rounds need: use device=cpu; alfm.extract can use it.")
    return device
