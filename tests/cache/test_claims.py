"""Claims: one owner at a time, taken over when the owner is dead, whoever asks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from alfm.cache import claims as module
from alfm.cache.claims import Claims
from alfm.cache.parts import PartsFolder
from alfm.errors import UserError

MANIFEST = {"settings": {"splits": [["train", 8]], "part_size": 1}, "attributes": {}, "run": "r"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    PartsFolder(tmp_path / "a.h5").create_manifest(MANIFEST)
    return tmp_path / "a.h5.parts"


def test_one_owner_at_a_time(folder: Path) -> None:
    one, two = Claims(folder, 60), Claims(folder, 60)
    assert one.claim("0") and not two.claim("0") and not one.claim("0")
    assert two.claim("1") and not one.claim("1")
    assert one.live_workers() == [two.owner]
    one.close()
    assert two.live_workers() == []
    assert two.claim("0")  # given back
    two.close()


def _claim_and_wait(folder: Path, ready: object) -> None:
    claims = Claims(folder, 60)
    assert claims.claim("0")
    ready.set()  # type: ignore[attr-defined]
    time.sleep(600)


def test_a_killed_owner_is_noticed_at_once(folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=_claim_and_wait, args=(folder, ready))
    child.start()
    assert ready.wait(60)
    mine = Claims(folder, 3600)
    assert not mine.claim("0")
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    assert mine.claim("0")
    mine.close()


def test_a_silent_owner_on_another_machine_is_dead_after_its_lease(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far, near = Claims(folder, 60), Claims(folder, 60)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(module, "_machine", lambda: "another")
        assert far.claim("0")
    assert not near.claim("0")
    old = time.time() - 61
    os.utime(folder / "workers" / far.owner, (old, old))  # a claim is a link to it, so it ages with it
    assert near.claim("0")
    # waking up late changes nothing: the new generation counts
    os.utime(folder / "workers" / far.owner)
    assert not far.claim("0")
    far.close()
    near.close()


def test_signs_of_life(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SAFE_LEASE", 0.1)
    claims = Claims(folder, 0.3)
    assert claims.claim("0")
    first = (folder / "claims" / "0.0").stat().st_mtime_ns
    deadline = time.monotonic() + 30
    while (folder / "claims" / "0.0").stat().st_mtime_ns == first:
        assert time.monotonic() < deadline, "the claim was never touched again"
        time.sleep(0.02)
    claims.close()


def test_file_systems_without_hard_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(source: object, name: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_link)
    one, two = Claims(folder, 60), Claims(folder, 60)
    assert one.claim("0") and not two.claim("0") and two.claim("1")
    one.close()
    assert two.claim("0")
    two.close()


def _claim_many(folder: Path, gate: object, out: multiprocessing.Queue) -> None:
    claims = Claims(folder, 60)
    gate.wait()  # type: ignore[attr-defined]
    out.put([key for key in range(40) if claims.claim(f"{key}")])
    gate.wait()  # type: ignore[attr-defined]


def test_many_at_once_share_without_overlap(folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    gate, out = context.Barrier(4), context.Queue()
    children = [context.Process(target=_claim_many, args=(folder, gate, out)) for _ in range(4)]
    for child in children:
        child.start()
    won = [key for _ in children for key in out.get(timeout=60)]
    for child in children:
        child.join()
    assert sorted(won) == list(range(40))


def test_claim_first_skips_what_is_done_or_taken(tmp_path: Path) -> None:
    with PartsFolder(tmp_path / "a.h5") as one, PartsFolder(tmp_path / "a.h5") as two:
        assert one.create_manifest(MANIFEST) and not two.create_manifest(MANIFEST | {"run": "other"})
        assert two.read_manifest() == MANIFEST
        one.part_path(0).write_bytes(b"")
        assert one.claim_first(range(8)) == 1
        assert two.claim_first(range(8)) == 2
        assert one.claim_first(range(1, 8, 2)) == 3
        assert two.claim_first(range(4)) is None
        assert one.claim_first(range(3)) is None  # its own is not handed out twice


def test_a_lease_too_short_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="lease_seconds"):
        Claims(folder, 1)
