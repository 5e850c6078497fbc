"""Acquisition scores: pure functions of logits, higher = more worth labelling.

One set of logits is (b, C); M draws or passes are (M, b, C); with R replicates ahead, (R, b, C) or (R, M, b, C), scores
are (R, b). Everything starts from log-softmax, so a probability that
underflows contributes exactly 0 and a certain item scores 0, never NaN (which would sort first).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps

import numpy as np
import torch
from torch import Tensor

from alfm import devices, host_ops

RESOLVED = 1e-6, 1e-3  # what `batchbald` may leave out: nats while exact, then a share of the doubt about the draw


def _log_softmax(logits: Tensor, dim: int = -1) -> Tensor:
    # A finite floor, so that 0 * log 0 is 0 also for logits of -inf.
    return torch.log_softmax(logits, dim).clamp_min_(torch.finfo(logits.dtype).min)


def _entropy(log_p: Tensor) -> Tensor:
    """Nats, over the last dimension, of log probabilities that sum to one; at least 0."""
    return -(log_p.exp() * log_p).sum(-1).clamp_max(0)


def _plogp(p: Tensor) -> Tensor:
    """p log p with 0 log 0 = 0."""
    positive = p.clamp_min(torch.finfo(p.dtype).tiny)
    return host_ops.log(positive, positive).mul_(p)


def _replicates(score: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of (M, b, C) as one of (R, M, b, C) too: of one replicate after the other."""

    @wraps(score)
    def of_all(logits: Tensor) -> Tensor:
        if logits.ndim == 3:
            return score(logits)
        return torch.stack([score(own) for own in logits]) if len(logits) > 1 else score(logits[0])[None]

    return of_all


@_replicates
def mean_probabilities(logits: Tensor) -> Tensor:
    """Logits (M, b, C) -> (b, C): the mean of the M probability vectors."""
    # By classes along the first dimension, which many items pass side by side; one draw at a time, whose temporaries
    # are M times smaller and stay in the caches.
    total = torch.softmax(logits[0].mT, 0)
    for member in logits[1:]:
        total += torch.softmax(member.mT, 0)
    return total.div_(len(logits)).mT


def mean_log_probabilities(logits: Tensor) -> Tensor:
    """Logits (M, b, C) -> (b, C): log of the mean of the M probability vectors, never below the least float's."""
    return mean_probabilities(logits).clamp_min(torch.finfo(logits.dtype).tiny).log_()


# -- one set of logits -----------------------------------------------------------------------------------------------


