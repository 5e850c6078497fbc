"""A simulated CUDA device: real numbers on the CPU behind tensors that say they are on cuda:0.

`install()` once per process, which is then of no other use: it patches torch. `Sim`, a wrapper subclass, holds a CPU
tensor; a TorchDispatchMode that is always on sees every operation, raises what CUDA would raise about devices and
types, counts kernels and the host's waits by the line of alfm that caused them, and computes on the CPU tensor.

    with counting() as c: ...  # c.launches, c.syncs, c.launch_sites, c.sync_sites, c.device_time

Copies are as late as CUDA's: memory that a copy in flight will write is filled with NaN until it is waited for, and
what a copy in flight reads must not change. `S.problems` tells of such things, `S.atomic` of float sums in no promised
order, which `S.shuffle` does in a random one. Costs (kernels of an operation, bytes, seconds of a card) are estimates.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import sys
import threading
import time
import weakref
from importlib.util import find_spec

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

PACKAGE = os.path.join(os.path.dirname(find_spec("alfm").origin), "")
aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
TOTAL = int(os.environ.get("SIM_MEMORY", 79 << 30))
_REAL = {}


class Counts:
    def __init__(self):
        self.syncs = 0  # host waits for the device
        self.launches = 0  # estimated kernels (incl. memcpy)
        self.ops = 0  # dispatched device operations that do work
        self.flops = 0.0  # matmul flops
        self.bytes = 0.0  # bytes read + written by device ops
        self.h2d = 0
        self.d2h = 0
        self.h2d_bytes = 0
        self.d2h_bytes = 0
        self.device_time = 0.0  # sum over kernels of max(1.5 us, bytes / bw, flops / peak)
        self.by_op = collections.Counter()
        self.sync_sites = collections.Counter()
        self.launch_sites = collections.Counter()
        self.time_sites = collections.Counter()
        self.graph_launches = 0
        self.graph_nodes = 0
        self.peak = 0

    def __repr__(self):
        return (
            f"syncs={self.syncs} launches={self.launches} ops={self.ops} gflops={self.flops / 1e9:.3g} "
            f"GB={self.bytes / 1e9:.3g} h2d={self.h2d} d2h={self.d2h} graph replays={self.graph_launches}"
        )


class State:
    def __init__(self):
        self.counters = []  # active Counts
        self.sites = True
        self.problems = []  # (kind, message, site)
        self.capture = None  # _Graph being captured
        self.live = 0
        self.peak = 0
        self.tokens = weakref.WeakValueDictionary()
        self.pending_d2h = []  # (cpu destination, real values) not yet arrived
        self.pending_h2d = []  # (pinned source, checksum, site)
        self.pinned = {}  # storage ptr -> nbytes
        self.async_check = True
        self.log = None  # list of op names if set
        self.atomic = collections.Counter()  # (op, dtype, site) of float sums in no promised order
        self.shuffle = False  # do such sums in a random order, as atomics do
        self.tape = None  # operations since requires_grad_(), for autograd.grad


S = State()
BW, PEAK, MINK = 3.3e12, 60e12, 2e-6


def caller():
    """The frame of the package that is at work, and its file; (None, "?") outside of it."""
    f = sys._getframe(1)
    while f is not None:
        if f.f_code.co_filename.startswith(PACKAGE):
            return f, f.f_code.co_filename[len(PACKAGE) :]
        f = f.f_back
    return None, "?"


def site():
    """File and line of the package that is at work."""
    f, name = caller()
    return f"{name}:{f.f_lineno}" if f else name


def place():
    """File and function of the package that is at work."""
    f, name = caller()
    return f"{name} {f.f_code.co_name}" if f else name


def problem(kind, message):
    S.problems.append((kind, message, site()))


class _Token:
    __slots__ = ("n", "__weakref__")

    def __init__(self, n):
        self.n = n
        S.live += n
        if S.live > S.peak:
            S.peak = S.live
        for c in S.counters:
            c.peak = max(c.peak, S.live)

    def __del__(self):
        if S is not None:
            S.live -= self.n


class Sim(torch.Tensor):
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, elem):
        assert type(elem) is not Sim
        if elem.layout == torch.strided:
            r = torch.Tensor._make_wrapper_subclass(
                cls,
                elem.size(),
                strides=elem.stride(),
                storage_offset=elem.storage_offset(),
                dtype=elem.dtype,
                layout=elem.layout,
                device=CUDA,
                requires_grad=False,
            )
        else:
            r = torch.Tensor._make_wrapper_subclass(cls, elem.size(), dtype=elem.dtype, device=CUDA)
        r.elem = elem
        if elem.layout == torch.strided:
            st = elem.untyped_storage()
            key = st._cdata
            tok = S.tokens.get(key)
            if tok is None:
                tok = _Token(st.nbytes())
                S.tokens[key] = tok
            r.token = tok
        return r

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    def __tensor_flatten__(self):
        return ["elem"], None

    @staticmethod
    def __tensor_unflatten__(inner, meta, size, stride):
        return Sim(inner["elem"])

    def numpy(self, *a, **k):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it to host memory first."
        )

    def __array__(self, *a, **k):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it to host memory first."
        )

    def pin_memory(self, *a, **k):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")

    def is_pinned(self, *a):
        return False

    def data_ptr(self):
        problem("data_ptr", "data_ptr of a device tensor")
        return self.elem.data_ptr()

    def untyped_storage(self):
        problem("storage", "storage of a device tensor")
        return self.elem.untyped_storage()

    def tolist(self):
        sync("tolist")
        note_copy(self.elem.nbytes, False)
        return self.elem.tolist()

    def requires_grad_(self, on=True):
        """torch's engine refuses a machine without CUDA: what follows is taped and differentiated on CPU."""
        if on and S.tape is None:
            S.tape = []
        return self

    def __dlpack__(self, *a, **k):
        raise BufferError("simulated")

    def __repr__(self, **k):
        return f"Sim({self.elem!r}, device='cuda:0')"

    @property
    def layout(self):
        return self.elem.layout

    def __reduce_ex__(self, p):
        return (_rebuild, (self.elem,))

    def __deepcopy__(self, memo):
        return Sim(self.elem.clone())


