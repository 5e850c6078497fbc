"""Acquisition scores: pure functions of logits, higher = more worth labelling.

One set of logits is (b, C); M draws or passes are (M, b, C); with R replicates ahead, (R, b, C) or (R, M, b, C), scores
are (R, b). Everything starts from log-softmax, so a probability that
underflows contributes exactly 0 and a certain item scores 0, never NaN (which would sort first).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from alfm import devices
from alfm.fused.bald import bald as fused_bald
from alfm.host_ops import plogp


def _log_softmax(logits: Tensor, dim: int = -1) -> Tensor:
    # A finite floor, so that 0 * log 0 is 0 also for logits of -inf.
    return torch.log_softmax(logits, dim).clamp_min_(torch.finfo(logits.dtype).min)


def _entropy(log_p: Tensor) -> Tensor:
    """Nats, over the last dimension, of log probabilities that sum to one; at least 0."""
    return -(log_p.exp() * log_p).sum(-1).clamp_max(0)


def _replicates(score: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of (M, b, C) as one of (R, M, b, C) too: of one replicate after the other."""

    @wraps(score)
    def of_all(logits: Tensor) -> Tensor:
        if logits.ndim == 3:
            return score(logits)
        return torch.stack([score(own) for own in logits]) if len(logits) > 1 else score(logits[0])[None]

    return of_all


def _first_alone(score: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of (.., M, b, C) to which one replicate, (1, M, b, C), is (M, b, C)."""

    @wraps(score)
    def of_all(logits: Tensor) -> Tensor:
        return score(logits[0])[None] if logits.ndim == 4 and len(logits) == 1 else score(logits)

    return of_all


@_first_alone
def mean_probabilities(logits: Tensor) -> Tensor:
    """Logits (.., M, b, C) -> (.., b, C): the mean of the M probability vectors."""
    # By classes along the first dimension, which many items pass side by side; one draw at a time, whose temporaries
    # are M times smaller and stay in the caches.
    first, *others = logits.mT.unbind(-3)
    total = torch.softmax(first, -2)
    for member in others:
        total += torch.softmax(member, -2)
    return total.div_(1 + len(others)).mT


def mean_log_probabilities(logits: Tensor) -> Tensor:
    """Logits (.., M, b, C) -> (.., b, C): log of the mean of the M probability vectors, at least the least float's."""
    return mean_probabilities(logits).clamp_min(torch.finfo(logits.dtype).tiny).log_()


# -- one set of logits -----------------------------------------------------------------------------------------------


def least_confidence(logits: Tensor) -> Tensor:
    """1 - p1, logits (b, C) -> (b,) in [0, 1). Lewis & Gale 1994."""
    return -torch.expm1(_log_softmax(logits).amax(-1))


def entropy(logits: Tensor) -> Tensor:
    """H(p) in nats, logits (b, C) -> (b,). Shannon 1948."""
    return _entropy(_log_softmax(logits))


def margin_uncertainty(logits: Tensor) -> Tensor:
    """1 - (p1 - p2), logits (b, C) -> (b,) in [0, 1]: the smallest margin scores highest. Scheffer et al. 2001."""
    p = torch.softmax(logits, -1)
    first = p.argmax(-1, keepdim=True)  # argmax promises the first of equals, topk does not
    second = p.scatter(-1, first, -1).amax(-1).clamp_min(0)  # 0 with a single class
    return 1 - (p.gather(-1, first)[..., 0] - second)


# -- disagreement between draws --------------------------------------------------------------------------------------


@_first_alone
def bald(logits: Tensor) -> Tensor:
    """Mutual information of label and weights, H(mean_m p) - mean_m H(p) >= 0 in nats, (M, b, C) -> (b,).

    Houlsby et al. 2011 (arXiv 1112.5745); Gal et al. 2017 (arXiv 1703.02910).
    """
    return fused_bald(logits)


@_replicates
def kl_to_consensus(logits: Tensor) -> Tensor:
    """mean_m KL(p_m || mean of p) in nats, (M, b, C) -> (b,). McCallum & Nigam 1998.

    Summed by member, as the committee literature writes it; the same number as `bald` (Jensen-Shannon divergence).
    """
    log_consensus = mean_probabilities(logits).clamp_min_(torch.finfo(logits.dtype).tiny).log_()
    total = torch.zeros_like(log_consensus[:, 0])
    for member in logits:
        log_p = _log_softmax(member)
        total += torch.linalg.vecdot(log_p.exp(), log_p - log_consensus)
    return total.div_(len(logits)).clamp_min_(0)


@_replicates
def _vote_shares(logits: Tensor) -> Tensor:
    """Share of the M members that vote for each class, (M, b, C) -> (b, C)."""
    votes = torch.zeros_like(logits[0])
    one = torch.ones_like(votes[:, :1])
    for member in logits.argmax(-1):
        votes.scatter_add_(1, member[:, None], one)
    return votes / logits.shape[0]


def variation_ratio(logits: Tensor) -> Tensor:
    """Share of the M members that do not vote for the commonest class, (M, b, C) -> (b,). Freeman 1965."""
    return 1 - _vote_shares(logits).amax(-1)


def vote_entropy(logits: Tensor) -> Tensor:
    """Entropy (nats) of the M members' votes, (M, b, C) -> (b,). Dagan & Engelson 1995."""
    return -plogp(_vote_shares(logits)).sum(-1).clamp_max(0)


# -- joint draws: one weight setting shared by all items -------------------------------------------------------------


def epig(logits: Tensor, target: Tensor) -> Tensor:
    """Expected predictive information gain about target items, in nats, (.., M, b, C), (.., M, T, C) -> (.., b).

    H(pbar_i) + mean_t H(pbar_t) - mean_t H(pbar_it), pbar_it = P_i^T P_t / M (C x C). Both sets must come from the SAME
    M draws. Cost b T C^2 (M multiply-adds and one log), in blocks of bounded size for each of the replicates in front.
    Bickford Smith et al. 2023 (arXiv 2304.08151), eq. 5.
    """
    if logits.ndim == 4 and len(logits) == 1:
        return epig(logits[0], target[0])[None]
    *R, M, b, C = logits.shape
    T = target.shape[-2]
    p, q = _log_softmax(logits).exp(), _log_softmax(target).exp()
    marginals = -plogp(p.mean(-3)).sum(-1) - plogp(q.mean(-3)).sum(-1).mean(-1, keepdim=True)
    q = q.reshape(*R, M, T * C)
    joint = p.new_empty(*R, b)
    size = max(1, block_numbers(p) // (C * T * C))
    for start in range(0, b, size):
        block = p[..., start : start + size, :]
        pair = torch.matmul(block.reshape(*R, M, -1).mT, q).div_(M)
        joint[..., start : start + size] = plogp(pair).view(*R, block.shape[-2], -1).sum(-1)
    return marginals + joint / T


def block_numbers(p: Tensor) -> int:
    """Numbers of a temporary: on CPU 2 MB; fewer are nearer the caches, but threads then wait for Python's lock."""
    return devices.of(p).block_numbers // 4
