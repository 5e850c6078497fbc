"""A damaged cache is refused where it is used, and a whole one is looked at once."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

import alfm
import alfm.cache.checked as module
from alfm.al_train import main
from alfm.cache.checked import check_once, remember
from alfm.cache.reader import open_cache
from alfm.cache.writer import CacheWriter
from alfm.errors import UserError


@pytest.fixture(autouse=True)
def another_process(monkeypatch):
    """Forgets what this process has checked."""

    def forget() -> None:
        monkeypatch.setattr(module, "_whole", {})

    forget()
    return forget


@pytest.fixture
def looked(monkeypatch) -> list[Path]:
    """The caches that were verified."""
    calls: list[Path] = []
    original = module.verify
    monkeypatch.setattr(module, "verify", lambda path: (calls.append(path), original(path))[1])
    return calls


@pytest.fixture
def cache(tmp_path, digits_arrays) -> Path:
    x, y, test_x, test_y = digits_arrays
    path = tmp_path / "digits" / "own pixels.h5"
    path.parent.mkdir()
    attributes = {"dataset_fingerprint": "a", "model_fingerprint": "b", "class_names": list("0123456789")}
    with CacheWriter(path, attributes) as writer:
        for split, features, labels in (("train", x[:200], y[:200]), ("test", test_x[:60], test_y[:60])):
            writer.add_split(split, len(features), (64,), np.dtype("float16"))
            ids = [f"{split} {row}" for row in range(len(features))]
            writer.append(split, features.astype(np.float16), labels, ids)
        writer.finish()
    return path


def flip(path: Path, x: np.ndarray) -> None:
    """One bit of one feature: another small number, not NaN."""
    content = bytearray(path.read_bytes())
    start = content.find(x[:5].astype(np.float16).tobytes())
    assert start > 0
    content[start + 20] ^= 1
    path.write_bytes(content)


def train(cache: Path, *words: str) -> int:
    return main([f'cache="{cache}"', "query_strategy=random", "seeds=[1]", "iterations.n=2", "device=cpu", *words])


@pytest.mark.parametrize("memory", ["auto", "file"])
def test_a_flipped_bit_is_found_before_a_run_starts(cache, digits_arrays, memory, capsys, another_process):
    assert train(cache, f"memory={memory}") == 0
    before = cache.stat()
    flip(cache, digits_arrays[0])
    os.utime(cache, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps times
    another_process()
    assert train(cache, f"memory={memory}") == 1
    said = capsys.readouterr().err
    assert "train: part 0, rows 0 to 199: the content does not match its checksum" in said
    assert "python -m alfm.cache verify '" in said
    with pytest.raises(UserError, match="is damaged"):
        alfm.simulate(cache, "random", seeds=[1], rounds=1, memory=memory)


def test_a_whole_cache_is_looked_at_once_until_it_changes(cache, looked, another_process):
    for _ in range(2):
        assert train(cache, "force=true") == 0
        another_process()
    alfm.simulate(cache, "random", seeds=[1], rounds=1)
    assert len(looked) == 1
    (note,) = (Path(os.environ["LOG_DIR"]) / ".checked").iterdir()
    assert note.name.startswith("own pixels-")
    os.utime(cache)
    another_process()
    assert train(cache) == 0 and len(looked) == 2
    note.write_text("[]")
    another_process()
    assert train(cache) == 0 and len(looked) == 3


def test_python_remembers_without_writing_a_folder(cache, looked):
    for _ in range(2):
        alfm.Simulation(cache, "cpu")
    assert len(looked) == 1 and not Path(os.environ["LOG_DIR"]).exists()


def test_a_read_only_cache_and_logs_that_cannot_be_written(cache, looked, tmp_path, another_process):
    cache.parent.chmod(0o555)
    try:
        logs = tmp_path / "a file"
        logs.touch()
        for _ in range(2):
            check_once(open_cache(cache), logs)
            remember(open_cache(cache), logs)
            another_process()
        assert len(looked) == 2 and list(cache.parent.iterdir()) == [cache]
    finally:
        cache.parent.chmod(0o755)


def test_a_link_and_another_name_for_a_folder_are_the_same_cache(cache, looked, tmp_path):
    (tmp_path / "link.h5").symlink_to(cache)
    for path in (cache, tmp_path / "link.h5", cache.parent / ".." / "digits" / cache.name):
        check_once(open_cache(path), tmp_path)
    assert looked == [cache]


def test_caches_from_elsewhere_have_nothing_to_be_checked_against(digits_cache, looked, tmp_path):
    check_once(open_cache(digits_cache), tmp_path)
    assert looked == []
    with h5py.File(digits_cache) as file:
        assert "format" not in file.attrs


def test_a_cache_that_went_away_after_it_was_opened(cache, tmp_path):
    opened = open_cache(cache)
    cache.unlink()
    with pytest.raises(UserError, match="any more"):
        check_once(opened, tmp_path)