def _rebuild(e):
    return Sim(e)


# ---------------------------------------------------------------------------------------------------------- counting


def sync(why):
    if S.capture is not None:
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({why})")
    flush()
    if S.counters:
        where = f"{site()} {why}"
        for c in S.counters:
            c.syncs += 1
            c.sync_sites[where] += 1


def flush():
    """All that was enqueued is done."""
    for dst, values in S.pending_d2h:
        _REAL["copy_"](dst, values)
    S.pending_d2h.clear()
    for src, check, where in S.pending_h2d:
        if src.numel() and not torch.equal(src.view(torch.uint8).flatten() if src.is_contiguous() else src, check):
            S.problems.append(
                ("race", f"pinned memory of {where} was written before its copy to the device was waited for", where)
            )
    S.pending_h2d.clear()


def note_copy(nbytes, to_device):
    for c in S.counters:
        if to_device:
            c.h2d += 1
            c.h2d_bytes += nbytes
        else:
            c.d2h += 1
            c.d2h_bytes += nbytes
        c.launches += 1
        c.device_time += 2e-6 + nbytes / 25e9


KERNELS = {  # estimated kernels of an aten op on CUDA (default 1)
    "sort": 4,
    "argsort": 4,
    "topk": 8,
    "nonzero": 3,
    "_unique2": 8,
    "unique_dim": 12,
    "unique_consecutive": 5,
    "bincount": 5,
    "cumsum": 2,
    "linalg_eigh": 300,
    "_linalg_eigh": 300,
    "linalg_cholesky_ex": 8,
    "linalg_qr": 60,
    "_linalg_svd": 400,
    "_cdist_forward": 1,
    "_euclidean_dist": 12,
    "masked_select": 4,
    "baddbmm": 2,
    "_linalg_check_errors": 2,
    "kthvalue": 2,
    "median": 4,
    "isfinite": 2,
    "cholesky_solve": 4,
    "linalg_solve_triangular": 4,
    "linalg_inv_ex": 12,
    "cholesky_inverse": 6,
    "_linalg_solve_ex": 10,
    "linalg_lu_factor_ex": 8,
    "linalg_ldl_factor_ex": 8,
    "searchsorted": 1,
    "logsumexp": 4,
    "repeat_interleave": 4,
    "std": 1,
    "var": 1,
    "equal": 2,
    "linalg_vector_norm": 1,
    "index_put": 2,
}
FREE = {
    "empty",
    "empty_like",
    "new_empty",
    "empty_strided",
    "detach",
    "alias",
    "lift_fresh",
    "lift",
    "_unsafe_view",
    "new_empty_strided",
    "sym_size",
    "sym_stride",
    "is_same_size",
    "resize_",
    "squeeze_",
    "unsqueeze_",
    "t_",
    "transpose_",
    "_reshape_alias",
    "_has_same_storage_numel",
}
SYNCS = {
    "_local_scalar_dense": 1,
    "nonzero": 1,
    "masked_select": 1,
    "_unique2": 1,
    "unique_dim": 1,
    "unique_consecutive": 1,
    "bincount": 2,
    "equal": 1,
    "_linalg_check_errors": 1,
    "repeat_interleave": 1,
    "_linalg_eigh": 1,
    "_linalg_svd": 1,
    "linalg_lstsq": 1,
    "is_nonzero": 0,
    "argwhere": 1,
    "_assert_async": 0,
    "histc": 0,
}
MATMUL = {"mm", "addmm", "bmm", "baddbmm", "mv", "dot", "addmv", "addmm_", "baddbmm_", "vdot", "addbmm", "addr"}
META_ = {"squeeze_", "unsqueeze_", "transpose_", "t_", "as_strided_", "swapaxes_"}
POINT0 = {
    "index_put_",
    "index_put",
    "_index_put_impl_",
    "fill_",
    "fill",
    "masked_fill",
    "masked_fill_",
    "copy_",
    "where",
    "_to_copy",
    "clamp",
    "index_fill_",
    "index_fill",
}


