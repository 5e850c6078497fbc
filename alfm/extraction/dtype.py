"""Which dtype the cache gets: float16, unless a seeded sample of the items shows that it would lose something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from alfm.cache.layout import rows_not_finite
from alfm.cache.rounding import Rounding
from alfm.datasets.base import Split
from alfm.errors import UserError
from alfm.extraction.encoding import Encoder
from alfm.streams import stream

_SMALLEST_SAMPLE, _LARGEST_SAMPLE = 32, 256


def choose_dtype(wanted: str, splits: Mapping[str, Split], encoder: Encoder, batch_size: int) -> dict[str, Any]:
    """What the plan says about it: `dtype`; `spread` of the sample; `dtype_reason` where float16 was not good enough.

    `wanted`: auto, float16 or float32. The sample is one item in 64, 32 to 256 of them, encoded once more in its turn;
    an item that cannot be read is left out of it. `UserError` when float16 is wanted and would lose something.
    """
    if wanted == "float32":
        return {"dtype": wanted}
    rounding = Rounding(np.float16)
    for features in _sample(splits, encoder, min(batch_size, _SMALLEST_SAMPLE)):
        rounding.add(features[~rows_not_finite(features)])
    loss = rounding.loss()
    if loss is None:
        return {"dtype": "float16", "spread": rounding.spread}
    if wanted == "float16":
        name = encoder.backbone.name
        raise UserError(f"float16 {loss} ({name}): use cache.dtype=float32, or leave cache.dtype=auto.")
    return {"dtype": "float32", "dtype_reason": f"float16 {loss}"}


def _sample(splits: Mapping[str, Split], encoder: Encoder, batch_size: int) -> Iterator[np.ndarray]:
    """float32 (b, D) of seeded items of all splits together, without augmentation; of a stream, of its first ones."""
    backbone = encoder.backbone
    ends = np.cumsum([len(split) for split in splits.values()])
    total = int(ends[-1])
    count = min(total, max(_SMALLEST_SAMPLE, min(_LARGEST_SAMPLE, total // 64)))
    rows = np.sort(stream(0, 0, "sample for the dtype").choice(total, count, replace=False))
    chosen: list[tuple[Split, int]] = []
    for split, end in zip(splits.values(), ends.tolist(), strict=True):
        own = rows[(rows >= end - len(split)) & (rows < end)] - (end - len(split))
        if getattr(split, "in_order", False):  # others would be read up to there
            own = np.arange(len(own))
        chosen += [(split, row) for row in own.tolist()]
    for low in range(0, count, batch_size):
        read: list[Any] = []
        for split, row in chosen[low : low + batch_size]:
            try:
                read.append(backbone.preprocess(split.load(row)))
            except UserError:
                raise
            except Exception:  # a damaged item is dealt with when its turn comes
                continue
        if read:
            yield encoder.finish(encoder.start(backbone.collate(read), len(read)))[0]
