"""Embeddings that people already have, by the file they are in: each reader gives a `Source` of streamed rows."""

from alfm.cache.sources.base import Options, Rows, Source

__all__ = ["Options", "Rows", "Source"]
