"""What candidates' labels add to a batch whose labels are configurations."""

from __future__ import annotations

import torch
from torch import Tensor

from alfm import devices, host_ops
from alfm.fused.operation import define


def joint_gains(p: Tensor, within: Tensor, posterior: Tensor, share: Tensor, scratch: Tensor | None = None) -> Tensor:
    """The mean over configurations k of H(sum_m posterior_km p_icm) - sum_m posterior_km within_im in nats: (R, n).

    p (R, n, C, M) > 0: draws' probabilities; within (R, n, M): entropies of their labels; posterior (R, K, M): of the
    draws given a configuration; share (R, K): of a configuration. scratch (2, at least C K): memory to work in.
    """
    return torch.ops.alfm.joint_gains(p, within, posterior, share, scratch)


def _joint_gains(p: Tensor, within: Tensor, posterior: Tensor, share: Tensor, scratch: Tensor | None) -> Tensor:
    R, n, C, _ = p.shape
    each = max(1, C * posterior.shape[1])  # numbers of a candidate
    if scratch is None:
        scratch = p.new_empty(2, min(n * each, max(devices.of(p).block_numbers // 4, each)))
    out = p.new_empty(R, n)
    for r in range(R):
        average = share[r] @ posterior[r]  # (M,)
        for start in range(0, n, max(1, scratch.shape[1] // each)):
            rows = slice(start, min(start + max(1, scratch.shape[1] // each), n))
            given = p[r, rows].flatten(0, 1)
            mixture, log = scratch[:, : len(given) * posterior.shape[1]].view(2, len(given), -1)
            torch.mm(given, posterior[r].T, out=mixture)
            negentropy = torch.mv(host_ops.log(mixture, log).mul_(mixture), share[r])
            out[r, rows] = -negentropy.view(-1, C).sum(1) - within[r, rows] @ average
    return out


define(
    "joint_gains(Tensor p, Tensor within, Tensor posterior, Tensor share, Tensor(a!)? scratch) -> Tensor", _joint_gains
)
