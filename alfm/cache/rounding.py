"""What a narrower dtype loses of features: why float16 is refused for some of them, measured block by block."""

from __future__ import annotations

import math

import numpy as np

_LOST = 0.01
"""The share of spread, of different rows, or of nonzero values that rounding may take."""
_BLOCK_VALUES = 1 << 17
"""Looked at together: few enough for a processor's cache."""


class Rounding:
    """Adds up, over blocks of rows, what rounding to `dtype` takes away; remembers two numbers per row.

    `spread`: root mean square distance of rows from their mean in the whole data set, where a sample told it: items of
    a part may all be alike, and are then not held to their own small spread.
    """

    def __init__(self, dtype: np.dtype | type = np.float16, spread: float = 0.0) -> None:
        self._dtype, self._given = np.dtype(dtype), spread
        self._most, self._tiny = float(np.finfo(dtype).max), float(np.finfo(dtype).smallest_normal)
        self._rows, self._error, self._largest = 0, 0.0, 0.0
        self._mean: np.ndarray | float = 0.0
        self._squares = 0.0  # sum of squared distances from the mean
        self._nonzero = self._cut_off = 0
        self._before: set[int] = set()
        self._after: set[int] = set()

    def add(self, features: np.ndarray) -> None:
        """Take in a block of finite features, float (n, ...). What has the dtype already costs and loses nothing."""
        if not features.size or features.dtype.itemsize <= self._dtype.itemsize:
            return
        rows = features.reshape(len(features), -1)
        step = max(1, _BLOCK_VALUES // rows.shape[1])
        for low in range(0, len(rows), step):
            self._add(rows[low : low + step])

    @property
    def spread(self) -> float:
        """Root mean square distance of the rows so far from their mean."""
        return math.sqrt(self._squares / self._rows) if self._rows else 0.0

    def loss(self) -> str | None:
        """What is lost beyond 1 %, as the end of a sentence ("float16 would ..."), or None."""
        if self._largest > self._most:
            return f"cannot hold values of {self._largest:.4g}"
        spread = max(self.spread, self._given)
        error = math.sqrt(self._error / self._rows) if self._rows else 0.0
        if spread and error > _LOST * spread:
            return f"would change features by {error / spread:.2g} times their spread"
        if len(self._after) < (1 - _LOST) * len(self._before):
            return f"would leave only {len(self._after):,} of {len(self._before):,} rows different from each other"
        if self._cut_off > _LOST * self._nonzero:
            share = self._cut_off / self._nonzero
            return f"would cut off digits of {share:.0%} of the nonzero values, which are below {self._tiny:.2g}"
        return None

    def _add(self, rows: np.ndarray) -> None:
        size = np.abs(rows)
        self._largest = max(self._largest, float(size.max()))
        if self._largest > self._most:
            return
        stored = rows.astype(self._dtype)
        change = rows - stored
        self._error += float(np.vdot(change, change))
        self._spread(rows)
        self._nonzero += int(np.count_nonzero(rows))
        self._cut_off += int(np.count_nonzero((size < self._tiny) & (change != 0)))
        self._before.update(_hashes(rows))
        self._after.update(_hashes(stored))

    def _spread(self, rows: np.ndarray) -> None:
        """Chan, Golub & LeVeque 1979: means and sums of squares of two sets joined."""
        mean = rows.mean(axis=0, dtype=np.float64)
        centred = rows - mean.astype(rows.dtype)
        apart = mean - self._mean
        together = self._rows + len(rows)
        self._squares += float(np.vdot(centred, centred))
        self._squares += float(np.vdot(apart, apart)) * self._rows * len(rows) / together
        self._mean = self._mean + apart * (len(rows) / together)
        self._rows = together


def _hashes(rows: np.ndarray) -> list[int]:
    """A 64-bit number per row, equal for equal rows."""
    whole = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1] * rows.dtype.itemsize)))
    return [hash(row) for row in whole.ravel().tolist()]
