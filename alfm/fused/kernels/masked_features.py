"""The kernel of `alfm.fused.masked_features`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def masked_features(
    keys: Tensor, rows: Tensor, x: Tensor, factor: Tensor, offset: Tensor, drop: float
) -> tuple[Tensor, Tensor]:
    """See `alfm.fused.masked_features`. A program makes one item's row of one pass; x is read once for all passes.

    Products and sums are rounded one by one, as torch's are; only lengths are summed in another order.
    """
    (b, dim), words = x.shape, (x.shape[1] + 63) // 64
    places, share = 8, 256 - round(drop * 256)
    while share % 2 == 0:
        share, places = share // 2, places - 1
    phi = torch.empty((len(keys), b, dim), dtype=factor.dtype, device=x.device)
    length = torch.empty((len(keys), b), dtype=factor.dtype, device=x.device)
    if phi.numel():
        _masked_features[(len(keys), b)](
            keys.contiguous(), rows.contiguous(), x.contiguous(), factor.contiguous(), offset.contiguous(), phi, length,
            b, dim, words, share, PLACES=places, WORDS=min(16, triton.next_power_of_2(words)), enable_fp_fusion=False,
        )  # fmt: skip
    return phi, length


@triton.jit
def _mixed(z):
    """splitmix64's finaliser."""
    z ^= z >> 30
    z *= 0xBF58476D1CE4E5B9
    z ^= z >> 27
    z *= 0x94D049BB133111EB
    return z ^ (z >> 31)


@triton.jit
def _bits(row, column):
    """One place of the binary fractions of 64 features a word."""
    z = row ^ _mixed(column * 0x9E3779B97F4A7C15)
    z *= 0xBF58476D1CE4E5B9  # both sides are mixed already, so half is enough
    z ^= z >> 32
    z *= 0x94D049BB133111EB
    return z ^ (z >> 29)


@triton.jit
def _masked_features(
    keys, rows, x, factor, offset, phi, length, b, dim, words, share, PLACES: tl.constexpr, WORDS: tl.constexpr
):
    """Word w, byte q, bit t of what is kept is feature 32 w + 4 q + t, and 32 `words` more from the fifth bit on."""
    step, item = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    key = tl.load(keys + step).to(tl.uint64, bitcast=True)
    row = _mixed(tl.load(rows + item).to(tl.uint64, bitcast=True) * 0x9E3779B97F4A7C15 + key)
    lane = tl.arange(0, 32)[None, :]
    squares = tl.zeros([WORDS, 32], dtype=phi.dtype.element_ty)
    for first in range(0, words, WORDS):
        word = first + tl.arange(0, WORDS)
        number = (word + 1).to(tl.uint64)
        kept = tl.full([WORDS], 0xFFFFFFFFFFFFFFFF, tl.uint64)
        if PLACES > 0:
            kept = _bits(row, number)
            for place in tl.static_range(1, PLACES):
                other = _bits(row, number + place * words)
                kept = tl.where((share >> place) % 2 == 1, kept | other, kept & other)
        for half in tl.static_range(2):
            bit = 8 * (lane // 4) + lane % 4 + 4 * half
            feature = half * 32 * words + 32 * word[:, None] + lane
            inside = (word[:, None] < words) & (feature < dim)
            scale = tl.load(factor + feature, mask=inside, other=0)
            value = tl.load(x + item * dim + feature, mask=inside, other=0).to(scale.dtype) * scale
            value = tl.where((kept[:, None] >> bit.to(tl.uint64)) % 2 == 1, value, 0.0)
            value += tl.load(offset + feature, mask=inside, other=0)
            tl.store(phi + (step * b + item) * dim + feature, value, mask=inside)
            squares += value * value
    tl.store(length + step * b + item, tl.sqrt(tl.sum(tl.sum(squares, 1), 0)))
