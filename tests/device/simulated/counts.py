"""What the device was asked to do: kernels, bytes, copies and waits of the host, by the line of alfm that caused them.

Kernels of an operation, its bytes and its seconds on a card are estimates.
"""

from __future__ import annotations

import collections
import os
import sys
import time
import weakref
from importlib.util import find_spec

import torch

PACKAGE = os.path.join(os.path.dirname(find_spec("alfm").origin), "")
REAL = {}  # what was patched
BW, PEAK, PEAK_DOUBLE, MINK = 3.3e12, 60e12, 45e12, 2e-6  # bytes and operations a second, seconds of a kernel


class Counts:
    """What was done while `counting`."""

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
    """What the device remembers."""

    def __init__(self):
        self.counters = []  # active Counts
        self.problems = []  # (kind, message, site)
        self.capture = None  # Graph being captured
        self.live = 0
        self.peak = 0
        self.tokens = weakref.WeakValueDictionary()
        self.pending_d2h = []  # (cpu destination, real values) not yet arrived
        self.pending_h2d = []  # (pinned source, checksum, site)
        self.pinned = {}  # storage ptr -> nbytes
        self.atomic = collections.Counter()  # (op, place) of float sums in no promised order
        self.shuffle = False  # do such sums in a random order, as atomics do
        self.tape = None  # operations since requires_grad_(), for autograd.grad


S = State()


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
        REAL["copy_"](dst, values)
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


def _of_group_sums(ins, outs):
    x, rows, *others = ins
    read = rows.numel() * x.shape[1] * x.element_size()  # each problem reads its rows
    return read + sum(map(real_bytes, [rows, *others, *outs])), 0.0


def _of_masked_logits(ins, outs):
    x = ins[2]
    again = (outs[0].shape[-1] - 1) // 128  # further tiles of classes read all items anew
    return sum(map(real_bytes, [*ins, *outs])) + again * real_bytes(x), 2.0 * outs[0].numel() * x.shape[1]


def _of_joint_gains(ins, outs):
    p, posterior = ins[0], ins[2]
    mixtures = p.numel() / p.shape[3] * posterior.shape[1]
    return sum(map(real_bytes, [*ins, *outs])), mixtures * (2.0 * p.shape[3] + 16)  # a logarithm takes as long as 8 FMA


def _of_once_and(*written, products=None, each=0):
    """Each argument and result once, and those that are read and then written again; operations by an argument's."""

    def of(ins, outs):
        moved = sum(map(real_bytes, [*ins, *outs])) + sum(ins[i].nbytes for i in written)
        return moved, 0.0 if products is None else 2.0 * each(ins[products]) * ins[products].numel()

    return of


def _of_most_typical(ins, outs):
    x, edges = ins
    pairs = float(getattr(edges, "elem", edges).diff().square().sum())
    return real_bytes(x) + 2 * real_bytes(x[:, :1]), 3.0 * pairs * x.shape[1]  # a difference, its square, a sum


def _of_d2_propose(ins, outs):
    bound, _, sums = ins[:3]
    numbers = sums.shape[1] + 2 * bound.shape[1] // sums.shape[1] + 3  # each proposal: the sums, a group twice
    return 8 * numbers * outs[0].numel() + ins[4].nbytes, 0.0


def _of_d2_judge(ins, outs):
    rows, _, near, between, _, _, _, bound, _, sums, picks = ins[:11]
    numbers = 2 * bound.shape[1] // sums.shape[1] + 10  # each proposal: its group twice, and what is known of it
    return 8 * numbers * rows.numel() + near.nbytes + between.nbytes + 16 * picks.numel(), 0.0


DECLARED = {
    "d2_propose": _of_d2_propose,
    "d2_judge": _of_d2_judge,
    "most_typical": _of_most_typical,
    "group_sums": _of_group_sums,
    "joint_gains": _of_joint_gains,
    "masked_logits": _of_masked_logits,
    # of steps and changes one row is only written, all others are only read
    "pair_products": _of_once_and(2, 9, products=10, each=lambda steps: steps.shape[2] + 3),
    "pair_direction": _of_once_and(products=7, each=lambda steps: 2),  # the direction is read where it stays
    "residuals": _of_once_and(0),
    "line_slopes": _of_once_and(1),
}
"""Kernels of ours that go over an argument not just once, or multiply: arguments, results -> bytes moved, flops."""


def count_op(func, name, ins, outs):
    if not S.counters:
        return
    k = KERNELS.get(name, 1)
    nbytes = sum(real_bytes(t) for t in ins) + sum(real_bytes(t) for t in outs if not any(t is i for i in ins))
    fl = matmul_flops(name, ins) if name in MATMUL else 0.0
    peak = PEAK_DOUBLE if (outs or ins) and (outs or ins)[0].dtype == torch.float64 else PEAK
    if name in ("index_select", "index", "gather", "embedding") and len(ins) >= 1 and outs:
        nbytes = 2 * sum(real_bytes(t) for t in outs) + sum(real_bytes(t) for t in ins[1:])
    if name in ("index_copy_", "index_add_", "scatter_", "index_put_", "index_fill_", "scatter_add_"):
        nbytes = 3 * sum(real_bytes(t) for t in ins[1:])
    if name in DECLARED:
        nbytes, fl = DECLARED[name](ins, outs)
    tm = max(MINK * k, nbytes * max(1, k if name in ("sort", "topk") else 1) / BW, fl / peak)
    where = site()
    for c in S.counters:
        c.ops += 1
        c.launches += k
        c.flops += fl
        c.bytes += nbytes
        c.by_op[name] += k
        c.device_time += tm
        c.launch_sites[where] += k
        c.time_sites[where] += tm


class counting:
    """`with counting() as c: ...`"""

    def __enter__(self):
        self.c = Counts()
        S.counters.append(self.c)
        self.c.peak = S.live
        self.t = time.perf_counter()
        return self.c

    def __exit__(self, *e):
        S.counters.remove(self.c)
        self.c.seconds = time.perf_counter() - self.t
