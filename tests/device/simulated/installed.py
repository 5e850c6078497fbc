"""torch as it is where there is a card."""

from __future__ import annotations

import contextlib
import os
import threading
import time

import torch
from device.simulated.counts import REAL, S, flush, site, sync
from device.simulated.graphs import Graph, autograd_grad, graph
from device.simulated.tensors import CUDA, Mode, Sim, mark_pinned, pinned

from alfm.fused import operation

TOTAL = int(os.environ.get("SIM_MEMORY", 79 << 30))


class Stream:
    def __init__(self, device=None, priority=0, **k):
        self.device = CUDA
        self.stream_id = id(self)
        self.cuda_stream = id(self)

    def wait_stream(self, other):
        pass

    def wait_event(self, e):
        pass

    def record_event(self, e=None):
        e = e or Event()
        e.record(self)
        return e

    def synchronize(self):
        sync("stream.synchronize")

    def query(self):
        return True

    def __enter__(self):
        return self

    def __exit__(self, *a):
        return False

    def __eq__(self, o):
        return isinstance(o, Stream)

    def __hash__(self):
        return 0


class Event:
    def __init__(self, enable_timing=False, **k):
        self.timing = enable_timing
        self.t = None
        self.waiting = None

    def record(self, stream=None):
        self.t = time.perf_counter()
        self.waiting = list(S.pending_d2h)
        self.h2d = list(S.pending_h2d)

    def synchronize(self):
        if S.counters:
            for c in S.counters:
                c.syncs += 1
                c.sync_sites[f"{site()} event"] += 1
        self._arrive()

    def _arrive(self):
        for item in self.waiting or ():
            if any(item is p for p in S.pending_d2h):
                REAL["copy_"](item[0], item[1])
                S.pending_d2h[:] = [p for p in S.pending_d2h if p is not item]
        for src, check, where in getattr(self, "h2d", ()):
            if not torch.equal(src.view(torch.uint8).flatten(), check):
                S.problems.append(("race", f"pinned memory of {where} changed before its copy was waited for", where))
            S.pending_h2d[:] = [p for p in S.pending_h2d if p[0] is not src]
        self.waiting = None
        self.h2d = []

    def query(self):
        self._arrive()
        return True

    def wait(self, stream=None):
        pass

    def elapsed_time(self, other):
        if not self.timing:
            raise RuntimeError("Both events must be created with argument 'enable_timing=True'.")
        return max(1e-3, (other.t - self.t) * 1e3)


class Properties:
    name = "Simulated H100"
    total_memory = TOTAL
    major = 9
    minor = 0
    multi_processor_count = 132
    is_integrated = False
    gcnArchName = ""
    max_threads_per_multi_processor = 2048
    warp_size = 32
    L2_cache_size = 50 << 20


def install():
    """torch has a card from now on, and no way back."""
    if REAL:
        return
    cu = torch.cuda
    REAL["copy_"] = torch.Tensor.copy_
    REAL["untyped_storage"] = torch.Tensor.untyped_storage
    torch._C._ensureCUDADeviceGuardSet()
    torch._C._set_only_lift_cpu_tensors(True)
    cu._lazy_init = lambda: None
    cu.is_available = lambda: True
    cu.is_initialized = lambda: True
    cu.device_count = lambda: 1
    cu.current_device = lambda: 0
    cu.set_device = lambda d: None
    cu.get_device_name = lambda d=None: "Simulated H100"
    cu.get_device_capability = lambda d=None: (9, 0)
    cu.get_device_properties = lambda d=None: Properties()
    cu.mem_get_info = lambda d=None: (TOTAL - S.live, TOTAL)

    def synchronize(d=None):
        flush()
        for c in S.counters:
            c.syncs += 1
            c.sync_sites[f"{site()} synchronize"] += 1

    cu.synchronize = synchronize
    cu.max_memory_allocated = lambda d=None: S.peak
    cu.memory_allocated = lambda d=None: S.live
    cu.max_memory_reserved = lambda d=None: S.peak
    cu.memory_reserved = lambda d=None: S.live

    def reset(d=None):
        S.peak = S.live

    cu.reset_peak_memory_stats = reset
    cu.empty_cache = lambda: None
    cu.is_bf16_supported = lambda *a, **k: True
    cu.is_current_stream_capturing = lambda: S.capture is not None
    main = Stream()
    cu.current_stream = lambda d=None: main
    cu.default_stream = lambda d=None: main
    cu.Stream, cu.Event, cu.CUDAGraph, cu.graph = Stream, Event, Graph, graph

    @contextlib.contextmanager
    def stream(s):
        yield s

    cu.stream = stream

    @contextlib.contextmanager
    def device(d):
        yield

    cu.device = device
    cu.manual_seed = cu.manual_seed_all = lambda s: None
    REAL["grad"] = torch.autograd.grad
    torch.autograd.grad = autograd_grad

    def pin_memory(self, *a, **k):
        if isinstance(self, Sim):
            return Sim.pin_memory(self)
        out = self.clone()
        mark_pinned(out)
        return out

    torch.Tensor.pin_memory = pin_memory
    torch.Tensor.is_pinned = lambda self, *a: (not isinstance(self, Sim)) and pinned(self)
    torch.accelerator.is_available = lambda: True
    torch.accelerator.current_accelerator = lambda check_available=False: torch.device("cuda")
    torch.accelerator.set_device_index = lambda *a: None
    torch.accelerator.current_device_index = lambda: 0
    # wrappers cannot be inference tensors
    torch.inference_mode = lambda mode=True: torch.no_grad() if mode else contextlib.nullcontext()

    def apply(self, fn, recurse=True):
        """Parameters that become device tensors are put in place of the old ones (torch would swap their memory)."""
        for m in self.modules() if recurse else [self]:
            for table in (m._parameters, m._buffers):
                for k, v in list(table.items()):
                    if v is not None:
                        with torch.no_grad():
                            new = fn(v.data if not isinstance(v, Sim) else v)
                        if isinstance(new, Sim):
                            table[k] = new
                        elif not isinstance(v, Sim):
                            v.data = new
                        else:
                            table[k] = torch.nn.Parameter(new, False) if table is m._parameters else new
        return self

    torch.nn.Module._apply = apply
    real_run = threading.Thread.run

    def thread_run(self):
        with Mode():
            real_run(self)

    threading.Thread.run = thread_run
    operation.runs = lambda device: True  # each operation counts as the kernel that it is there
    Mode().__enter__()
