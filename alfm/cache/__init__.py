"""The feature cache: one HDF5 file per (dataset, model). Knows nothing of strategies or heads."""

from alfm.cache.reader import FeatureCache, open_cache

__all__ = ["FeatureCache", "open_cache"]
