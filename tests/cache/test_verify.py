"""`verify` finds what can go wrong with a cache, and `merge` refuses what is not whole."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from alfm.cache import open_cache
from alfm.cache.__main__ import main
from alfm.cache.merge import merge
from alfm.cache.parts import PartsFolder, PartWriter, part_is_whole, read_part
from alfm.cache.verify import verify
from alfm.cache.writer import CacheWriter
from alfm.datasets.marks import mark_of_bytes
from alfm.errors import UserError

DUMPS = json.dumps
PART = 50
MARKS = {"dataset_fingerprint": "a", "model_fingerprint": "b"}


def rows(split: str, n: int, d: int = 16) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(n)
    ids = [f"{split}/ä{row}.jpg" for row in range(n)]
    return rng.normal(size=(n, d)).astype("float16"), rng.integers(0, 5, n), ids


def marks_of(split: str, n: int) -> list[str]:
    return [mark_of_bytes(f"{split} {row}".encode()) for row in range(n)]


def write(path: Path) -> Path:
    attributes = MARKS | {"class_names": list("vwxyz"), "options": {"k": 1}}
    with CacheWriter(path, attributes) as writer:
        for split, n in (("train", 170), ("test", 60)):
            features, labels, ids = rows(split, n)
            marks = marks_of(split, n)
            writer.add_split(split, n, (16,), np.dtype("float16"), has_marks=True)
            for low in range(0, n, PART):
                high = min(low + PART, n)
                block = features[low:high], labels[low:high], ids[low:high]
                writer.append(split, *block, marks=marks[low:high])
        writer.list_skipped("train", [("train/bad.jpg", "truncated")])
        writer.finish()
    return path


def begin(target: Path) -> PartsFolder:
    """An extraction of which all parts are made."""
    folder = PartsFolder(target)
    settings = {"splits": [["train", 170], ["test", 60]], "part_size": PART}
    folder.create_manifest({"settings": settings, "attributes": MARKS, "run": "r"})
    index = 0
    for split, n in settings["splits"]:
        features, labels, ids = rows(split, n)
        marks = marks_of(split, n)
        for low in range(0, n, PART):
            part = PartWriter(folder.part_path(index))
            for start in range(low, min(low + PART, n), 20):
                stop = min(start + 20, low + PART, n)
                part.append(features[start:stop], labels[start:stop], ids[start:stop], marks[start:stop])
            part.finish()
            index += 1
    return folder


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    cache = open_cache(write(tmp_path / "a.h5"))
    for split, n in (("train", 170), ("test", 60)):
        features, labels, ids = rows(split, n)
        np.testing.assert_array_equal(cache.features(split), features)
        np.testing.assert_array_equal(cache.labels(split), labels)
        assert cache.ids(split) == ids and cache.marks(split) == marks_of(split, n)
    assert cache.class_names == list("vwxyz") and cache.attributes["options"] == '{"k": 1}'
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_ten_thousand_class_names_fit(tmp_path: Path) -> None:
    names = [f"Genus{number} species{number}" for number in range(10_000)]
    with CacheWriter(tmp_path / "a.h5", {"class_names": names}) as writer:
        writer.add_split("train", 1, (2,), np.dtype("float32"))
        writer.append("train", np.ones((1, 2), "float32"), np.array([9_999]), ["x"])
        writer.finish()
    assert open_cache(tmp_path / "a.h5").class_names == names


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), CacheWriter(tmp_path / "a.h5", {}) as writer:
        writer.add_split("train", 3, (2,), np.dtype("float16"))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_split_that_holds_nothing(tmp_path: Path) -> None:
    with CacheWriter(tmp_path / "a.h5", {"dataset_fingerprint": "d", "model_fingerprint": "m"}) as writer:
        for split, n in (("train", 2), ("test", 0)):
            writer.add_split(split, n, (3,), np.dtype("float16"))
            features, labels = np.ones((n, 3), "float16"), np.zeros(n, int)
            writer.append(split, features, labels, [str(row) for row in range(n)])
        writer.finish()
    cache = open_cache(tmp_path / "a.h5")
    assert verify(cache.path).problems == [] and cache.ids("test") == []
    assert cache.features("test").shape == (0, 3) and len(cache.labels("test")) == 0


FULL = "Can't decrement id ref count (unable to extend file properly, errno = 28, error message = 'No space left')"


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_a_disk_that_is_full_at_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    original = h5py.File.close

    def close(self: h5py.File) -> None:
        original(self)
        raise kind(FULL)

    monkeypatch.setattr(h5py.File, "close", close)
    with pytest.raises(UserError, match="is full: make room"):
        write(tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["create_group", "create_dataset", "__setitem__"])
def test_a_disk_that_is_full_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError(FULL)

    kind = h5py.Dataset if method == "__setitem__" else h5py.Group
    monkeypatch.setattr(kind, method, full)
    with pytest.raises(UserError, match="is full: make room"):
        write(tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


def test_sound_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.h5")
    assert verify(path).problems == []
    assert main(["verify", str(path)]) == 0
    assert "sound" in capsys.readouterr().out


def test_every_flipped_bit_of_the_rows_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    whole = path.read_bytes()
    features, labels, _ = rows("train", 170)
    rng = np.random.default_rng(0)
    pieces = {"features": features.tobytes(), "labels": labels.astype("<i8").tobytes(), "ids": "ä7.jpg".encode()}
    pieces["marks"] = marks_of("train", 170)[7].encode()
    for what, content in pieces.items():
        start = whole.find(content[:200])
        assert start > 0, what
        for _ in range(4):
            damaged = bytearray(whole)
            damaged[start + int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            problems = verify(path).problems
            assert problems and "train" in problems[0] or "labels" in problems[0], what


def test_flipped_bits_anywhere_are_found_or_change_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    whole = path.read_bytes()
    before = open_cache(path)
    named = {split: (before.ids(split), before.marks(split)) for split in before.splits}
    content = {split: (before.features(split), before.labels(split), named[split]) for split in before.splits}
    attributes = before.attributes
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        if verify(path).problems:
            continue
        after = open_cache(path)  # a bit in unused space
        assert after.splits == list(content)
        assert after.attributes == attributes
        for split, (features, labels, names) in content.items():
            np.testing.assert_array_equal(after.features(split), features)
            np.testing.assert_array_equal(after.labels(split), labels)
            assert (after.ids(split), after.marks(split)) == names


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncation_is_found(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "a.h5")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert verify(path).problems
    assert main(["verify", str(path)]) == 1


def test_nan_and_missing_parts_are_found(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["test/features"][52, 3] = np.nan
    problems = verify(path).problems
    assert len(problems) == 2 and "test: part 1, rows 50 to 59: NaN or Inf, first in row 52" in problems[0]
    path = write(path)
    with h5py.File(path, "a") as file:
        for name in ("part_stops", "checksums"):
            kept = file["train"][name][:-1]
            del file["train"][name]
            file["train"][name] = kept
    assert "end at row 150 of 170" in verify(path).problems[0]
    path = write(path)
    with h5py.File(path, "a") as file:
        del file["train/checksums"]
    assert "checksums are missing" in verify(path).problems[0]
    path = write(path)
    with h5py.File(path, "a") as file:
        del file["train/mark_checksums"]
    assert "checksums of the marks are missing" in verify(path).problems[0]


def test_marks_change_no_fingerprint_and_may_be_absent(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    marked = open_cache(path).fingerprint
    with h5py.File(path, "a") as file:
        for split in ("train", "test"):
            del file[split]["marks"], file[split]["mark_checksums"]
    assert verify(path).problems == []
    assert open_cache(path).fingerprint == marked and open_cache(path).marks("train") is None
    with h5py.File(path, "a") as file:
        file["train/marks"] = np.zeros((3, 3))
    with pytest.raises(UserError, match="train/marks has shape"):
        open_cache(path)


def test_foreign_caches_are_checked_for_what_can_be_known(tmp_path: Path) -> None:
    path = tmp_path / "old.hdf"
    with h5py.File(path, "w") as file:
        file["train/features"], file["train/labels"] = np.ones((9, 2), "float32"), np.zeros((9, 1))
    assert verify(path).problems == []
    with h5py.File(path, "a") as file:
        file["train/features"][4] = np.inf
    assert "row 4" in verify(path).problems[0]
    with pytest.raises(UserError, match="no cache"):
        verify(tmp_path / "none.h5")


# ---- parts ------------------------------------------------------------------------------------------------------


def test_merge_gives_what_the_parts_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "a.h5"
    begin(target)
    assert verify(target).problems == []
    assert main(["merge", str(target)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    whole, merged = open_cache(write(tmp_path / "b.h5")), open_cache(target)
    for split in ("train", "test"):
        np.testing.assert_array_equal(merged.features(split), whole.features(split))
        np.testing.assert_array_equal(merged.labels(split), whole.labels(split))
        assert merged.ids(split) == whole.ids(split) and merged.marks(split) == whole.marks(split)
    assert main(["merge", str(target)]) == 1
    assert "no folder" in capsys.readouterr().err


def test_items_of_parts_of_earlier_versions_have_no_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.h5"
    folder = begin(target)
    second = folder.part_path(1)
    with monkeypatch.context() as patched:  # as it was written before there were marks
        patched.setattr(json, "dumps", lambda tail: DUMPS({key: tail[key] for key in tail if key != "marks"}))
        part = PartWriter(second)
        features, labels, ids = rows("train", 170)
        part.append(features[PART : 2 * PART], labels[PART : 2 * PART], ids[PART : 2 * PART])
        part.finish()
    assert read_part(second).marks is None
    merge(folder, {"dataset_config": {"root": "x"}, "dataset_fingerprint": "not the manifest's"})
    assert verify(target).problems == []
    cache, marks = open_cache(target), marks_of("train", 170)
    assert cache.marks("train") == [*marks[:PART], *[""] * PART, *marks[2 * PART :]]
    assert cache.attributes["dataset_config"] == '{"root": "x"}' and cache.attributes["dataset_fingerprint"] == "a"


def test_missing_and_damaged_parts(tmp_path: Path) -> None:
    target = tmp_path / "a.h5"
    folder = begin(target)
    third = folder.part_path(3)
    good = third.read_bytes()
    third.unlink()
    assert "1 of 6 parts are missing: 3" in verify(target).problems[0]
    with pytest.raises(UserError, match="1 of 6 parts .* are missing"):
        merge(folder)
    for damaged in (good[:-1], good[:40], b"", bytes(32) + good):
        third.write_bytes(damaged)
        assert "is damaged" in verify(folder.path).problems[0]
    flipped = bytearray(good)
    flipped[11] ^= 4
    third.write_bytes(flipped)
    assert not part_is_whole(read_part(third))
    assert "part 3" in verify(folder.path).problems[0]
    with pytest.raises(UserError, match="damaged: delete that file"):
        merge(folder)
    assert not target.exists()
    third.write_bytes(good)
    merge(folder)
    assert verify(target).problems == []


def test_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(write(tmp_path / "a.h5"))]) == 0
    out = capsys.readouterr().out
    assert "5 classes" in out and "170" in out and "float16" in out and "dataset_fingerprint: a" in out
    assert main(["info", str(tmp_path / "b.h5")]) == 1
    assert capsys.readouterr().err.startswith("Error: There is no feature cache")


def test_a_cache_whose_class_numbers_have_gaps_is_sound(tmp_path: Path) -> None:
    with CacheWriter(tmp_path / "a.h5", MARKS) as writer:
        writer.add_split("train", 4, (2,), np.dtype("float16"), has_ids=False)
        writer.append("train", np.ones((4, 2), "float16"), np.array([1, 2, 3, 255]), None)
        writer.finish()
    assert verify(tmp_path / "a.h5").problems == []
    assert main(["info", str(tmp_path / "a.h5")]) == 0
