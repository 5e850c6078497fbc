"""The command: what it says, where it listens, how it ends."""

from __future__ import annotations

import builtins
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from alfm import label
from alfm.errors import UserError
from alfm.labelling.page.session import bound


def test_it_serves_until_ctrl_c_and_goes_on(digits_cache: Path, tmp_path: Path):
    (tmp_path / "told.csv").write_text("id,label\n3,7\n4,seven\n")
    words = [f"cache={digits_cache}", "labels_in_cache=ignore", "query_strategy=margins", "port=0", "labels=told.csv"]
    command = [sys.executable, "-m", "alfm.label", *words]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert running.stdout is not None
    said = [running.stdout.readline() for _ in range(3)]
    assert said[0].startswith("Read told.csv: 2 labels") and "2 of these are new" in said[1]
    address = said[2].split()[1]
    assert "pixels.labelling/journal.jsonl" in running.stdout.readline()
    assert b"alfm: label" in urlopen(address.partition("?")[0], timeout=20).read()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 0
    assert "Ended: 2 of 1257 items are labelled. The same command goes on from here." in out
    assert not err
    assert (tmp_path / "pixels.labelling" / "journal.jsonl").exists()


def test_a_port_in_use_is_one_sentence_that_names_a_free_one(digits_cache: Path, capsys, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert label.main([f"cache={digits_cache}", f"port={port}"]) == 1
        said = capsys.readouterr().err
        assert f"Port {port} is in use" in said and said.count("\n") == 1
        free = int(said.split("port=")[1].split(".")[0])
        bound("127.0.0.1", free).close()  # the advice works
    assert not list(tmp_path.glob("*.labelling"))  # nothing was begun


@pytest.mark.parametrize(("host", "port"), [("no.such.host.invalid", 8765), ("203.0.113.7", 8765)])
def test_a_host_that_is_not_this_one(host, port):
    with pytest.raises(UserError, match=f"host={host} port={port} cannot be listened at"):
        bound(host, port)


@pytest.mark.parametrize("word", ["port=70000", "port=x", "every=0", "target=2", "n=0", "hosts=7", "host="])
def test_wrong_settings_are_named(digits_cache: Path, word, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert label.main([f"cache={digits_cache}", word]) in (1, 2)
    assert word.partition("=")[0] in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(digits_cache: Path, capsys, monkeypatch):
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "uvicorn":
            raise ImportError("No module named 'uvicorn'", name="uvicorn")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert label.main([f"cache={digits_cache}"]) == 1
    assert "uvicorn, which is not installed: pip install 'alfm[label]'" in capsys.readouterr().err


def test_killed_while_labels_are_posted_none_is_lost_and_none_counts_twice(tmp_path: Path):
    """A short run of the benchmark, which forks servers: so in a process of its own."""
    script = Path(__file__).parents[3] / "benchmarks" / "kill_page.py"
    environment = os.environ | {"PYTHONPATH": str(script.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), "--kills", "2", "--longest", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "2 kills" in done.stdout and "none lost, none twice" in done.stdout


def test_the_worker_does_the_urgent_first_and_lasts():
    from alfm.labelling.page.worker import Worker

    done, go = [], threading.Event()

    def first() -> None:
        go.wait(10)
        done.append("first")

    def wrong() -> None:
        done.append("wrong")
        raise UserError("That was wrong.")

    worker = Worker({"first": first, "second": lambda: done.append("second"), "wrong": wrong})
    worker.start()
    worker.want("first")
    while worker.busy_with() is None:
        time.sleep(0.001)
    worker.want("wrong", "second", "first", "first")
    assert worker.pending("second") and not worker.wait(0.01)
    go.set()
    assert worker.wait(10)
    assert done == ["first", "first", "second", "wrong"]
    assert worker.trouble == {"wrong": "That was wrong."}
    assert worker.call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: 1 // 0)
    worker.close()
