"""Operations that NumPy or SciPy does several times faster than torch, where they can read a tensor in place.

Elsewhere torch's own, with the same result: to the last bit where it is exact, else up to rounding.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alfm import devices

_EXPONENT = {torch.float16: (np.uint16, np.uint16(0x7C00)), torch.float32: (np.uint32, np.uint32(0x7F800000))}


def _on_host(x: Tensor) -> np.ndarray | None:
    """x as an array on the same memory, or None where NumPy cannot read it."""
    return x.numpy() if devices.of(x).numpy_reads else None


def log(p: Tensor, out: Tensor) -> Tensor:
    """Natural logarithm, into `out`."""
    host = _on_host(p)
    if host is None:
        return torch.log(p, out=out)
    np.log(host, out=out.numpy())
    return out


def plogp(p: Tensor) -> Tensor:
    """p log p with 0 log 0 = 0."""
    positive = p.clamp_min(torch.finfo(p.dtype).tiny)
    return log(positive, positive).mul_(p)


def argmax_rows(x: Tensor) -> Tensor:
    """Column of each row's maximum, the first of equals: x (m, n) -> int64 (m,)."""
    host = _on_host(x)
    return x.argmax(1) if host is None else torch.from_numpy(host.argmax(1))


def argmax_last(x: Tensor) -> Tensor:
    """Place of the maximum along the last dimension, the first of equals: (..., n) -> int64 (...).

    Laid out anew where neighbours there are far apart in memory, as in logits by classes: that costs less.
    """
    host = _on_host(x)
    return x.argmax(-1) if host is None else torch.from_numpy(np.ascontiguousarray(host).argmax(-1))


def below(x: Tensor, limits: Tensor) -> Tensor:
    """x (.., m, n) < limits (.., m), bool (.., m, n)."""
    host = _on_host(x)
    return x < limits[..., None] if host is None else torch.from_numpy(host < limits.numpy()[..., None])


def at_most(x: Tensor, k: int) -> Tensor:
    """Which values of each row are at most its k-th smallest: x (m, n) -> bool (m, n), k or, with ties, more a row."""
    host = _on_host(x)
    if host is None:
        return x <= torch.topk(x, k, dim=1, largest=False).values.amax(1, keepdim=True)
    return torch.from_numpy(host <= np.partition(host, k - 1, axis=1)[:, k - 1 : k])


def smallest(x: Tensor, k: int) -> Tensor:
    """The k smallest values of each row, ascending: x (m, n) -> (m, k)."""
    host = _on_host(x)
    if host is None:
        return torch.topk(x, k, dim=1, largest=False).values
    return torch.from_numpy(np.sort(np.partition(host, k - 1, axis=1)[:, :k], axis=1))


def finite_rows(x: Tensor) -> Tensor:
    """Which rows hold neither NaN nor Inf: (m, n) -> bool (m,). Exponents are read as whole numbers."""
    host = _on_host(x)
    if host is None or x.dtype not in _EXPONENT:
        return torch.isfinite(x).all(1)
    numbers, ones = _EXPONENT[x.dtype]
    return torch.from_numpy(~((host.view(numbers) & ones) == ones).any(1))


def places(mask: Tensor) -> Tensor:
    """Where a mask is True, ascending places in it as one row: int64 (m,)."""
    host = _on_host(mask)
    return mask.flatten().nonzero()[:, 0] if host is None else torch.from_numpy(np.flatnonzero(host))


def holds_any(mask: Tensor) -> bool:
    """Whether a mask holds a True; an accelerator is waited for."""
    host = _on_host(mask)
    return bool(mask.any()) if host is None else bool(host.any())


def surely_empty(mask: Tensor) -> bool:
    """Whether a mask is seen to hold no True. An accelerator would be waited for, so it is not asked: False."""
    host = _on_host(mask)
    return host is not None and not bool(host.any())


def any_column(mask: Tensor) -> Tensor:
    """Which columns hold a True: (.., m, n) -> bool (.., n)."""
    host = _on_host(mask)
    return mask.any(-2) if host is None else torch.from_numpy(host.any(-2))


