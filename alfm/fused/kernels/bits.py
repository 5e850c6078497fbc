"""Bits of dropout masks, as `alfm.streams.packed_mask` makes them, a column of items at a time."""

from __future__ import annotations

import triton
import triton.language as tl


def fraction(drop: float) -> tuple[int, int]:
    """The share kept as `share` / 2^places, in lowest terms."""
    places, share = 8, 256 - round(drop * 256)
    while share % 2 == 0:
        share, places = share // 2, places - 1
    return places, share


@triton.jit
def mixed(z):
    """splitmix64's finaliser."""
    z ^= z >> 30
    z *= 0xBF58476D1CE4E5B9
    z ^= z >> 27
    z *= 0x94D049BB133111EB
    return z ^ (z >> 31)


@triton.jit
def hashed(key, row):
    """`alfm.streams.hashes` of a key and rows, both int64."""
    return mixed(row.to(tl.uint64, bitcast=True) * 0x9E3779B97F4A7C15 + key.to(tl.uint64, bitcast=True))


@triton.jit
def _place(row, column):
    """One place of the binary fractions of 64 features a word."""
    z = row ^ mixed(column * 0x9E3779B97F4A7C15)
    z *= 0xBF58476D1CE4E5B9  # both sides are mixed already, so half is enough
    z ^= z >> 32
    z *= 0x94D049BB133111EB
    return z ^ (z >> 29)


@triton.jit
def kept_word(row, word, words, share, PLACES: tl.constexpr):
    """The word-th 64 features of hashed rows: what is kept, one bit each; see `kept_lanes`."""
    number = tl.cast(word, tl.uint64) + 1
    kept = row | 0xFFFFFFFFFFFFFFFF
    if PLACES > 0:
        kept = _place(row, number)
        for place in tl.static_range(1, PLACES):
            other = _place(row, number + place * words)
            kept = tl.where((share >> place) % 2 == 1, kept | other, kept & other)
    return kept


@triton.jit
def kept_lanes(kept, lane, half: tl.constexpr):
    """Words (n, 1) -> (n, 32): 1 where lanes (1, 32) of a half are kept.

    Byte q, bit t of word w is feature 32 w + 4 q + t, and 32 times the number of words more from the fifth bit on.
    """
    bit = 8 * (lane // 4) + lane % 4 + 4 * half
    return (kept >> bit.to(tl.uint64)) % 2
