"""Mutual information of labels and weights, of draws' logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alfm import devices
from alfm.fused.operation import define
from alfm.host_ops import plogp


def bald(logits: Tensor) -> Tensor:
    """H(mean_m p) - mean_m H(p) >= 0 in nats, logits (M, b, C) -> (b,), or (R, M, b, C) -> (R, b)."""
    return torch.ops.alfm.bald(logits)


def _bald(logits: Tensor) -> Tensor:
    *R, M, b, C = logits.shape
    mean = logits.new_zeros(*R, C, b)  # by classes first, which many items pass side by side
    within = logits.new_zeros(*R, b)
    size = min(M, max(1, devices.of(logits).block_numbers // 4 // (within.numel() * C)))
    scratch = logits.new_empty(2, *R, size, C, b)
    for members in logits.mT.split(size, -3):
        z, e = scratch[..., : members.shape[-3], :, :]
        torch.mul(members, 1 / math.log(2), out=z)  # in bits: torch has a much faster 2^z than e^z
        z.sub_(z.amax(-2, keepdim=True)).clamp_min_(-1e4)  # 2^-1e4 is 0, and 0 * -1e4 too
        total = torch.exp2(z, out=e).sum(-2, keepdim=True)
        within += (total.log2() - z.mul_(e).sum(-2, keepdim=True).div_(total)).sum((-3, -2))
        mean += e.div_(total).sum(-3)
    return within.mul_(-math.log(2) / M).sub_(plogp(mean.div_(M)).sum(-2)).clamp_min_(0)


define("bald(Tensor logits) -> Tensor", _bald)
