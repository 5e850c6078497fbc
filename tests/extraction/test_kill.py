"""Extraction by several workers, killed at any moment: the cache is the one an uninterrupted run makes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from standins import write_configs

from alfm.cache import open_cache
from alfm.cache.parts import PartsFolder
from alfm.cache.verify import verify

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["dataset=dots", "model=tiny", "threads=1", "batch_size=8", "part_size=16"]
WORDS += ["dataset.n=300", "dataset.n_test=52"]


def start(folder: Path, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """`python -m alfm.extract ...` in a process group of its own."""
    configs = write_configs(folder / "conf")
    given = {"FEATURE_CACHE_DIR": str(folder / "features"), "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
    kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        [sys.executable, "-m", "alfm.extract", "--config-dir", str(configs), *WORDS, *words],
        cwd=folder,
        env=kept | given | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0, out
    return out


def kill(process: subprocess.Popen[str]) -> None:
    """kill -9 for it and all its workers."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def target(folder: Path, dataset: str = "dots") -> Path:
    return folder / "features" / dataset / "tiny.h5"


def same(one: Path, two: Path) -> None:
    assert verify(one).problems == verify(two).problems == []
    first, second = open_cache(one), open_cache(two)
    assert first.splits == second.splits
    for split in first.splits:
        np.testing.assert_array_equal(first.features(split), second.features(split))
        np.testing.assert_array_equal(first.labels(split), second.labels(split))
        assert first.ids(split) == second.ids(split)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    finish(start(folder))
    return target(folder)


@pytest.mark.parametrize("workers", [1, 3])
def test_killed_at_random_moments(tmp_path: Path, reference: Path, workers: int) -> None:
    words = (f"devices={workers}", "model.delay=0.1")
    rng = random.Random(workers)
    folder, done = PartsFolder(target(tmp_path)), 0
    for _ in range(2):
        process = start(tmp_path, *words)
        deadline = time.monotonic() + 120
        while not (folder.path.is_dir() and len(folder.done()) > done) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        time.sleep(rng.random() * 0.5)
        if process.poll() is None:
            kill(process)
        if folder.path.is_dir():
            assert len(folder.done()) > done
            done = len(folder.done())
    finish(start(tmp_path, f"devices={workers}"))
    same(target(tmp_path), reference)
    assert sorted(path.name for path in target(tmp_path).parent.iterdir()) == ["tiny.h5"]


def test_one_of_three_workers_killed_is_replaced_by_the_others(tmp_path: Path, reference: Path) -> None:
    processes = [start(tmp_path, "model.delay=0.05") for _ in range(3)]
    folder = PartsFolder(target(tmp_path))
    deadline = time.monotonic() + 120
    while not (folder.path.is_dir() and len(list(folder.path.glob("computed-*.log"))) == 3):
        assert time.monotonic() < deadline and target(tmp_path).exists() is False
        time.sleep(0.02)
    kill(processes.pop(1))
    for process in processes:
        finish(process)
    same(target(tmp_path), reference)


def test_three_workers_compute_no_part_twice(tmp_path: Path, reference: Path) -> None:
    log = tmp_path / "encoded.log"
    finish(start(tmp_path, "devices=3", f"model.log={log}", "model.delay=0.02"))
    same(target(tmp_path), reference)
    lines = [line.split() for line in log.read_text().splitlines()]
    batches = sum(-(-min(16, rows - start) // 8) for rows in (300, 52) for start in range(0, rows, 16))
    assert len(lines) == batches
    assert sum(int(rows) for _, rows in lines) == 352
    assert len({pid for pid, _ in lines}) == 3


def test_shards_of_a_job_array(tmp_path: Path, reference: Path) -> None:
    assert "This shard is done: 12 of 23 parts" in finish(start(tmp_path, "shard=0/2"))
    assert not target(tmp_path).exists()
    assert "Cache:" in finish(start(tmp_path, "shard=1/2"))
    same(target(tmp_path), reference)
    assert "Already cached" in finish(start(tmp_path, "shard=0/2"))


def test_torchrun_environment(tmp_path: Path, reference: Path) -> None:
    processes = [
        start(tmp_path, env={"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}) for rank in range(2)
    ]
    outs = [finish(process) for process in processes]
    same(target(tmp_path), reference)
    assert outs[1] == ""  # only the first prints


def test_a_mistake_in_one_worker_is_one_sentence(tmp_path: Path) -> None:
    process = start(tmp_path, "devices=2", "dataset.bad=[299]")
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "Error: train/00299.png: truncated." in out and "Traceback" not in out
    assert not target(tmp_path).exists()


def test_interrupted_finalising_restarts(tmp_path: Path, reference: Path) -> None:
    folder = PartsFolder(target(tmp_path))
    finish(start(tmp_path, "shard=0/2"))
    (folder.path / "merged.0123.tmp").write_bytes(b"left by a killed finaliser")
    process = start(tmp_path, "shard=1/2")
    finish(process)
    same(target(tmp_path), reference)
    assert not folder.path.exists()


def test_terminated_is_like_killed(tmp_path: Path, reference: Path) -> None:
    process = start(tmp_path, "model.delay=0.05")
    folder = PartsFolder(target(tmp_path))
    deadline = time.monotonic() + 120
    while not (folder.path.is_dir() and folder.done()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.terminate()
    process.communicate()
    assert folder.done()
    finish(start(tmp_path))
    same(target(tmp_path), reference)


def test_two_commands_at_once_share_the_work(tmp_path: Path, reference: Path) -> None:
    outs: list[str] = []
    processes = [start(tmp_path, "model.delay=0.02") for _ in range(2)]
    threads = [threading.Thread(target=lambda p=process: outs.append(finish(p))) for process in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outs) == 2 and all("Cache:" in out or "Already cached" in out for out in outs)
    same(target(tmp_path), reference)
