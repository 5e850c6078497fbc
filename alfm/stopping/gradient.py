"""When a series has levelled off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np


def flat_at_new_maximum(
    values: Sequence[float], window: int, threshold: float, average: Literal["mean", "median"]
) -> float | None:
    """By how much the average of the last `window` values exceeds that of the window before it, one value earlier.

    None unless that is above 0 and below `threshold` and the last value is the largest so far.
    """
    if len(values) <= window or values[-1] <= max(values[:-1]):
        return None
    of = np.mean if average == "mean" else np.median
    rise = float(of(values[-window:])) - float(of(values[-window - 1 : -1]))
    return rise if 0 < rise < threshold else None