def flat(args, out):
    for a in args:
        if isinstance(a, torch.Tensor):
            out.append(a)
        elif isinstance(a, (list, tuple)):
            flat(a, out)
    return out


def matmul_flops(name, ts):
    try:
        if name in ("mm",):
            a, b = ts[0], ts[1]
            return 2.0 * a.shape[0] * a.shape[1] * b.shape[1]
        if name in ("addmm", "addmm_"):
            a, b = ts[1], ts[2]
            if a.layout != torch.strided:
                return 2.0 * a._nnz() * b.shape[1]
            return 2.0 * a.shape[0] * a.shape[1] * b.shape[1]
        if name == "bmm":
            a, b = ts[0], ts[1]
            return 2.0 * a.numel() * b.shape[2]
        if name in ("baddbmm", "baddbmm_"):
            a, b = ts[1], ts[2]
            return 2.0 * a.numel() * b.shape[2]
        if name in ("mv",):
            return 2.0 * ts[0].numel()
        if name in ("addmv",):
            return 2.0 * ts[1].numel()
        if name in ("dot", "vdot"):
            return 2.0 * ts[0].numel()
        if name == "convolution":
            return 2.0 * ts[1].numel() * 100
    except Exception:
        pass
    return 0.0


def real_bytes(t):
    """Bytes that a strided tensor really covers (expanded dimensions count once)."""
    if t.layout != torch.strided:
        return t._nnz() * (t.element_size() + 8)
    n = 1
    for s, st in zip(t.shape, t.stride(), strict=False):
        if st != 0:
            n *= s
    return n * t.element_size()


