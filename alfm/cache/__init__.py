"""The feature cache: one HDF5 file per (dataset, model). Knows nothing of strategies or heads."""

from alfm.cache.layout import escape_id, unescape_id
from alfm.cache.reader import FeatureCache, open_cache

__all__ = ["FeatureCache", "escape_id", "open_cache", "unescape_id"]
