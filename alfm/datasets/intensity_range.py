"""`dataset.intensity_range`, the values of deep images that become black and white: checked, and as it is typed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from alfm.commands import typed
from alfm.datasets.deep import CONTAINER
from alfm.errors import UserError

Range = Sequence[float] | Literal["container"] | None
"""[black, white] of deep images; "container": [0, 65535], of floats [0, 1]; None: nothing was settled."""

USUAL = (255, 1023, 4095, 16383, CONTAINER)
LEAST_AMBIGUOUS = 16
"""Up to here a largest value does not tell its scale."""


def wider(low: float, high: float, given: list[float] | None = None) -> str:
    """What to type so that values from `low` to `high`, and those of the range `given`, fit."""
    low, high = min([low, *(given or [0])]), max([high, *(given or [0])])
    usual = next((scale for scale in USUAL if scale >= high), high) if low >= 0 and high > LEAST_AMBIGUOUS else high
    return typed("dataset.intensity_range", [plain(low), plain(usual)])


def check_range(given: Any) -> list[float]:
    """[black, white] as two finite numbers, ascending. `UserError`."""
    pair = list(given) if isinstance(given, list | tuple) else []
    numbers = [value for value in pair if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(pair) != 2 or len(numbers) != 2 or not np.isfinite(numbers).all() or numbers[0] >= numbers[1]:
        raise UserError(
            f"dataset.intensity_range={given}: give the values that become black and white, such as "
            f"{typed('dataset.intensity_range', [0, 4095])}"
        )
    return numbers


def plain(value: float) -> float:
    """Whole numbers without a point."""
    return int(value) if float(value).is_integer() else float(value)
