from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alfm.cache import FeatureCache, open_cache
from alfm.cache.writer import CacheWriter

Write = Callable[..., FeatureCache]


@pytest.fixture
def write_cache(tmp_path: Path) -> Write:
    """`write_cache(ids, config, marks=...)`: a cache of random features that says where its items are."""

    def write(
        ids: list[str] | None,
        config: Mapping[str, Any] | None = None,
        *,
        marks: list[str] | None = None,
        name: str = "a.h5",
        modality: str | None = "image",
        rows: int | None = None,
        labels: list[int] | None = None,
        **attributes: Any,
    ) -> FeatureCache:
        count = len(ids) if ids is not None else rows or 0
        features = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float16)
        said = {"dataset": "photos", "dataset_fingerprint": name, "model": "tiny", "model_fingerprint": "tiny"}
        said |= {"modality": modality} if modality else {}
        said |= {"dataset_config": json.dumps(config)} if config is not None else {}
        with CacheWriter(tmp_path / name, said | attributes) as writer:
            writer.add_split("train", count, (4,), np.dtype("float16"), ids is not None, marks is not None)
            column = np.array(labels if labels is not None else [-1] * count, np.int64)
            writer.append("train", features, column, ids, marks=marks)
            writer.finish()
        return open_cache(tmp_path / name)

    return write
