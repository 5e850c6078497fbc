"""Tensors that say they are on cuda:0, and what happens to an operation on them: checks, costs, the CPU's answer."""

from __future__ import annotations

import functools
import weakref

import numpy as np
import torch
from device.simulated.counts import FREE, MATMUL, REAL, SYNCS, S, count_op, flat, note_copy, place, problem, site, sync
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
META_ = {"squeeze_", "unsqueeze_", "transpose_", "t_", "as_strided_", "swapaxes_"}


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
    if S.shuffle and S.capture is None and name.startswith(("index_add", "scatter_add")):  # a copy's would be replayed
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


def storage_key(t):
    return REAL["untyped_storage"](t).data_ptr()


def mark_pinned(t):
    S.pinned[storage_key(t)] = REAL["untyped_storage"](t).nbytes()
    weakref.finalize(REAL["untyped_storage"](t), lambda: None)


def pinned(t):
    if t.layout != torch.strided:
        return False
    k = storage_key(t)
    return S.pinned.get(k) == REAL["untyped_storage"](t).nbytes()


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
        if src.is_contiguous():
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


class Mode(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls):
        return False  # nothing is compiled here, and torch's compiler takes seconds to import

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})
