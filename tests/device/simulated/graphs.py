"""CUDA graphs: what is captured is not executed, what is replayed counts as one launch; gradients of what is taped."""

from __future__ import annotations

import contextlib

import torch
from device.simulated.counts import FREE, REAL, S, count_op, counting, flat, sync
from device.simulated.tensors import Sim, info, is_cuda, storage_key
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes


class Graph:
    def __init__(self, *a, **k):
        self.nodes = []
        self.kernels = 0
        self.done = False
        self.keep = []
        self.before = []

    def remember(self, mutated, args, kwargs):
        """Nothing is executed while a graph is captured: what is written then is put back at its end."""
        for i, n, kw in mutated:
            t = kwargs.get(n) if kw or i >= len(args) else args[i]
            self.before += [(one.elem, one.elem.clone()) for one in flat([t], []) if isinstance(one, Sim)]

    def capture_begin(self, *a, **k):
        if S.capture is not None:
            raise RuntimeError("nested capture")
        S.capture = self
        self.count = counting()
        self.c = self.count.__enter__()

    def capture_end(self):
        S.capture = None
        for t, b in reversed(self.before):
            REAL["copy_"](t, b)
        self.before = []
        self.count.__exit__()
        self.done = True
        self.kernels = self.c.launches
        for c in S.counters:  # captured, not executed
            c.launches -= self.c.launches
            c.ops -= self.c.ops
            c.device_time -= self.c.device_time
            c.bytes -= self.c.bytes
            c.flops -= self.c.flops
            c.by_op.subtract(self.c.by_op)
            c.launch_sites.subtract(self.c.launch_sites)

    def replay(self):
        if not self.done:
            raise RuntimeError("Called CUDAGraph::replay without a preceding successful capture.")
        for f, a, k, out in self.nodes:
            raw = f(*a, **k)
            for o, r in zip(flat([out], []), flat([raw], []), strict=False):
                if o is not r and not (
                    o.layout == torch.strided
                    and storage_key(o) == storage_key(r)
                    and o.storage_offset() == r.storage_offset()
                ):
                    REAL["copy_"](o, r)
        for c in S.counters:
            c.launches += 1
            c.graph_launches += 1
            c.graph_nodes += self.kernels
            c.device_time += self.c.device_time
            c.bytes += self.c.bytes
            c.flops += self.c.flops
            c.by_op["graph replay"] += 1

    def reset(self):
        self.nodes.clear()
        self.done = False

    def pool(self):
        return (0, 0)


class CountOps(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, mutated, rets, view, pointwise = info(func)
        out = func(*args, **(kwargs or {}))
        if not view and name not in FREE:
            count_op(func, name, flat(args, []), flat([out], []))
        return out


def _swap(a, m):
    if isinstance(a, Sim):
        return m.get(id(a), a.elem)
    if isinstance(a, (list, tuple)) and not hasattr(a, "_fields"):
        return type(a)(_swap(x, m) for x in a)
    return a


def _tape_grad(tape, outputs, inputs, seeds):
    """Gradients (CPU) by replaying the tape with autograd on the inner tensors as they are now."""
    with torch.enable_grad():
        m = {id(t): t.elem.detach().clone().requires_grad_() for t in inputs}
        leaves = [m[id(t)] for t in inputs]
        for func, args, kwargs, out, name in tape:
            ins = flat(args, flat(list(kwargs.values()), []))
            if name == "detach" or not any(id(t) in m for t in ins):
                continue
            k = {a: _swap(b, m) for a, b in kwargs.items()}
            if is_cuda(k.get("device")):
                k["device"] = torch.device("cpu")
            raw = func(*_swap(list(args), m), **k)
            for o, r in zip(flat([out], []), flat([raw], []), strict=False):
                m[id(o)] = r
        ends = [m[id(o)] for o in outputs]
        with CountOps():
            return torch.autograd.grad(ends, leaves, seeds)


def autograd_grad(outputs, inputs, grad_outputs=None, **k):
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
    if not any(isinstance(t, Sim) for t in outputs + inputs):
        return REAL["grad"](outputs, inputs, grad_outputs, **k)
    if grad_outputs is not None and isinstance(grad_outputs, torch.Tensor):
        grad_outputs = [grad_outputs]
    tape, S.tape = S.tape, None
    with _disable_current_modes():
        seeds = None if grad_outputs is None else [g.elem for g in grad_outputs]
        raw = _tape_grad(tape, outputs, inputs, seeds)
        out = tuple(Sim(r) for r in raw)
    if S.capture is not None:

        def again():
            with _disable_current_modes():
                active, S.counters = S.counters, []
                try:
                    return tuple(_tape_grad(tape, outputs, inputs, seeds))
                finally:
                    S.counters = active

        S.capture.nodes.append((again, (), {}, tuple(o.elem for o in out)))
        S.capture.keep.append((tape, outputs, inputs, grad_outputs, out))
    return out


@contextlib.contextmanager
def graph(g, pool=None, stream=None, capture_error_mode="global"):
    sync("synchronize before capture")
    g.capture_begin()
    try:
        yield
    finally:
        g.capture_end()
