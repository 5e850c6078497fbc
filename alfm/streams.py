"""Random streams that are addressed, not consumed.

Every draw belongs to (seed, round, purpose), so block size, resume, replay and neighbours change nothing and no
generator state has to be saved. Dropout masks belong to (seed, round, pass, row, feature): a counter hash, about ten
times cheaper than a generator and equal for every block size.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch


def stream(seed: int, round: int, purpose: str) -> np.random.Generator:
    """NumPy generator (Philox) for one purpose of one round of one replicate."""
    key = (round, zlib.crc32(purpose.encode()))
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy=seed, spawn_key=key)))


def integer(seed: int, round: int, purpose: str) -> int:
    """One integer in [0, 2^31) addressed the same way, for libraries that take a seed."""
    return int(stream(seed, round, purpose).integers(2**31))


_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def _mix(z: torch.Tensor) -> torch.Tensor:
    """splitmix64's finaliser on int64 (wrapping); logical shifts by masking the sign extension. In place."""
    z ^= (z >> 30) & ((1 << 34) - 1)
    z *= _MIX1
    z ^= (z >> 27) & ((1 << 37) - 1)
    z *= _MIX2
    z ^= (z >> 31) & ((1 << 33) - 1)
    return z


def keep_mask(key: int, rows: torch.Tensor, dim: int, drop: float) -> torch.Tensor:
    """Dropout mask, True = kept with probability `1 - drop` (rounded to 1/256).

    `key`: integer of the replicate's stream and the pass (see `integer`); `rows` int64 (b,): pool rows;
    returns bool (b, dim). Source of the hash: Steele, Lea & Flood 2014 (splitmix64).
    """
    words = (dim + 7) // 8
    row_key = _mix(rows.to(torch.int64) * _GOLDEN + key)
    column = torch.arange(1, words + 1, dtype=torch.int64, device=rows.device) * _MIX1
    z = _mix(row_key[:, None] + column[None, :])
    # byte >= threshold for eight bytes at once: torch compares single bytes far more slowly than 64-bit words
    threshold, ones = round(drop * 256), 0x0101010101010101
    if threshold == 0:
        keep = torch.full_like(z, ones)
    else:
        keep = z & (ones * 0x7F)
        if threshold <= 128:
            keep.add_((128 - threshold) * ones).bitwise_or_(z)
        else:
            keep.add_((256 - threshold) * ones).bitwise_and_(z)
        keep = (keep >> 7).bitwise_and_(ones)
    return keep.view(torch.bool)[:, :dim]
