"""Products of matrices of which each of R replicates has its own: all of them in one call.

A lone replicate's are those of the call for one, to the last bit and at its speed; it may be given without the R.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mm(A: Tensor, B: Tensor, out: Tensor | None = None) -> Tensor:
    """A B for A (R, m, k), or (m, k) that all share, and B (R, k, n): (R, m, n), in `out` where that is given."""
    if B.ndim == 2:
        return torch.mm(A, B, out=out)
    if len(B) == 1:
        own = torch.mm(A if A.ndim == 2 else A[0], B[0], out=None if out is None else out[0])
        return own[None] if out is None else out
    return torch.bmm(A.expand(len(B), -1, -1), B, out=out)


def mv(A: Tensor, x: Tensor) -> Tensor:
    """A x for A (R, m, k) and x (R, k): (R, m)."""
    return torch.mv(A[0], x[0])[None] if len(x) == 1 else torch.bmm(A, x[..., None])[..., 0]


def addmm_(to: Tensor, A: Tensor, B: Tensor, alpha: float = 1.0) -> Tensor:
    """Adds alpha A B in place to (R, m, n), for A (R, m, k), or (m, k) that all share, and B (R, k, n)."""
    if len(B) == 1:
        to[0].addmm_(A if A.ndim == 2 else A[0], B[0], alpha=alpha)
        return to
    return to.baddbmm_(A.expand(len(B), -1, -1), B, alpha=alpha)


def addmv_(to: Tensor, A: Tensor, x: Tensor, alpha: float = 1.0) -> Tensor:
    """Adds alpha A x in place to (R, m), for A (R, m, k) and x (R, k)."""
    if len(x) == 1:
        to[0].addmv_(A[0], x[0], alpha=alpha)
    else:
        to[..., None].baddbmm_(A, x[..., None], alpha=alpha)
    return to


def linear(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    """x w^T + bias for x (R, m, a), or (m, a) that all share, w (R, b, a), bias (R, b): (R, m, b)."""
    if w.ndim == 2:
        return torch.addmm(bias, x, w.T)
    if len(w) == 1:
        return torch.addmm(bias[0], x if x.ndim == 2 else x[0], w[0].T)[None]
    return torch.baddbmm(bias[:, None], x.expand(len(w), -1, -1), w.mT)
