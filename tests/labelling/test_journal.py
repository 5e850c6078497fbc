"""The journal: on the disk before it is acknowledged, whatever breaks; nothing twice."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import subprocess
import sys

import pytest

from alfm.errors import UserError
from alfm.labelling import journal as module
from alfm.labelling.journal import Journal


def acts(*names, **more):
    return [{"id": name, "act": "skip", "item": name, **more} for name in names]


def write(folder, *names, **more):
    with Journal(folder).writing() as pen:
        pen.write(acts(*names, **more))


def read(folder):
    return [act["id"] for _, act in Journal(folder).news()]


def test_what_is_written_is_read_again_line_by_line(tmp_path):
    one, other = Journal(tmp_path / "state"), Journal(tmp_path / "state")
    assert not Journal.there(tmp_path / "state") and not Journal.there(tmp_path / "none")
    with one.writing() as pen:
        pen.write(acts("a", "b", label="Öl\n=cmd()\u2028"))
    assert one.news() == [] and Journal.there(tmp_path / "state")
    assert [(number, act["id"]) for number, act in other.news()] == [(1, "a"), (2, "b")]
    with other.writing() as pen:
        pen.write(acts("c"))
    with one.writing() as pen:
        assert [(number, act["id"]) for number, act in pen.others] == [(3, "c")]
    text = one.path.read_bytes().decode()
    assert text.count("\n") == 3 and json.loads(text.splitlines()[0] if "\u2028" not in text else text.split("\n")[0])


def test_half_a_character_in_a_file_name_is_kept(tmp_path):
    write(tmp_path, "\udcff")
    assert read(tmp_path) == ["\udcff"]


@pytest.mark.parametrize(
    "torn", [b'{"id": "x", "act": "la', b'{"id": "x", "act": "la\n', b"\0\0\0\0", b"\0\0\n", b"\xff\xfe", b"[1, 2]"]
)
def test_a_torn_last_line_is_no_act_and_is_overwritten(torn, tmp_path):
    write(tmp_path, "a")
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(torn)
    assert read(tmp_path) == ["a"]
    write(tmp_path, "b")
    assert read(tmp_path) == ["a", "b"]
    assert torn not in (tmp_path / "journal.jsonl").read_bytes()


def test_a_last_line_without_its_end_is_an_act_if_it_is_whole(tmp_path):
    """As editors leave it."""
    write(tmp_path, "a", "b")
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    journal = Journal(tmp_path)
    assert [act["id"] for _, act in journal.news()] == ["a", "b"]
    with journal.writing() as pen:
        pen.write(acts("c"))
    write(tmp_path, "d")
    assert read(tmp_path) == ["a", "b", "c", "d"]
    assert [(number, act["id"]) for number, act in journal.news()] == [(4, "d")]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    write(tmp_path, "a", "b")
    path = tmp_path / "journal.jsonl"
    first, second = path.read_text().splitlines()
    for broken in ("{", "nonsense", '"a text"', "[" * 100_000, first[:-1] + ', "id": "other"}'):
        path.write_text(f"{first}\n\n{broken}\n{second}\n")
        with pytest.raises(UserError, match=r"^Line 3 of .*journal\.jsonl is no act: put the line right"):
            read(tmp_path)


def test_a_file_that_was_cut_or_replaced_meanwhile_is_refused(tmp_path):
    write(tmp_path, "a", "b")
    journal = Journal(tmp_path)
    journal.news()
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    os.truncate(path, 5)
    with pytest.raises(UserError, match="replaced or cut while it was in use: load"):
        journal.news()
    (tmp_path / "other").write_bytes(whole * 2)
    path.unlink()
    with pytest.raises(UserError, match="is gone"):
        journal.news()
    (tmp_path / "other").rename(path)
    with pytest.raises(UserError, match="replaced or cut"), journal.writing():
        pass
    journal = Journal(tmp_path)
    journal.news()
    path.write_bytes(whole.replace(b"skip", b"label") * 3)  # by an editor that writes into the file
    with pytest.raises(UserError, match="replaced or cut"):
        journal.news()


@pytest.mark.parametrize("failure", ["at once", "half way", "at the end"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_one_sentence_and_nothing_is_recorded(failure, code, tmp_path, monkeypatch):
    write(tmp_path, "a")
    before = (tmp_path / "journal.jsonl").read_bytes()
    calls, real = [], os.write

    def full(file, text):
        calls.append(len(text))
        if failure == "at once" or len(calls) > 1:
            raise OSError(code, os.strerror(code))
        return real(file, text[: len(text) // 2])

    def unsynced(file):
        if not calls:
            calls.append(0)
            raise OSError(code, os.strerror(code))

    if failure == "at the end":
        monkeypatch.setattr(module.os, "fsync", unsynced)
    else:
        monkeypatch.setattr(module.os, "write", full)
    journal = Journal(tmp_path)
    refused = pytest.raises(UserError, match=r"cannot be written \(.*\), so nothing was recorded: make room")
    with refused, journal.writing() as pen:
        pen.write(acts("b", "c"))
    assert (tmp_path / "journal.jsonl").read_bytes() == before
    monkeypatch.undo()
    with journal.writing() as pen:
        pen.write(acts("b"))
    assert read(tmp_path) == ["a", "b"]


def test_a_file_that_the_system_lets_grow_no_further(tmp_path):
    """A real limit, which is met half way through a write."""
    write(tmp_path, "a")
    size = (tmp_path / "journal.jsonl").stat().st_size

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30, size + 30))

    code = f"""
from alfm.labelling.journal import Journal
from alfm.errors import UserError
try:
    with Journal({str(tmp_path)!r}).writing() as pen:
        pen.write([{{"id": "b" * 100, "act": "skip"}}])
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], preexec_fn=limit, capture_output=True, text=True, check=True)
    assert "so nothing was recorded" in done.stdout and done.stdout.count("\n") == 1
    assert (tmp_path / "journal.jsonl").stat().st_size == size and read(tmp_path) == ["a"]


def test_a_folder_that_cannot_be_one(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot hold a labelling state .*: name another"):
        Journal(tmp_path / "file")
    with pytest.raises(UserError, match="cannot hold a labelling state"):
        Journal(tmp_path / "file" / "inner")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_journal_that_may_only_be_read(tmp_path):
    write(tmp_path, "a")
    (tmp_path / "journal.jsonl").chmod(0o444)
    assert read(tmp_path) == ["a"]
    with pytest.raises(UserError, match=r"journal\.jsonl may not be written"):
        write(tmp_path, "b")


def test_a_disk_without_locks(tmp_path, monkeypatch):
    write(tmp_path, "a")

    def no_lock(file, kind):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(module.fcntl, "flock", no_lock)
    with pytest.raises(UserError, match="cannot be locked .* keep it on a disk of this machine"):
        read(tmp_path)


def _writer(folder, name, count):
    journal = Journal(folder)
    for number in range(count):
        with journal.writing() as pen:
            pen.write(acts(f"{name}{number}"))


def test_two_processes_write_one_file(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_writer, args=(tmp_path, name, 50)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    found = read(tmp_path)
    assert [name for name in found if name[0] == "a"] == [f"a{number}" for number in range(50)]
    assert sorted(found) == sorted(f"{name}{number}" for name in "ab" for number in range(50))
