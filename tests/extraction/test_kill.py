"""Extraction by several workers, killed at any moment: the cache is the one an uninterrupted run makes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import workers
from standins import write_configs

from alfm import extract
from alfm.cache import open_cache
from alfm.cache.parts import PartsFolder
from alfm.cache.verify import verify
from alfm.errors import UserError
from alfm.extraction.processes import launch

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("dataset=dots", "model=tiny", "threads=1", "batch_size=8", "part_size=16")
WORDS += ("dataset.n=300", "dataset.n_test=52", "cache.dtype=float32")  # no sample is encoded: passes are counted


class Worker:
    """`alfm.extract` in a forked process: as a command of its own, without the seconds that importing torch takes."""

    def __init__(
        self, folder: Path, words: tuple[str, ...], env: dict[str, str], common: tuple[str, ...] = WORDS
    ) -> None:
        self.log = folder / f"{uuid.uuid4().hex}.log"
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                os.chdir(folder)
                sys.stdout = sys.stderr = self.log.open("w", buffering=1)
                for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
                    os.environ.pop(name, None)
                os.environ.update({"FEATURE_CACHE_DIR": str(folder / "features"), **env})
                status = extract.main([*common, *words])
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)

    def alive(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self) -> tuple[int, str]:
        """Exit status and what was printed."""
        deadline = time.monotonic() + 120
        while self.alive():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.01)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), self.log.read_text() if self.log.exists() else ""

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)
        self.wait()


def start(folder: Path, *words: str, env: dict[str, str] | None = None) -> Worker:
    write_configs(folder / "conf")
    return Worker(folder, ("--config-dir", str(folder / "conf"), *words), env or {})


def finish(*workers: Worker) -> list[str]:
    """Wait for all; what each printed."""
    ended = [worker.wait() for worker in workers]
    for status, out in ended:
        assert status == 0, out
    return [out for _, out in ended]


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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


@pytest.mark.parametrize("count", [1, 3])
def test_killed_at_random_moments(tmp_path: Path, reference: Path, count: int) -> None:
    rng = random.Random(count)
    folder, done = PartsFolder(target(tmp_path)), 0
    for _ in range(4):
        started = [start(tmp_path, f"model.delay={0.05 * count}") for _ in range(count)]
        wait_for(lambda before=done: folder.path.is_dir() and len(folder.done()) > before)
        time.sleep(rng.random() * 0.2)
        for worker in started:
            worker.kill()
        assert len(folder.done()) > done
        done = len(folder.done())
    assert done < 23
    finish(*(start(tmp_path) for _ in range(count)))
    same(target(tmp_path), reference)
    assert [path.name for path in target(tmp_path).parent.iterdir()] == ["tiny.h5"]


def test_one_of_three_workers_killed_is_replaced_by_the_others(tmp_path: Path, reference: Path) -> None:
    three = [start(tmp_path, "model.delay=0.1") for _ in range(3)]
    folder = PartsFolder(target(tmp_path))
    wait_for(lambda: folder.path.is_dir() and len(list(folder.path.glob("computed-*.log"))) == 3)
    three.pop(1).kill()
    finish(*three)
    same(target(tmp_path), reference)


def test_terminated_is_like_killed(tmp_path: Path, reference: Path) -> None:
    worker = start(tmp_path, "model.delay=0.1")
    folder = PartsFolder(target(tmp_path))
    wait_for(lambda: folder.path.is_dir() and bool(folder.done()))
    worker.kill(signal.SIGTERM)
    assert 0 < len(folder.done()) < 23
    finish(start(tmp_path))
    same(target(tmp_path), reference)


def test_three_workers_at_once_compute_no_part_twice(tmp_path: Path, reference: Path) -> None:
    log = tmp_path / "encoded.log"
    outs = finish(*(start(tmp_path, f"model.log={log}", "model.delay=0.05") for _ in range(3)))
    assert all("Cache:" in out for out in outs)
    same(target(tmp_path), reference)
    count_passes(log)


def test_devices_start_workers_that_share(tmp_path: Path, reference: Path) -> None:
    """The real command: its processes are spawned."""
    log = tmp_path / "encoded.log"
    configs = write_configs(tmp_path / "conf")
    command = [sys.executable, "-m", "alfm.extract", "--config-dir", str(configs), *WORDS, "devices=2"]
    given = {"FEATURE_CACHE_DIR": "features", "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
    kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    words = [f"model.log={log}", "model.delay=0.05"]
    done = subprocess.run(
        [*command, *words], cwd=tmp_path, env=kept | given, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Cache:") == 1
    same(target(tmp_path), reference)
    count_passes(log)


@pytest.mark.parametrize(
    ("child", "says"),
    [(workers.mistaken, "the second is wrong"), (workers.broken, "ZeroDivisionError"), (workers.killed, "were killed")],
)
def test_a_worker_that_fails_stops_the_run(
    child: Callable[..., None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with pytest.raises(UserError, match=says):
        launch({"shard": None}, 2, child)


def test_workers_are_told_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    launch({"shard": None, "out": str(tmp_path)}, 2, workers.placed)
    places = sorted(path.read_text() for path in tmp_path.iterdir())
    assert [place.split()[:2] for place in places] == [["0", "2"], ["1", "2"]]
    assert len({place.split()[2] for place in places}) == 1  # one name of the run


def count_passes(log: Path) -> None:
    """Every item went through the model once, and a batch of every part."""
    lines = [line.split() for line in log.read_text().splitlines()]
    batches = sum(-(-min(16, rows - low) // 8) for rows in (300, 52) for low in range(0, rows, 16))
    assert len(lines) == batches
    assert sum(int(rows) for _, rows in lines) == 352
    assert len({pid for pid, _ in lines}) > 1


def test_shards_of_a_job_array(tmp_path: Path, reference: Path) -> None:
    assert "This shard is done: 12 of 23 parts" in finish(start(tmp_path, "shard=0/2"))[0]
    assert not target(tmp_path).exists()
    assert "Cache:" in finish(start(tmp_path, "shard=1/2"))[0]
    same(target(tmp_path), reference)
    assert "Already cached" in finish(start(tmp_path, "shard=0/2"))[0]


def test_torchrun_environment(tmp_path: Path, reference: Path) -> None:
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"} for rank in range(2)]
    outs = finish(*(start(tmp_path, env=env) for env in ranks))
    same(target(tmp_path), reference)
    assert "Cache:" in outs[0] and outs[1] == ""  # only the first prints


def test_interrupted_finalising_restarts(tmp_path: Path, reference: Path) -> None:
    folder = PartsFolder(target(tmp_path))
    finish(start(tmp_path, "shard=0/2"))
    (folder.path / "merged.0123.tmp").write_bytes(b"left by a killed finaliser")
    folder.path.with_name(f"{folder.path.name}.0123.gone").mkdir()  # and by one killed while tidying up
    finish(start(tmp_path, "shard=1/2"))
    same(target(tmp_path), reference)
    assert [path.name for path in target(tmp_path).parent.iterdir()] == ["tiny.h5"]


def test_killed_between_the_rename_and_tidying_up(tmp_path: Path, reference: Path) -> None:
    folder = PartsFolder(target(tmp_path))
    finish(start(tmp_path, "shard=0/2"))
    shutil.copytree(folder.path, tmp_path / "kept")
    finish(start(tmp_path, "shard=1/2"))
    (tmp_path / "kept").rename(folder.path)  # as if it had never been removed
    folder.path.with_name(f"{folder.path.name}.0123.gone").mkdir()
    assert "Already cached" in finish(start(tmp_path))[0]
    same(target(tmp_path), reference)
    assert [path.name for path in target(tmp_path).parent.iterdir()] == ["tiny.h5"]