def count_op(func, name, ins, outs):
    if not S.counters:
        return
    k = KERNELS.get(name, 1)
    nbytes = sum(real_bytes(t) for t in ins) + sum(real_bytes(t) for t in outs if not any(t is i for i in ins))
    fl = matmul_flops(name, ins) if name in MATMUL else 0.0
    peak = (
        PEAK
        if not ins or ins[0].dtype != torch.float64
        else 60e12
        if False
        else (PEAK if ins[0].dtype != torch.float64 else 45e12)
    )
    if name in ("index_select", "index", "gather", "embedding") and len(ins) >= 1 and outs:
        nbytes = 2 * sum(real_bytes(t) for t in outs) + sum(real_bytes(t) for t in ins[1:])
    if name in ("index_copy_", "index_add_", "scatter_", "index_put_", "index_fill_", "scatter_add_"):
        nbytes = 3 * sum(real_bytes(t) for t in ins[1:]) + 0
    tm = max(MINK * k, nbytes * max(1, k if name in ("sort", "topk") else 1) / BW, fl / peak)
    where = site() if S.sites else ""
    for c in S.counters:
        c.ops += 1
        c.launches += k
        c.flops += fl
        c.bytes += nbytes
        c.by_op[name] += k
        c.device_time += tm
        if S.sites:
            c.launch_sites[where] += k
            c.time_sites[where] += tm


class counting:
    def __enter__(self):
        self.c = Counts()
        S.counters.append(self.c)
        self.c.peak = S.live
        self.t = time.perf_counter()
        return self.c

    def __exit__(self, *e):
        S.counters.remove(self.c)
        self.c.seconds = time.perf_counter() - self.t


# --------------------------------------------------------------------------------------------------------- dispatch


@functools.lru_cache(None)
def info(func):
    schema = func._schema
    name = func.overloadpacket.__name__
    mutated = []  # positions / names of arguments that are written
    for i, a in enumerate(schema.arguments):
        if a.alias_info is not None and a.alias_info.is_write:
            mutated.append((i, a.name, a.kwarg_only))
    rets = []
    for r in schema.returns:
        rets.append(r.alias_info is not None and r.alias_info.is_write)
    view = any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)
    return name, mutated, rets, view, torch.Tag.pointwise in func.tags


def un(a):
    if isinstance(a, Sim):
        return a.elem
    if isinstance(a, (list, tuple)):
        return type(a)(un(x) for x in a) if not hasattr(a, "_fields") else a
    return a


def wrap(o):
    if isinstance(o, torch.Tensor):
        return o if isinstance(o, Sim) else Sim(o)
    if isinstance(o, (list, tuple)):
        return type(o)(wrap(x) for x in o) if not hasattr(o, "_fields") else type(o)(*[wrap(x) for x in o])
    return o


def is_cuda(d):
    return d is not None and torch.device(d).type == "cuda"


def mixed(func, a, b):
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
        f"(when calling {func})"
    )


