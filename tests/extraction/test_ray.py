"""`engine=ray`: a two-node cluster on loopback, an actor killed, a node removed, and the cache of a local run.

Long, since Ray starts a dozen processes: `pytest -m slow tests/extraction/test_ray.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from standins import write_configs
from test_kill import ROOT, WORDS, finish, same, start, target, wait_for

from alfm import extract
from alfm.cache import open_cache
from alfm.cache.parts import PartsFolder

MEMORY = 80_000_000  # bytes of each node's object store, through which nothing of ours goes
OWN = {"run", "created", "metadata_checksum", "model_config"}


@pytest.fixture(autouse=True)
def no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{Path(__file__).parent}")


def test_without_the_package_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("alfm.extraction.ray_actors.find_spec", lambda name: None)
    assert extract.main(["engine=ray"]) == 1
    assert "engine=ray needs a package: pip install 'alfm[ray]'" in capsys.readouterr().err


@pytest.mark.slow
def test_an_actor_killed_and_a_node_removed(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    local, home = tmp_path / "local", tmp_path / "ray"
    local.mkdir(), home.mkdir()
    finish(start(local))
    configs = write_configs(home / "conf")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": MEMORY})
    try:
        second = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
        words = ["engine=ray", "devices=2", f"ray.address={cluster.address}", "model.delay=5"]
        command = [sys.executable, "-m", "alfm.extract", "--config-dir", str(configs), *WORDS, *words]
        process = subprocess.Popen(
            command, cwd=home, env=os.environ | {"FEATURE_CACHE_DIR": "features"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        folder = PartsFolder(target(home))

        def owners() -> dict[str, int]:
            """Live workers and how many parts each has computed."""
            names = os.listdir(folder.path / "workers") if (folder.path / "workers").is_dir() else []
            logs = {name: folder.path / f"computed-{name}.log" for name in names}
            return {name: len(log.read_text().split()) for name, log in logs.items() if log.exists()}

        wait_for(lambda: len(owners()) == 2, 300)  # both are at work
        before = set(owners())
        victim = min(before)
        os.kill(json.loads((folder.path / "workers" / victim).read_text())["pid"], signal.SIGKILL)
        wait_for(lambda: bool(set(owners()) - before) or target(home).exists(), 300)
        assert set(owners()) - before  # one in its place
        done = len(folder.done())
        assert done < 23
        cluster.remove_node(second, allow_graceful=False)
        out, _ = process.communicate(timeout=600)
        assert process.returncode == 0, out
    finally:
        cluster.shutdown()
    same(target(home), target(local))
    one, two = dict(open_cache(target(home)).attributes), dict(open_cache(target(local)).attributes)
    assert {key for key in one.keys() | two.keys() if str(one.get(key)) != str(two.get(key))} <= OWN
    assert [path.name for path in target(home).parent.iterdir()] == ["tiny.h5"]
