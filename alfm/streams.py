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
_BYTES = 0x0101010101010101
_LOW_BITS, _HIGH_BITS = 0x08040201, -2143281136  # 0x80402010 as a signed 32-bit number


def _xorshift(z: torch.Tensor, by: int, scratch: torch.Tensor) -> None:
    """z ^= z >> by, in place; a logical shift by masking the sign's extension."""
    torch.bitwise_right_shift(z, by, out=scratch)
    z ^= scratch.bitwise_and_((1 << (64 - by)) - 1)


def _mix(z: torch.Tensor) -> torch.Tensor:
    """splitmix64's finaliser on int64 (wrapping), in place."""
    scratch = torch.empty_like(z)
    _xorshift(z, 30, scratch)
    z *= _MIX1
    _xorshift(z, 27, scratch)
    z *= _MIX2
    _xorshift(z, 31, scratch)
    return z


def hashes(key: int | torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """A random int64 for each row: `key` (see `packed_mask`) and `rows` broadcast."""
    return _mix(rows.to(torch.int64) * _GOLDEN + key)


def packed_mask(key: int | torch.Tensor, rows: torch.Tensor, dim: int, drop: float) -> torch.Tensor:
    """Dropout masks before `unpack_mask`: one bit per feature.

    `key`: integers of the replicate's stream and the pass (see `integer`), an int or int64 that broadcasts with
    `rows`, int64 pool rows; `drop` counts in steps of 1/256. Returns int64 (..., ceil(dim / 64)), ... the shape of
    `key + rows`. A feature is kept when its random binary fraction is below the share kept: bit by bit from the least
    significant, `or` where the share has a 1 and `and` where it has a 0, so 64 features cost as many hashes as
    the share has binary places (two for 1/4, eight at most). Source of the hash: Steele, Lea & Flood 2014
    (splitmix64).
    """
    words, places, share = (dim + 63) // 64, 8, 256 - round(drop * 256)
    while share % 2 == 0:
        share, places = share // 2, places - 1
    row_key = hashes(key, rows)
    column = _mix(torch.arange(1, places * words + 1, dtype=torch.int64, device=rows.device) * _GOLDEN)
    z = row_key[..., None] ^ column
    scratch = torch.empty_like(z)
    z *= _MIX1  # both sides are mixed already, so half of `_mix` is enough
    _xorshift(z, 32, scratch)
    z *= _MIX2
    _xorshift(z, 29, scratch)
    if places < 2:
        return z if places else z.new_full((*row_key.shape, words), -1)
    keep, *others = z.split(words, -1)
    for place, other in enumerate(others, 1):
        keep = keep | other if share >> place & 1 else keep & other
    return keep


def unpack_mask(packed: torch.Tensor, dim: int, lanes: torch.Tensor | None = None) -> torch.Tensor:
    """Result of `packed_mask`, int64 (b, w), contiguous -> uint8 (b, dim), 0 = dropped.

    What a kept feature has is a power of two that depends on the feature alone: what `packed` = -1 gives. Whoever
    multiplies by it divides by that once, where equal values would cost as much again for every mask.
    lanes: int32 (b, 2, 8 w) to work in; the result is a view of it.
    """
    every = packed.view(torch.uint8)
    if lanes is None:
        lanes = torch.empty(every.shape[0], 2, every.shape[1], dtype=torch.int32, device=packed.device)
    low, high = lanes.unbind(1)
    low.copy_(every).mul_(0x01010101)  # eight bits in each of four bytes
    torch.bitwise_and(low, _HIGH_BITS, out=high)
    low &= _LOW_BITS
    return lanes.flatten(1).view(torch.uint8)[:, :dim]


def keep_mask(key: int | torch.Tensor, rows: torch.Tensor, dim: int, drop: float) -> torch.Tensor:
    """Dropout mask, True = kept with probability `1 - drop` (rounded to 1/256).

    `key`: integer of the replicate's stream and the pass (see `integer`), or int64 (b,), one per row; `rows` int64
    (b,): pool rows; returns bool (b, dim).
    """
    packed = packed_mask(key, rows, dim, drop)
    # Nonzero bytes become 1, eight at a time: torch compares single bytes far more slowly.
    bytes8 = unpack_mask(packed, packed.shape[1] * 64).view(torch.int64)
    bytes8.add_(_BYTES * 0x7F).bitwise_right_shift_(7).bitwise_and_(_BYTES)
    return bytes8.view(torch.bool)[:, :dim]