def run(func, args, kwargs):
    name, mutated, rets, view, pointwise = info(func)
    ts = flat(args, [])
    if kwargs:
        flat(kwargs.values(), ts)
    sims = [t for t in ts if isinstance(t, Sim)]
    dev = kwargs.get("device")
    if not sims and not is_cuda(dev):
        if name == "lift_fresh":
            return func(*args, **kwargs)
        if kwargs.get("pin_memory"):
            kwargs = {**kwargs, "pin_memory": False}
            out = func(*args, **kwargs)
            mark_pinned(out)
            return out
        check_pending_read(ts)
        return func(*args, **kwargs)
    if not sims and is_cuda(dev):
        if name == "_to_copy":
            return host_to_device(func, args, kwargs)
        kwargs = {**kwargs, "device": torch.device("cpu")}
        kwargs.pop("pin_memory", None)
        if name in ("scalar_tensor",) or not ts:
            out = wrap(func(*args, **kwargs))
        else:  # new_zeros(cpu, device=cuda) ...
            out = wrap(func(*un(args), **un_kw(kwargs)))
        if name not in FREE:
            count_op(func, name, [], [out.elem] if isinstance(out, Sim) else [])
        record(func, args, kwargs, out, name)
        return out
    # at least one device tensor
    if name == "_to_copy":
        if dev is not None and not is_cuda(dev):
            return device_to_host(func, args, kwargs)
        kwargs = {**kwargs}
        kwargs.pop("device", None)
        kwargs.pop("non_blocking", None)
        kwargs.pop("pin_memory", None)
        out = wrap(func(*un(args), **kwargs))
        count_op(func, name, [args[0].elem], [out.elem])
        record(func, args, kwargs, out, name)
        return out
    if name == "copy_":
        return copy_(func, args, kwargs)
    if name == "_local_scalar_dense":
        sync("item")
        note_copy(8, False)
        return func(*un(args))
    if dev is not None and not is_cuda(dev):  # zeros_like(cuda, device="cpu"), new_zeros(device=cpu)
        return func(*un(args), **un_kw(kwargs))
    kwargs = un_kw({k: v for k, v in kwargs.items()}, True)
    # devices
    cpus = [t for t in ts if not isinstance(t, Sim)]
    if cpus:
        check_devices(func, name, args, kwargs, sims, cpus, pointwise)
    check_types(name, sims)
    hidden_syncs(name, args, cpus)
    if name in ATOMIC:
        args = atomics(name, args, kwargs)
    if S.capture is not None and mutated:
        S.capture.remember(mutated, args, kwargs)
    raw = func(*un(args), **un_kw(kwargs))
    outs = flat([raw], [])
    if not view and name not in FREE:
        count_op(func, name, [un(t) for t in ts], outs)
    if S.log is not None:
        S.log.append(name)
    out = written(func, mutated, args, kwargs, raw, rets) if any(rets) else wrap(raw)
    record(func, args, kwargs, out, name, raw=raw, view=view)
    return out


def un_kw(kwargs, only_device=False):
    if only_device:
        if is_cuda(kwargs.get("device")):
            kwargs = {**kwargs, "device": torch.device("cpu")}
        kwargs.pop("pin_memory", None)
        return kwargs
    return {k: un(v) for k, v in kwargs.items()}


def written(func, mutated, args, kwargs, raw, rets):
    found = []
    for i, n, kw in mutated:
        t = kwargs.get(n) if kw or i >= len(args) else args[i]
        found.append(t)
    many = raw if isinstance(raw, (tuple, list)) else (raw,)
    result = []
    fi = iter(found)
    for o, w in zip(many, rets, strict=False):
        if w:
            t = next(fi)
            if isinstance(t, Sim) and tuple(t.shape) != tuple(t.elem.shape) and info(func)[0] in META_:
                with torch._C._DisableTorchDispatch():  # sizes and strides of the shell only
                    aten.as_strided_(t, list(t.elem.shape), list(t.elem.stride()), t.elem.storage_offset())
            if isinstance(t, Sim) and tuple(t.shape) != tuple(t.elem.shape):
                problem("resize", f"{func} resized a device tensor from {tuple(t.shape)} to {tuple(t.elem.shape)}")
                raise RuntimeError(f"simdevice: {func} resized its output (sim cannot follow)")
            result.append(t)
        else:
            result.append(wrap(o))
    return (
        result[0]
        if not isinstance(raw, (tuple, list))
        else type(raw)(result)
        if isinstance(raw, list)
        else tuple(result)
    )