def top2(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The two likeliest classes: logits (b, C) -> probabilities (b, 2), classes int64 (b, 2), ties to the lower class.

    With a single class the second probability is 0 and its class 0.
    """
    return _top2(torch.softmax(logits, -1))


def _top2(p: Tensor) -> tuple[Tensor, Tensor]:
    first = p.argmax(-1, keepdim=True)  # argmax promises the first of equals, topk does not
    rest = p.scatter(-1, first, -1)
    second = rest.argmax(-1, keepdim=True)
    return torch.cat([p.gather(-1, first), rest.gather(-1, second).clamp_min(0)], -1), torch.cat([first, second], -1)


def least_confidence(logits: Tensor) -> Tensor:
    """1 - p1, logits (b, C) -> (b,) in [0, 1). Lewis & Gale 1994."""
    return -torch.expm1(_log_softmax(logits).amax(-1))


def entropy(logits: Tensor) -> Tensor:
    """H(p) in nats, logits (b, C) -> (b,). Shannon 1948."""
    return _entropy(_log_softmax(logits))


def margin_uncertainty(logits: Tensor) -> Tensor:
    """1 - (p1 - p2), logits (b, C) -> (b,) in [0, 1]: the smallest margin scores highest. Scheffer et al. 2001."""
    return _margin_uncertainty(torch.softmax(logits, -1))


def _margin_uncertainty(p: Tensor) -> Tensor:
    best, _ = _top2(p)
    return 1 - (best[..., 0] - best[..., 1])


# -- the mean of several draws ---------------------------------------------------------------------------------------


def mean_least_confidence(logits: Tensor) -> Tensor:
    """Least confidence of the mean of M probability vectors, (M, b, C) -> (b,)."""
    return (1 - mean_probabilities(logits).amax(-1)).clamp_min_(0)


def mean_entropy(logits: Tensor) -> Tensor:
    """Entropy (nats) of the mean of M probability vectors, (M, b, C) -> (b,). Gal et al. 2017 (arXiv 1703.02910)."""
    return -_plogp(mean_probabilities(logits)).sum(-1).clamp_max_(0)


def mean_margin_uncertainty(logits: Tensor) -> Tensor:
    """1 - margin of the mean of M probability vectors, (M, b, C) -> (b,)."""
    return _margin_uncertainty(mean_probabilities(logits))


# -- disagreement between draws --------------------------------------------------------------------------------------


@_replicates
def bald(logits: Tensor) -> Tensor:
    """Mutual information of label and weights, H(mean_m p) - mean_m H(p) >= 0 in nats, (M, b, C) -> (b,).

    Houlsby et al. 2011 (arXiv 1112.5745); Gal et al. 2017 (arXiv 1703.02910).
    """
    M, b, C = logits.shape
    mean = logits.new_zeros(C, b)  # by classes first, as in `mean_probabilities`
    within = logits.new_zeros(b)
    size = min(M, max(1, _block(logits) // (b * C)))
    scratch = logits.new_empty(2, size, C, b)
    for members in logits.mT.split(size):
        z, e = scratch[:, : len(members)]
        torch.mul(members, 1 / math.log(2), out=z)  # in bits: torch has a much faster 2^z than e^z
        z.sub_(z.amax(1, keepdim=True)).clamp_min_(-1e4)  # 2^-1e4 is 0, and 0 * -1e4 too
        total = torch.exp2(z, out=e).sum(1, keepdim=True)
        within += (total.log2() - z.mul_(e).sum(1, keepdim=True).div_(total)).sum((0, 1))
        mean += e.div_(total).sum(0)
    return within.mul_(-math.log(2) / M).sub_(_plogp(mean.div_(M)).sum(0)).clamp_min_(0)


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
    return -_plogp(_vote_shares(logits)).sum(-1).clamp_max(0)


# -- joint draws: one weight setting shared by all items -------------------------------------------------------------


def epig(logits: Tensor, target: Tensor) -> Tensor:
    """Expected predictive information gain about target items, in nats, (M, b, C), (M, T, C) -> (b,).

    H(pbar_i) + mean_t H(pbar_t) - mean_t H(pbar_it), pbar_it = P_i^T P_t / M (C x C). Both sets must come from the SAME
    M draws. Cost b T C^2 (M multiply-adds and one log), in blocks of bounded size. Bickford Smith et al. 2023
    (arXiv 2304.08151), eq. 5.
    """
    M, b, C = logits.shape
    T = target.shape[1]
    p, q = _log_softmax(logits).exp(), _log_softmax(target).exp()
    marginals = -_plogp(p.mean(0)).sum(-1) - _plogp(q.mean(0)).sum(-1).mean()
    q = q.reshape(M, T * C)
    joint = p.new_empty(b)
    size = max(1, _block(p) // (C * T * C))
    for start in range(0, b, size):
        block = p[:, start : start + size]
        pair = torch.mm(block.reshape(M, -1).T, q).div_(M)
        joint[start : start + size] = _plogp(pair).view(block.shape[1], -1).sum(1)
    return marginals + joint / T


def batchbald(log_probs: Tensor, budget: int, rng: np.random.Generator, max_samples: int = 4096) -> Tensor:
    """Greedy batch of largest joint mutual information, log_probs (M, n, C) of joint draws -> picks int64 (budget,).

    An item's gain is the entropy of its label given the batch's labels, averaged over their configurations, less its
    entropy given the weights. All C^picks configurations are listed while they are at most `max_samples`; from then on
    as many are sampled, stratified over the M draws, and `rng` extends them by one label per pick. Returns
    min(budget, n) distinct candidates in the order picked; ties to the lower index. Kirsch et al. 2019 (arXiv
    1906.08158), eqs. 12 and 14.

    Lazy (Minoux 1978): joint information is submodular, so a gain computed for a smaller batch bounds the present one,
    and candidates are looked at in the order of that bound until none left can be the best. With listed configurations
    the picks are those of the plain greedy; with sampled ones a bound is an estimate like the gain itself, and the
    pick is the best up to that noise. On a GPU every candidate is looked at, because stopping would need the host.
    M draws cannot tell more than log M nats: configurations that leave no doubt about their draw are left out, and when
    none is in doubt the lower index, that is the order of the candidates, decides. Cost per candidate looked at: C K M
    multiply-adds and C K logarithms, K configurations in doubt, in blocks of bounded size.
    """
    M, n, C = log_probs.shape
    lazy = devices.of(log_probs).looks_are_free
    log_probs = log_probs.clamp_min(-1e4)  # e^-1e4 is 0, and sums of many stay finite
    p = log_probs.exp()
    within = -(p * log_probs).sum(-1).T.contiguous()  # (n, M)
    by_item = p.permute(1, 2, 0).clamp_min(1e-30)  # (n, C, M), so that mixtures have a logarithm
    gain = within.new_full((n,), torch.inf)  # the latest known of every candidate, -inf once picked
    most = C * max(max_samples, M)  # numbers for one candidate
    scratch = p.new_empty(2, min(max(_block(p), most), n * most))  # once: new memory costs as much as the sums
    log_joint = p.new_zeros(1, M)  # log probability of a configuration under each draw; sampled: up to a constant
    source: Tensor | None = None  # the draw a sampled configuration came from; None while all are listed
    picks: list[Tensor] = []
    while True:
        share = log_joint.logsumexp(1) if source is None else log_joint.new_zeros(len(log_joint))
        left = n - len(picks)
        open_ = _open(log_joint, torch.softmax(share, 0), source is not None, lazy)
        picks.append(_best(gain, left, within, by_item, *open_, scratch, lazy))
        if len(picks) == min(budget, n):
            return torch.cat(picks)
        gain.index_fill_(0, picks[-1], -torch.inf)
        new = picks[-1:]
        if source is None and len(log_joint) * C > max_samples:
            source = torch.arange(max(max_samples, M), device=p.device) % M
            log_joint, new = p.new_zeros(len(source), M), picks
        for item in new:
            given = log_probs.index_select(1, item)[:, 0].T  # (C, M)
            if source is None:
                log_joint = (log_joint[:, None] + given).flatten(0, 1)
                continue
            u = torch.from_numpy(rng.random(len(source))).to(p)
            steps = p.index_select(1, item)[:, 0].cumsum(1)
            label = (steps[source] < u[:, None]).sum(1).clamp_max_(C - 1)
            log_joint = log_joint + given[label]
            log_joint -= log_joint.amax(1, keepdim=True)  # long batches neither underflow nor lose digits


def _block(p: Tensor) -> int:
    """Numbers of a temporary: on CPU 2 MB; fewer are nearer the caches, but threads then wait for Python's lock."""
    return devices.of(p).block_numbers // 4


def _open(log_joint: Tensor, share: Tensor, sampled: bool, lazy: bool) -> tuple[Tensor, Tensor]:
    """The draws' probabilities (K', M) given a configuration, and its share (K',), of those that matter.

    A configuration that leaves no doubt about its draw adds nothing: at most its share of the draws' entropy. What is
    left out could add 1e-6 nats in all, of `sampled` ones a thousandth of the whole doubt, far below their noise.
    Unless `lazy` nothing is left out, because counting would need the host.
    """
    log_posterior = torch.log_softmax(log_joint, 1)
    posterior = log_posterior.exp()
    if not lazy:
        return posterior, share
    doubt = share * -(posterior * log_posterior.clamp_min(-1e4)).sum(1)
    most = RESOLVED[1] * doubt.sum() if sampled else RESOLVED[0]
    kept = (doubt > most / len(share)).nonzero()[:, 0]
    return posterior[kept], share[kept]


def _best(
    gain: Tensor, left: int, within: Tensor, p: Tensor, posterior: Tensor, share: Tensor, scratch: Tensor, lazy: bool
) -> Tensor:
    """The candidate of largest gain, int64 (1,); updates `gain` (n,) of those it looks at.

    left: how many candidates are not picked; within (n, M): entropies of their labels given a draw; p (n, C, M) > 0;
    posterior (K, M): of the draws given a configuration; share (K,): of a configuration; scratch (2, at least C K):
    memory to work in; lazy: end where no bound is as large. The entropy given a draw is averaged over the same
    configurations, not over all: the same on average, and every configuration's term is then at least 0.
    """
    C, K = p.shape[1], len(posterior)
    size = max(1, min(_block(p), scratch.shape[1]) // max(C * K, 1))
    bound, order = gain.sort(descending=True, stable=True)
    average = share @ posterior  # (M,)
    best = -math.inf
    for start in range(0, left, size):
        if lazy and float(bound[start]) + 1e-5 < best:  # rounding in either
            break
        rows = order[start : min(start + size, left)]
        mixture, log = scratch[:, : len(rows) * C * K].view(2, len(rows) * C, K)
        torch.mm(p.index_select(0, rows).flatten(0, 1), posterior.T, out=mixture)
        negentropy = torch.mv(host_ops.log(mixture, log).mul_(mixture), share)
        value = -negentropy.view(len(rows), C).sum(1) - within.index_select(0, rows) @ average
        gain[rows] = value
        best = max(best, float(value.max())) if lazy else best
    return gain.argmax(0, keepdim=True)