def count_rows(mask: Tensor) -> Tensor:
    """How many are True in each row: (.., m, n) -> int64 (.., m)."""
    host = _on_host(mask)
    if host is None:
        return mask.sum(-1)
    rows = host.reshape(-1, host.shape[-1])
    return torch.tensor([np.count_nonzero(row) for row in rows], dtype=torch.int64).view(mask.shape[:-1])


def take(x: Tensor, rows: Tensor) -> Tensor:
    """x[rows], int64 (m,); a view where they follow one another, if that can be seen without a wait."""
    host = _on_host(rows)
    if host is not None and len(host) and bool((np.diff(host) == 1).all()):
        return x[int(host[0]) : int(host[-1]) + 1]
    return x[rows]


def add_to_groups(total: Tensor, group: Tensor, weight: Tensor, x: Tensor, rows: Tensor) -> None:
    """total[group[i]] += weight[i] x[rows[i]]: total (k, D) float64; group, weight, rows (m,); x (n, D).

    The order of the sums is fixed: products elsewhere, since atomic additions come in any order.
    """
    host = _on_host(x)
    if host is None:
        for start in range(0, len(rows), 8192):
            part = slice(start, start + 8192)
            share = torch.zeros(len(total), len(rows[part]), dtype=x.dtype, device=x.device)
            share[group[part], torch.arange(share.shape[1], device=x.device)] = weight[part]
            total += share @ x[rows[part]]
        return
    from scipy.sparse import csr_array

    entries = (weight.numpy(), (group.numpy(), rows.numpy()))
    total += torch.from_numpy(csr_array(entries, shape=(len(total), len(x))) @ host)


def add_rows(total: Tensor, group: Tensor, x: Tensor) -> None:
    """total[group[i]] += x[i]: total (k, ..), group int64 (m,), x (m, ..) of total's type. The order of the sums is
    fixed, as in `add_to_groups`."""
    if devices.of(x).numpy_reads:
        total.index_add_(0, group, x)
        return
    groups = torch.arange(len(total), device=x.device)[:, None]
    size = max(256, (1 << 23) // len(total))
    for start in range(0, len(x), size):
        part = slice(start, start + size)
        total += (groups == group[part]).to(x.dtype) @ x[part]


def running_sums(x: Tensor) -> Tensor:
    """Sums of what stands up to each place along the last dimension, in a fixed order: (.., n) -> (.., n).

    An accelerator scans a single long row by blocks that take what their neighbours have so far; many short rows are
    scanned by a block each, and so are their totals, twice so that they are no single row.
    """
    if devices.of(x).numpy_reads:
        return x.cumsum(-1)
    n, width = x.shape[-1], 32
    while width * width < n:
        width *= 2
    rows = torch.nn.functional.pad(x, (0, max(2 * width, n + -n % width) - n)).unflatten(-1, (-1, width)).cumsum(-1)
    before = rows[..., -1].expand(2, *rows.shape[:-1]).cumsum(-1)[0]
    rows[..., 1:, :] += before[..., :-1, None]
    return rows.flatten(-2)[..., :n]


def means_of_groups(x: Tensor, group: Tensor, count: int) -> Tensor:
    """Means of rows x (n, D) by group, int64 (n,) below `count`, those of groups that occur: (g, D), ascending.

    Elsewhere (.., count, D) of x (.., n, D), where a group that does not occur has the mean of another: who knows them
    would be asked. A group of -1 is none.
    """
    if _on_host(group) is not None:
        return torch.stack([x[group == one].mean(0) for one in group.unique()])
    every = torch.arange(count, device=x.device)
    share = (group[..., None, :] == every[:, None]).to(x.dtype)
    number = share.sum(-1, keepdim=True)
    held = every.where(number[..., 0] > 0, group[..., :1])
    return ((share @ x) / number.clamp_min(1)).take_along_dim(held[..., None], -2)


def widened(x: Tensor) -> Tensor:
    """x in float64, on the host where its device has none."""
    return (x if devices.of(x).has_float64 else x.cpu()).double()