def check_devices(func, name, args, kwargs, sims, cpus, pointwise):
    if name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
        self = args[0]
        if not isinstance(self, Sim):
            if any(isinstance(i, Sim) for i in args[1] if i is not None):
                raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
            mixed(func, 0, 0)
        for i in args[1]:
            if i is not None and not isinstance(i, Sim):
                sync("host index")
                note_copy(i.nbytes, True)
                problem("host index", f"{name} with an index on the host")
        if name != "index" and name != "_unsafe_index" and not isinstance(args[2], Sim):
            if args[2].dim() != 0:
                mixed(func, 0, 0)
            mask = [i for i in args[1] if i is not None]
            if not (len(mask) == 1 and mask[0].dtype == torch.bool):
                sync("number as value of an indexed assignment")
                note_copy(8, True)
        return
    if name in ("masked_fill", "masked_fill_"):
        if not isinstance(args[1], Sim) or not isinstance(args[0], Sim):
            mixed(func, 0, 0)
        return
    if name in ("fill_", "fill", "index_fill_", "index_fill"):
        return
    if name == "where":
        for a in args:
            if not isinstance(a, Sim) and isinstance(a, torch.Tensor):
                if a.dim() != 0:
                    mixed(func, 0, 0)
                sync("where with a number on the host")
                note_copy(8, True)
        return
    if pointwise:
        zero = [t for t in cpus if t.dim() == 0]
        if len(zero) == len(cpus) and len(zero) <= 1:
            return
        mixed(func, 0, 0)
    if name in ("_sparse_csr_tensor_unsafe",):
        pass
    mixed(func, 0, 0)


FLOATS = {torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.complex64, torch.complex128}


def check_types(name, sims):
    if name in MATMUL:
        for t in sims:
            if t.dtype not in FLOATS:
                raise RuntimeError(f'"{name}_cuda" not implemented for {t.dtype}')
    if name in (
        "linalg_eigh",
        "_linalg_eigh",
        "linalg_cholesky_ex",
        "_linalg_svd",
        "_cdist_forward",
        "linalg_solve_triangular",
    ) and sims[0].dtype in (torch.float16, torch.bfloat16):
        raise RuntimeError(f"{name} not implemented for {sims[0].dtype} on CUDA")
    if (
        name in ("argmax", "argmin", "topk", "max", "min", "cummax")
        and sims[0].dtype == torch.bool
        and name in ("argmax", "argmin", "topk")
    ):
        raise RuntimeError(f'"{name}_cuda" not implemented for Bool')
    if name in ("histogram", "_histogramdd_bin_edges"):
        raise NotImplementedError(f"aten::{name} is not available for the CUDA backend")


ATOMIC = {
    "index_add_",
    "index_add",
    "scatter_add_",
    "scatter_add",
    "scatter_reduce",
    "scatter_reduce_",
    "put_",
    "cumsum",
    "cumsum_",
}


def atomics(name, args, kwargs):
    """Float sums whose order CUDA does not promise: noted, and with S.shuffle done in a random order.

    `index_put_` with accumulate sorts its indices first on CUDA and `cumsum` along rows of a matrix has one thread
    block a row: both have an order. A single long row is scanned by blocks that take what their neighbours have so far.
    """
    x = args[0]
    if not (isinstance(x, Sim) and x.dtype in FLOATS):
        return args
    if name in ("cumsum", "cumsum_"):
        if x.numel() == x.shape[args[1]] and x.numel() > 1:
            S.atomic[(name, place())] += 1
        return args
    S.atomic[(name, place())] += 1
    if S.shuffle and name.startswith(("index_add", "scatter_add")):
        dim, index, src = args[1], args[2], args[3]
        along = dim if index.dim() > 1 else 0
        order = torch.from_numpy(np.random.permutation(index.shape[along]))
        index = Sim(index.elem.index_select(along, order))
        src = Sim(src.elem.index_select(dim, order)) if isinstance(src, Sim) else src
        return (x, dim, index, src, *args[4:])
    return args


