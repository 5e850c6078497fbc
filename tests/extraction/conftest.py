from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from standins import write_configs

from alfm import extract


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`run("key=value", ...)`: `python -m alfm.extract dataset=dots model=tiny` in this process, in an empty folder."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FEATURE_CACHE_DIR", str(tmp_path / "features"))
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH")))))  # for workers
    monkeypatch.chdir(tmp_path)
    configs = write_configs(tmp_path / "conf")
    common = ["--config-dir", str(configs), "dataset=dots", "model=tiny", "threads=1", "batch_size=8", "part_size=16"]

    def call(*words: str) -> int:
        names = {word.partition("=")[0] for word in words}
        return extract.main([*(word for word in common if word.partition("=")[0] not in names), *words])

    return call
