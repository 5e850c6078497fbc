"""Mixup in feature space (Zhang et al. 2018, arXiv 1710.09412): a step sees items mixed with one another.

Item i becomes s x_i + (1 - s) x_j with the labels s y_i + (1 - s) y_j, where j is its partner in a random permutation
of the step's items and s ~ Beta(a, a) its own, both drawn anew in every step. Draws are hashes of addressed keys, so
that they depend neither on company nor on the device.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from alfm.streams import hashes

LEVELS = 1 << 12
_LAST = torch.iinfo(torch.int64).max


@lru_cache(maxsize=16)
def beta_quantiles(a: float) -> np.ndarray:
    """Beta(a, a) in steps of equal probability, float64 (LEVELS,): an entry drawn uniformly is a draw."""
    from scipy.special import betaincinv

    return np.asarray(betaincinv(a, a, (np.arange(LEVELS) + 0.5) / LEVELS))


def partners(key: Tensor, rank: Tensor, valid: Tensor) -> Tensor:
    """A random permutation of each replicate's valid items, places int64 (R, n); others are their own partners.

    key (R, 1); rank (R, n): which of the valid items each is; valid bool (R, n).
    """
    order = torch.where(valid, hashes(key, rank), _LAST).argsort(dim=1, stable=True)
    own = torch.arange(rank.shape[1], device=rank.device)
    return torch.where(valid, order.gather(1, rank), own)


def own_shares(key: Tensor, rank: Tensor, valid: Tensor, quantiles: Tensor) -> Tensor:
    """Each item's s, (R, n, 1); 1 for what is not valid."""
    drawn = quantiles[hashes(key, rank) & (LEVELS - 1)]
    return torch.where(valid, drawn, 1)[:, :, None]


def mixed(values: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """s v_i + (1 - s) v_j of values (R, n, K)."""
    other = values.gather(1, partner[:, :, None].expand(-1, -1, values.shape[2]))
    return other.lerp(values, share)