def hidden_syncs(name, args, cpus):
    if name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
        masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
        if masks:
            fill = name != "index" and len(args[1]) == 1 and len(args) > 2 and not isinstance(args[2], Sim)
            if not fill:
                sync("mask as index")
                for c in S.counters:
                    c.launches += 3 * len(masks)
        return
    if name in ("masked_fill", "masked_fill_") and isinstance(args[2], Sim):
        sync("masked_fill with a number on the device")  # value.item()
        return
    if name == "repeat_interleave" and len(args) > 1 and args[1] is not None:
        return
    for _ in range(SYNCS.get(name, 0)):
        sync(name)


# ----------------------------------------------------------------------------------------------------------- copies


def storage_key(t):
    return _REAL["untyped_storage"](t).data_ptr()


def mark_pinned(t):
    S.pinned[storage_key(t)] = _REAL["untyped_storage"](t).nbytes()
    weakref.finalize(_REAL["untyped_storage"](t), lambda: None)


def pinned(t):
    if t.layout != torch.strided:
        return False
    k = storage_key(t)
    return S.pinned.get(k) == _REAL["untyped_storage"](t).nbytes()


def check_pending_read(ts):
    """A host tensor read before its copy from the device has arrived holds rubbish (poisoned)."""
    return


def host_to_device(func, args, kwargs):
    kwargs = {**kwargs}
    kwargs.pop("device")
    nb = kwargs.pop("non_blocking", False)
    kwargs.pop("pin_memory", None)
    src = args[0]
    raw = func(src, **kwargs)
    if raw is src or (raw.layout == torch.strided and storage_key(raw) == storage_key(src)):
        raw = raw.clone()
    out = wrap(raw)
    if S.capture is not None:
        problem("capture", "copy from host memory while a graph is captured")
        if not nb:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing (copy from host)")
    note_copy(src.nbytes if src.layout == torch.strided else 0, True)
    if nb and src.layout == torch.strided and pinned(src):
        if S.async_check and src.is_contiguous():
            S.pending_h2d.append((src, src.view(torch.uint8).flatten().clone() if src.dim() else src.clone(), site()))
            if len(S.pending_h2d) > 64:
                S.pending_h2d.pop(0)
    elif not nb:
        sync("copy to the device")
    else:
        for c in S.counters:
            c.by_op["pageable non_blocking copy to the device"] += 1
    return out


def device_to_host(func, args, kwargs):
    kwargs = {**kwargs}
    nb = kwargs.pop("non_blocking", False)
    kwargs.pop("pin_memory", None)
    kwargs["device"] = torch.device("cpu")
    src = un(args[0])
    raw = func(src, **kwargs)
    if raw is src or (raw.layout == torch.strided and storage_key(raw) == storage_key(src)):
        raw = raw.clone()
    if S.capture is not None:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing (copy to host)")
    note_copy(src.nbytes if src.layout == torch.strided else 0, False)
    if nb:
        poison(raw, raw.clone())
        mark_pinned(raw)
    else:
        sync("copy to the host")
    return raw


def poison(dst, values):
    S.pending_d2h.append((dst, values))
    if dst.is_floating_point():
        dst.fill_(float("nan"))
    else:
        dst.zero_()


def copy_(func, args, kwargs):
    dst, src = args[0], args[1]
    nb = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
    if isinstance(dst, Sim) and isinstance(src, Sim):
        if S.capture is not None:
            S.capture.remember([(0, "self", False)], args, {})
        func(dst.elem, src.elem)
        count_op(func, "copy_", [src.elem], [dst.elem])
        record(func, args, {}, dst, "copy_")
        return dst
    if S.capture is not None and not (isinstance(dst, Sim) and isinstance(src, Sim)):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing (copy_)")
    if isinstance(dst, Sim):
        func(dst.elem, src)
        note_copy(src.nbytes, True)
        if not (nb and pinned(src)) and not nb:
            sync("copy_ to the device")
        return dst
    note_copy(src.elem.nbytes, False)
    if nb and pinned(dst):
        values = dst.clone()
        func(values, src.elem)
        poison(dst, values)
    else:
        func(dst, src.elem)
        sync("copy_ to the host")
    return dst


