"""The kernel of `alfm.fused.masked`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alfm.fused.kernels.bits import fraction, hashed, kept_lanes, kept_word


def masked(keys: Tensor, number: Tensor, rows: Tensor, x: Tensor, drop: float) -> Tensor:
    """See `alfm.fused.masked`. A program makes one item."""
    (R, n, dim), words = x.shape, (x.shape[2] + 63) // 64
    places, share = fraction(drop)
    x, out = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    if out.numel():
        _masked[(R * n,)](
            keys.contiguous(), number, rows.contiguous(), x, out, keys.shape[1], n, dim, words, share,
            PLACES=places, WORDS=min(16, triton.next_power_of_2(words)),
        )  # fmt: skip
    return out


# not compiled anew for other sizes: it is to be captured in graphs of any
@triton.jit(do_not_specialize=["passes", "n", "dim", "words", "share"])
def _masked(keys, number, rows, x, out, passes, n, dim, words, share, PLACES: tl.constexpr, WORDS: tl.constexpr):
    item = tl.program_id(0).to(tl.int64)
    row = hashed(tl.load(keys + item // n * passes + tl.load(number)), tl.load(rows + item))
    lane = tl.arange(0, 32)[None, :]
    for first in range(0, words, WORDS):
        word = first + tl.arange(0, WORDS)
        kept = kept_word(row, word, words, share, PLACES)
        for half in tl.static_range(2):
            feature = half * 32 * words + 32 * word[:, None] + lane
            inside = (word[:, None] < words) & (feature < dim)
            value = tl.load(x + item * dim + feature, mask=inside, other=0)
            keep = kept_lanes(kept[:, None], lane, half).to(value.dtype)
            tl.store(out + item * dim + feature, value * keep, mask=inside)
