"""One split of a cache as a pool: its labelled rows, and their features in memory or in the file."""

from __future__ import annotations

import numpy as np

from alfm.cache.reader import FeatureCache
from alfm.errors import UserError


class CacheRows:
    """Some rows of a cache's split that stay in the file (`memory=file`)."""

    checked = True

    def __init__(self, cache: FeatureCache, split: str, rows: np.ndarray) -> None:
        self.cache, self.split, self.rows = cache, split, rows
        self.shape = (len(rows), cache.dim)
        self._whole = len(rows) == cache.num_rows(split)

    def read(self, start: int, stop: int) -> np.ndarray:
        if self._whole:
            return self.cache.read_rows(self.split, start, stop)
        return self.cache.take(self.split, self.rows[start:stop])

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.cache.take(self.split, self.rows[rows])


def labelled(cache: FeatureCache, split: str) -> tuple[np.ndarray, np.ndarray]:
    labels = cache.labels(split)
    rows = np.flatnonzero(labels >= 0)
    if not len(rows):
        raise UserError(f"Split {split!r} of {cache.path} holds no labelled item, so nothing can be simulated on it.")
    return rows, labels[rows].copy()


def features_of(cache: FeatureCache, split: str, rows: np.ndarray, in_file: bool) -> np.ndarray | CacheRows:
    """Those rows' features, or, with `in_file`, what reads them from the file."""
    if in_file:
        return CacheRows(cache, split, rows)
    features = cache.features(split)
    return features if len(rows) == len(features) else features[rows]