# ------------------------------------------------------------------------------------------------------- CUDA graphs


class _Graph:
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
            if isinstance(t, Sim):
                self.before.append((t.elem, t.elem.clone()))

    def capture_begin(self, *a, **k):
        if S.capture is not None:
            raise RuntimeError("nested capture")
        S.capture = self
        self.count = counting()
        self.c = self.count.__enter__()

    def capture_end(self):
        S.capture = None
        for t, b in reversed(self.before):
            _REAL["copy_"](t, b)
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
                    _REAL["copy_"](o, r)
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


class _CountOps(TorchDispatchMode):
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
        with _CountOps():
            return torch.autograd.grad(ends, leaves, seeds)


def autograd_grad(outputs, inputs, grad_outputs=None, **k):
    from torch.utils._python_dispatch import _disable_current_modes

    outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
    if not any(isinstance(t, Sim) for t in outputs + inputs):
        return _REAL["grad"](outputs, inputs, grad_outputs, **k)
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


def record(func, args, kwargs, out, name, raw=None, view=False):
    if S.tape is not None:
        S.tape.append((func, args, kwargs, out, name))
    g = S.capture
    if g is None or view:
        return
    if name in ("empty", "empty_like", "new_empty", "empty_strided"):
        g.keep.append(out)
        return
    uk = {k: un(v) for k, v in kwargs.items()}
    if is_cuda(uk.get("device")):
        uk["device"] = torch.device("cpu")
    g.nodes.append((func, un(args), uk, un(out)))
    g.keep.append(out)


@contextlib.contextmanager
def graph(g, pool=None, stream=None, capture_error_mode="global"):
    sync("synchronize before capture")
    g.capture_begin()
    try:
        yield
    finally:
        g.capture_end()


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
                _REAL["copy_"](item[0], item[1])
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


class Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


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


_installed = None


def install():
    global _installed
    if _installed:
        return _installed
    import torch.cuda as cu

    _REAL["copy_"] = torch.Tensor.copy_
    _REAL["untyped_storage"] = torch.Tensor.untyped_storage
    try:
        torch._C._ensureCUDADeviceGuardSet()
    except Exception as e:
        print("no guard", e)
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
    cu.Stream, cu.Event, cu.CUDAGraph, cu.graph = Stream, Event, _Graph, graph

    @contextlib.contextmanager
    def stream(s):
        yield s

    cu.stream = stream

    @contextlib.contextmanager
    def device(d):
        yield

    cu.device = device
    cu.manual_seed = cu.manual_seed_all = lambda s: None
    _REAL["grad"] = torch.autograd.grad
    torch.autograd.grad = autograd_grad

    def pin_memory(self, *a, **k):
        if isinstance(self, Sim):
            return Sim.pin_memory(self)
        out = self.clone()
        mark_pinned(out)
        return out

    torch.Tensor.pin_memory = pin_memory
    torch.Tensor.is_pinned = lambda self, *a: (not isinstance(self, Sim)) and pinned(self)
    try:
        torch.accelerator.is_available = lambda: True
        torch.accelerator.current_accelerator = lambda check_available=False: torch.device("cuda")
        torch.accelerator.set_device_index = lambda *a: None
        torch.accelerator.current_device_index = lambda: 0
    except Exception:
        pass
    torch.inference_mode = lambda mode=True: (
        torch.no_grad() if mode else contextlib.nullcontext()
    )  # wrappers cannot be inference tensors

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
    mode = Mode()
    mode.__enter__()
    _installed = sys.modules[__name__]
    return _installed
