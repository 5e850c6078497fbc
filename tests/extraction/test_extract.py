"""`python -m alfm.extract` from the outside: what it makes, what it refuses, and how it says so."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from standins import dots, plain_features

from alfm.cache import open_cache
from alfm.cache.parts import PartsFolder, PartWriter
from alfm.cache.verify import verify
from alfm.datasets.base import Dataset
from alfm.datasets.folder import folder
from alfm.datasets.ids import unescape
from alfm.errors import UserError
from alfm.extraction.plan import available_cores, choose_threads

Run = Callable[..., int]
ROOT = Path(__file__).resolve().parents[2]


def data(**changes: object):
    defaults = {"n": 60, "n_test": 20, "name": "dots", "bad": [], "ids": None, "modality": "image", "size": 8}
    return dots(**(defaults | changes))


def cache(path: str = "features/dots/tiny.h5"):
    assert verify(Path(path)).problems == []
    return open_cache(path)


def files(folder: str = "features") -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_rows_equal_a_plain_forward_pass(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cache.dtype=float32") == 0
    made = cache()
    for name, split in data().splits.items():
        np.testing.assert_allclose(made.features(name), plain_features(split), atol=1e-4)
        np.testing.assert_array_equal(made.labels(name), split.labels)
        assert made.ids(name) == split.ids
    assert made.class_names == ["ant", "bee", "cat"]
    wanted = {"dataset": "dots", "model": "tiny", "batch_size": 8, "precision": "float32", "layer": "last", "views": 1}
    assert wanted.items() <= made.attributes.items()
    assert files() == ["dots/tiny.h5"]
    out = capsys.readouterr().out
    assert "on cpu" in out and "items/s" in out and "python -m alfm.al_train" in out
    for name, split in data().splits.items():
        numbers = [int((split.labels == label).sum()) for label in range(3)]
        each = ", ".join(f"{kind} {count}" for kind, count in zip(made.class_names, numbers, strict=True))
        assert f"{name}: all {len(split)} items labelled ({each})" in out


def test_float16_by_default_and_names_can_be_given(run: Run) -> None:
    assert run("cache.dataset=my set", "cache.model=../x", "splits=[test]") == 0
    assert files() == ["my_set/x.h5"]
    made = cache("features/my_set/x.h5")
    assert made.splits == ["test"] and made.dtype("test") == np.float16
    np.testing.assert_allclose(made.features("test"), plain_features(data().splits["test"]), atol=0.02)


def test_worker_processes_give_the_same(run: Run) -> None:
    assert run("num_workers=0", "cache.dataset=a") == 0
    assert run("num_workers=2", "cache.dataset=b") == 0
    one, two = cache("features/a/tiny.h5"), cache("features/b/tiny.h5")
    for name in one.splits:
        np.testing.assert_array_equal(one.features(name), two.features(name))
    assert one.fingerprint == two.fingerprint


def test_already_cached(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    before = Path("features/dots/tiny.h5").stat().st_mtime_ns
    capsys.readouterr()
    assert run("batch_size=4") == 0  # decides only how it was made
    assert "Already cached" in capsys.readouterr().out
    assert Path("features/dots/tiny.h5").stat().st_mtime_ns == before
    assert run("force=true") == 0
    assert Path("features/dots/tiny.h5").stat().st_mtime_ns != before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("dataset.n=61", "dataset_fingerprint: dots-60-20-8 there, dots-61-20-8 now"),
        ("model.seed=1", "model_fingerprint: tiny-0-5 there, tiny-1-5 now"),
        ("cache.dtype=float32", "dtype: float16 there, float32 now"),
        ("splits=[train]", "splits"),
    ],
)
def test_another_cache_under_the_name_is_not_touched(
    run: Run, capsys: pytest.CaptureFixture[str], change: str, says: str
) -> None:
    assert run() == 0
    before = Path("features/dots/tiny.h5").read_bytes()
    assert run(change) == 1
    assert says in capsys.readouterr().err
    assert Path("features/dots/tiny.h5").read_bytes() == before
    assert run(change, "force=true") == 0


def test_a_damaged_cache_is_refused_and_can_be_replaced(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    Path("features/dots/tiny.h5").write_bytes(b"nothing")
    assert run() == 1
    assert "damaged" in capsys.readouterr().err
    assert run("force=true") == 0
    cache()


# ---- items that cannot be read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_item_stops_the_run_and_names_it(
    run: Run, capsys: pytest.CaptureFixture[str], num_workers: int
) -> None:
    assert run("dataset.bad=[37]", f"num_workers={num_workers}") == 1
    err = capsys.readouterr().err
    assert err == "Error: train/00037.png: truncated. Leave such items out with on_error=skip.\n"
    assert not Path("features/dots/tiny.h5").exists()
    # parts done before it are kept, and skipping goes on from there
    kept = PartsFolder(Path("features/dots/tiny.h5")).done()
    assert kept and run("dataset.bad=[37]", "on_error=skip") == 0


def test_unreadable_items_are_left_out_counted_and_listed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [0, 5, *range(16, 32), 59]  # a whole part among them
    assert run(f"dataset.bad={bad}", "on_error=skip", "cache.dtype=float32") == 0
    split = data(bad=bad).splits["train"]
    made = cache()
    keep = [row for row in range(60) if row not in bad]
    np.testing.assert_allclose(made.features("train"), plain_features(split), atol=1e-4)
    np.testing.assert_array_equal(made.labels("train"), split.labels[keep])
    assert made.ids("train") == [split.ids[row] for row in keep]
    assert made.attributes["num_skipped"] == 19
    out = capsys.readouterr().out
    assert "left out: train/00005.png (train/00005.png: truncated)" in out and "19" in out


def test_nothing_readable(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"dataset.bad={list(range(60))}", "on_error=skip", "splits=[train]") == 1
    assert "No item could be read, the first being train/00000.png" in capsys.readouterr().err
    assert not Path("features/dots/tiny.h5").exists()


def test_a_split_of_which_nothing_is_readable(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for split, count in (("train", 3), ("test", 1)):
        folder = Path("photos", split, "ant")
        folder.mkdir(parents=True)
        for row in range(count):
            data().splits["train"].load(row).save(folder / f"{row}.png")
    Path("photos/test/ant/0.png").write_bytes(b"")
    words = ["dataset=image_folder", "dataset.root=photos"]
    assert run(*words, "on_error=skip") == 0
    made = cache("features/photos/tiny.h5")
    assert made.num_rows("train") == 3 and made.features("test").shape == (0, 5) and made.ids("test") == []
    assert files() == ["photos/tiny.h5"] and "left out: test/ant/0.png" in capsys.readouterr().out
    assert run(*words, "on_error=skip") == 0
    assert "Already cached" in capsys.readouterr().out


def test_duplicate_ids(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    ids = "dataset.ids=[a,b,a]"
    assert run(ids) == 1
    assert "1 ids occur more than once in train, such as 'a'" in capsys.readouterr().err
    assert run(ids, "on_error=skip") == 0
    made = cache()
    assert (made.ids("train") or [])[:3] == ["a", "b", "train/00003.png"] and made.num_rows("train") == 59
    assert "left out: a (its id was there before)" in capsys.readouterr().out


def test_ids_that_are_not_utf8_come_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import standins

    names = ["caf\udce9.png", "100%FF.png", "plain.png"]
    original = standins.dots
    monkeypatch.setattr(standins, "dots", lambda **given: original(**(given | {"ids": names})))
    assert run() == 0
    stored = cache().ids("train") or []
    assert [unescape(text) for text in stored[:3]] == names


# ---- models that misbehave --------------------------------------------------------------------------------------


def test_beyond_float16_stops_and_float32_holds_it(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:  # a sample without such items
        patched.setattr("alfm.extraction.agreement.choose_dtype", lambda *_: {"dtype": "float16"})
        assert run("model.trouble=large") == 1
    assert "The features of train/00007.png reach" in (err := capsys.readouterr().err)
    assert not Path("features/dots/tiny.h5").exists()
    assert run("model.trouble=large", *advice(err)) == 0
    assert np.abs(cache().features("train")).max() > 65504


def advice(err: str) -> list[str]:
    """The settings that a sentence names after `use`."""
    return [word.rstrip(",.:") for word in err.partition(": use ")[2].split() if "=" in word][:2]


@pytest.mark.parametrize(
    ("trouble", "says"),
    [("tiny", "times their spread"), ("offset", "times their spread"), ("large", "hold values")],
)
def test_features_that_float16_would_destroy_are_stored_in_float32(
    run: Run, capsys: pytest.CaptureFixture[str], trouble: str, says: str
) -> None:
    """Seen on a sample before the first part: nobody has to know, and who insists gets a sentence at once."""
    words = [f"model.trouble={trouble}", "batch_size=16"]
    assert run(*words, "cache.dtype=float16") == 1
    err = capsys.readouterr().err
    assert says in err and "cache.dtype=float32" in err and err.count("\n") == 1
    assert not Path("features").exists()  # not even parts
    assert run(*words) == 0
    assert "Stored as float32: float16" in (out := capsys.readouterr().out) and says in out
    made = cache()
    assert made.dtype("train") == np.float32 and says in made.attributes["dtype_reason"]
    assert run(*words) == run(*words, "cache.dtype=float32") == 0
    assert capsys.readouterr().out.count("Already cached") == 2
    assert run(*words, "cache.dtype=float16") == 1
    assert "dtype: float32 there, float16 now" in capsys.readouterr().err


def test_a_later_part_that_float16_would_destroy_stops(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("model.trouble=late offset") == 1
    err = capsys.readouterr().err
    assert "in part 2 (train, to row 47)" in err and err.count("\n") == 1
    assert PartsFolder(Path("features/dots/tiny.h5")).done() == {0, 1}
    assert advice(err) == ["cache.dtype=float32", "force=true"]
    assert run("model.trouble=late offset", *advice(err)) == 0
    assert cache().dtype("train") == np.float32


def test_caches_and_parts_of_earlier_versions_are_gone_on_with(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """They were told float16, by default, and know nothing of a spread."""
    import json

    assert run("cache.dtype=float16") == 0 == run()
    assert "Already cached" in capsys.readouterr().out
    assert run("dataset.bad=[37]", "cache.dataset=begun") == 1
    manifest = Path("features/begun/tiny.h5.parts/manifest.json")
    old = json.loads(manifest.read_text())
    assert old["settings"].pop("spread") > 0
    manifest.write_text(json.dumps(old))
    assert run("cache.dataset=begun") == 0
    assert "Going on" in capsys.readouterr().out
    assert cache("features/begun/tiny.h5").fingerprint == cache().fingerprint


def test_nan_in_half_precision_is_computed_again_in_float32(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("model.trouble=half", "precision=bfloat16", "cache.dtype=float32") == 0
    made = cache()
    np.testing.assert_allclose(made.features("train"), plain_features(data().splits["train"]), atol=1e-4)
    assert made.attributes["events"][0] == "part 0: NaN or Inf in bfloat16: computed in float32"
    assert "computed in float32" in capsys.readouterr().out


def test_nan_in_float32_names_the_item(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    split = data().splits["train"]
    wrong = [row for row in range(60) if np.array(split.load(row))[0, 0, 0] < 8]
    assert 0 < len(wrong) < 10  # the stand-in model fails on these
    assert run("model.trouble=broken", "splits=[train]") == 1
    assert f"gives NaN or Inf for {split.ids[wrong[0]]}" in capsys.readouterr().err
    assert run("model.trouble=broken", "splits=[train]", "on_error=skip") == 0
    assert cache().ids("train") == [text for row, text in enumerate(split.ids) if row not in wrong]


def test_out_of_memory_is_tried_in_smaller_pieces(run: Run) -> None:
    assert run("model.trouble=memory", "cache.dtype=float32") == 0
    made = cache()
    np.testing.assert_allclose(made.features("train"), plain_features(data().splits["train"]), atol=1e-4)
    assert "part 0: out of memory with 8 rows: tried again with 4" in made.attributes["events"]


def test_one_item_too_large_for_memory(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("model.trouble=no memory") == 1
    assert "One item alone does not fit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model.trouble=load"], "weights of tiny cannot be had"),
        (["model.trouble=shape"], "gave features (8, 1, 5) for 8 items"),
        (["model.modality=text"], "tiny takes text and dots is image"),
        (["splits=[tran]"], "dots has no split 'tran': did you mean train"),
        (["dataset.n=0", "dataset.n_test=0"], "dots has no items"),
        (["on_error=ignore"], "stop or skip is needed"),
        (["cache.dtype=int8"], "auto, float16 or float32 is needed"),
        (["batch_size=0"], "batch_size=0: a whole number between 1 and 1000000 or auto is needed"),
        (["device=tpu"], "There is no device 'tpu'"),
        (["device=cuda:99"], "This machine has no device cuda:99"),
        (["devices=4", "device=cuda:1"], "each worker takes a GPU of its own; give device=cuda"),
        (["ray.num_gpus=0.5"], "ray.num_gpus=0.5: Ray runs nothing without engine=ray"),
        (["precision=float8"], "precision=float8"),
        (["shard=4/4"], "give i/n with i from 0 to n-1"),
        (["views=3"], "add augment=randaugment"),
        (["lease_seconds=1"], "lease_seconds"),
        (["shard=0/2", "force=true"], "force=true cannot be given to several workers"),
    ],
)
def test_mistakes(run: Run, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert run(*words) == 1
    captured = capsys.readouterr()
    assert says in captured.err and captured.err.startswith("Error: ") and captured.err.count("\n") == 1
    assert not Path("features/dots/tiny.h5").exists()


def test_data_sets_that_contradict_themselves(run: Run, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    import standins

    original = standins.dots

    def wrong(**given: object):
        made = original(**given)
        made.splits["train"].labels = made.splits["train"].labels[:-1] if given["name"] == "short" else np.full(60, 3)
        return made

    monkeypatch.setattr(standins, "dots", wrong)
    assert run("dataset.name=short") == 1
    assert "train of short has 60 items, 59 labels and 60 ids" in capsys.readouterr().err
    assert run() == 1
    assert "label 3 and there are 3 classes" in capsys.readouterr().err


def test_an_empty_split_is_left_away(run: Run) -> None:
    assert run("dataset.n_test=0") == 0
    assert cache().splits == ["train"]
    assert run("dataset.n_test=0") == 0


# ---- disks that misbehave ---------------------------------------------------------------------------------------


def test_a_full_disk_leaves_finished_parts_intact(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("cache.dataset=reference") == 0
    original, finished = PartWriter.finish, []

    def full(self: PartWriter) -> None:
        if len(finished) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self)
        finished.append(1)

    with monkeypatch.context() as patched:
        patched.setattr(PartWriter, "finish", full)
        assert run() == 1
    assert "disk" in (err := capsys.readouterr().err) and "is full" in err
    folder = PartsFolder(Path("features/dots/tiny.h5"))
    assert folder.done() == {0, 1} and not list(folder.path.glob("*.tmp"))
    assert run() == 0
    assert "32 of 80 items are already done" in capsys.readouterr().out
    assert cache().fingerprint == cache("features/reference/tiny.h5").fingerprint


def test_a_disk_that_fills_while_finalising(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from alfm.cache.writer import CacheWriter

    def full(self: CacheWriter, *_: object) -> None:
        from alfm.cache.writer import cannot_write

        raise cannot_write(self.path, OSError(errno.ENOSPC, "No space left on device"))

    with monkeypatch.context() as patched:
        patched.setattr(CacheWriter, "append", full)
        assert run() == 1
    assert "is full" in capsys.readouterr().err
    assert not Path("features/dots/tiny.h5").exists()
    log = Path("encoded.log")
    assert run(f"model.log={log}") == 0
    assert not log.exists()  # nothing was computed again
    cache()


def test_too_little_room_for_the_finished_file_is_said_before_writing_it(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
        assert run() == 1
    assert "is full" in capsys.readouterr().err
    assert not list(Path("features").rglob("*.tmp"))
    assert run() == 0


def test_a_target_that_cannot_be_written(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("features").write_text("a file where the folder should be")
    assert run() == 1
    assert "cannot be written to" in (err := capsys.readouterr().err) and "FEATURE_CACHE_DIR" in err


def test_a_read_only_target(run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)  # root may write anywhere, so a chmod would show nothing
    assert run() == 1
    assert "Read-only file system" in (err := capsys.readouterr().err) and "FEATURE_CACHE_DIR" in err


# ---- the rest ---------------------------------------------------------------------------------------------------


def test_settings_that_differ_are_not_mixed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("dataset.bad=[59]") == 1
    capsys.readouterr()
    assert run("batch_size=4") == 1
    assert "was begun with other settings (batch_size: 8 there, 4 now)" in capsys.readouterr().err
    assert run("batch_size=auto", "part_size=auto", "threads=auto") == 0  # auto goes on with what is there
    assert cache().attributes["batch_size"] == 8


def pictures(root: Path, values: list[np.ndarray]) -> Path:
    for number, value in enumerate(values):
        place = root / "ab"[number % 2] / f"{number:03d}.tif"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(value).save(place)
    return root


def named(text: str, key: str) -> str:
    """The setting that a sentence tells a person to type."""
    return next(word.rstrip(".,:;") for word in shlex.split(text) if word.startswith(f"{key}="))


def test_the_tools_own_advice_works_after_a_failed_run(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    values = [np.full((6, 5), number, np.uint8) for number in range(60)]
    values[59] = np.zeros((7, 7), np.uint8)
    words = ["dataset=image_folder", f"dataset.root={pictures(tmp_path / 'p', values)}", "model=pixels", "splits=null"]
    assert run(*words, "cache.dtype=float32") == 1  # nothing is sampled: it fails at the end
    parts = PartsFolder(Path("features/p/pixels.h5"))
    assert len(parts.done()) == 3
    told = named(capsys.readouterr().err, "model.size")
    assert run(*words, "cache.dtype=float32", told) == 0
    assert cache("features/p/pixels.h5").dim == 32 * 32 * 3 and not parts.path.exists()


def test_an_image_beyond_the_scale_of_its_data_set_and_the_advice(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    values = [np.full((4, 4), 10 + number % 80, np.uint16) for number in range(600)]
    root = pictures(tmp_path / "deep", values)
    words = ["dataset=image_folder", f"dataset.root={root}", "model=pixels", "cache.dtype=float32", "on_error=skip"]
    settled = folder(str(root))
    assert settled.intensity_range == [0, 255]
    name = beyond_the_sample(settled)
    Image.fromarray(np.full((4, 4), 4000, np.uint16)).save(root / name)
    assert run(*words) == 1
    err = capsys.readouterr().err
    assert f"{name} has values from 4000 to 4000, beyond the range from 0 to 255" in err
    assert run(*words, named(err, "dataset.intensity_range")) == 0
    out = capsys.readouterr().out
    assert "Only train is labelled: al_train needs a labelled test split too" in out and "a 300" in out
    made = cache("features/deep/pixels.h5")
    assert made.attributes["intensity_range"] == "[0, 4095]"
    row = (made.ids("train") or []).index(name)
    assert np.allclose(made.read_rows("train", row, row + 1), round(4000 / 4095 * 255) / 255)
    assert run(*words, named(err, "dataset.intensity_range")) == 0 and "Already cached" in capsys.readouterr().out
    assert run(*words) == 1 and "is another cache" in capsys.readouterr().err


def beyond_the_sample(data: Dataset) -> str:
    """The last item whose values the choice of a scale does not look at."""
    from alfm.datasets import intensity

    seen = [os.path.relpath(source, data.splits["train"].root) for source in intensity._sources(data.splits)]
    return [name for name in data.splits["train"].ids if name not in seen[: intensity._DECODED]][-1]


def test_parts_of_other_settings(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("dataset.bad=[0]", "cache.dtype=float32") == 1  # before any part is done
    folder = PartsFolder(Path("features/dots/tiny.h5"))
    assert folder.path.exists() and not folder.done()
    assert run("batch_size=4", "cache.dtype=float32", "dataset.bad=[59]") == 1  # starts over without a word
    capsys.readouterr()
    assert run("cache.dtype=float32") == 1
    assert "or add force=true, which throws away the 3 parts that are done" in capsys.readouterr().err
    assert run("cache.dtype=float32", "force=true") == 0
    assert cache().attributes["batch_size"] == 8 and not folder.path.exists()


def test_starting_over_spares_what_another_worker_has_begun_meanwhile(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alfm.cache.claims import Claims

    assert run("dataset.bad=[0]", "cache.dtype=float32") == 1
    folder = PartsFolder(Path("features/dots/tiny.h5"))
    claim = Claims.claim

    def late(self: Claims, key: str) -> bool:
        if key == "start over":
            folder.remove()  # another worker was faster: it has removed the parts and begun anew
            manifest = {"settings": {}, "attributes": {}, "run": "another"}
            assert folder.create_manifest(manifest)
            (folder.path / "part-000000.part").write_bytes(b"")
            monkeypatch.setattr(Claims, "claim", claim)
        return claim(self, key)

    monkeypatch.setattr(Claims, "claim", late)
    assert run("batch_size=4", "cache.dtype=float32") == 1  # what lies there now has other settings, and a part
    assert (folder.read_manifest() or {})["run"] == "another"


@pytest.mark.parametrize(("variable", "threads"), [("1", 1), ("1,2", 1), ("", None), ("many", None), ("100000", None)])
def test_threads_are_as_many_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, variable: str, threads: int | None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert choose_threads("auto") == (threads or available_cores()) and choose_threads(3) == 3


def test_threads_of_the_environment_are_the_plans(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run("threads=auto") == 0 and cache().attributes["threads"] == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert run("threads=auto") == 0 and "Already cached" in capsys.readouterr().out


def test_what_was_named_and_is_not_used_is_said(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    views = ["views=2", "augment=randaugment"]
    assert run(*views, "view_splits=[trian]") == 1
    assert "view_splits=['trian']: did you mean train" in capsys.readouterr().err
    assert run(*views, "splits=[test]") == 1
    assert "no split of view_splits=['train'] is embedded" in capsys.readouterr().err
    assert run("augment=randaugment") == 0
    assert "augment= makes no difference without views" in capsys.readouterr().out


def test_an_unlabelled_folder_is_told_the_command_that_labels_it(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = tmp_path / "my photos"
    root.mkdir()
    Image.new("L", (4, 4)).save(root / "1.png"), (root / "2.heic").write_text("x")
    assert run("dataset=image_folder", f"dataset.root={root}", "model=pixels") == 0
    out = capsys.readouterr().out
    assert "No item is labelled" in out and "Next:  python -m alfm.label cache=" in out
    assert "left out: 1 file whose ending is not known for image data: 1 .heic (such as 2.heic)" in out


def test_views_are_deterministic_and_view_0_is_plain(run: Run) -> None:
    words = ["views=3", "augment=randaugment", "cache.dtype=float32"]
    assert run(*words) == 0
    made = cache()
    views = made.views("train")
    assert views.shape == (60, 3, 5) and made.num_views("test") == 1
    np.testing.assert_allclose(made.features("train"), plain_features(data().splits["train"]), atol=1e-4)
    assert np.abs(views[:, 1] - views[:, 0]).max() > 0.1 and np.abs(views[:, 1] - views[:, 2]).max() > 0.1
    # other batches, worker processes and neighbours: the same draws belong to the same (item, view)
    assert run(*words, "batch_size=5", "part_size=5", "num_workers=2", "cache.dataset=again") == 0
    np.testing.assert_allclose(cache("features/again/tiny.h5").views("train"), views, atol=1e-5)


def test_views_of_another_seed_or_of_other_splits_are_another_cache(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("view_splits=[test]", "seed=5") == 0  # without views neither matters
    assert run("seed=6") == 0
    words = ["views=2", "augment=randaugment", "cache.dataset=views"]
    assert run(*words) == 0
    capsys.readouterr()
    assert run(*words) == run(*words, "view_splits=train") == 0
    assert capsys.readouterr().out.count("Already cached") == 2
    assert run(*words, "seed=1") == 1
    assert "is another cache (seed: 0 there, 1 now)" in capsys.readouterr().err
    assert run(*words, "view_splits=[test,train]") == 1
    assert "is another cache (view_splits: ['train'] there, ['train', 'test'] now)" in capsys.readouterr().err
    none = ["views=2", "augment=randaugment", "cache.dataset=none", "view_splits=[]"]
    assert run(*none) == 0 == run(*none)
    assert "Already cached" in capsys.readouterr().out


# ---- another worker is quicker -----------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["agree", "first look", "Runner.run"])
def test_another_worker_finishes_the_cache_meanwhile(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """`moment`: when the whole of the other's run happens, seen from this worker."""
    from alfm.extraction import agreement, session
    from alfm.extraction.runner import Runner

    cells = []
    inner = session.Extraction.run
    monkeypatch.setattr(session.Extraction, "run", lambda self, cell: (cells.append(cell), inner(self, cell)))
    log = Path("encoded.log")
    module, name = {
        "agree": (agreement, "already_there"),
        "first look": (session, "agree"),
        "Runner.run": (Runner, "run"),
    }[moment]
    original, other = getattr(module, name), []

    def slow(*arguments: object, **named: object) -> object:
        before = name == "run"
        result = None if before else original(*arguments, **named)
        if not other:
            other.append(1)  # before it runs, as it comes through here too
            session.Extraction().run(cells[0])
            other.append(log.read_text())
        return original(*arguments, **named) if before else result

    monkeypatch.setattr(module, name, slow)
    assert run(f"model.log={log}", "cache.dtype=float32") == 0  # no sample is encoded
    assert other[1] == log.read_text()  # all was computed by the other
    assert capsys.readouterr().out.count("Cache: ") == 2
    assert files() == ["dots/tiny.h5"]
    cache()


def test_the_folder_of_parts_vanishes_without_a_cache(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from alfm.extraction.runner import Runner

    original = Runner.run
    monkeypatch.setattr(Runner, "run", lambda self, shard: (self.folder.remove(), original(self, shard)))
    assert run() == 1
    assert "could not be written" in capsys.readouterr().err


def test_the_chosen_gpu_is_the_current_one_before_anything_is_loaded(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def chosen(device: torch.device) -> None:
        raise UserError(f"current: {device}")

    monkeypatch.setattr("alfm.extraction.session.choose_device", lambda wanted, local_rank: torch.device("cuda", 3))
    monkeypatch.setattr(torch.cuda, "set_device", chosen)
    assert run("model.trouble=load") == 1
    assert capsys.readouterr().err == "Error: current: cuda:3\n"


def test_a_sweep_loads_each_backbone_once(run: Run, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    import standins

    loads = []
    original = standins.Tiny.load
    monkeypatch.setattr(standins.Tiny, "load", lambda self, device: (loads.append(self.name), original(self, device)))
    assert run("-m", "dataset.name=a,b,c", "model.name=x,y") == 0
    assert loads == ["x", "y"]
    assert files() == [f"{dataset}/{model}.h5" for dataset in "abc" for model in "xy"]


def test_a_failed_job_of_a_sweep_does_not_stop_the_others(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "dataset.name=a,b", "dataset.bad=[3],[]") == 1
    assert "2 of 4 jobs failed" in capsys.readouterr().err


def test_from_another_folder_without_writing_anything_else(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / ".env").write_text(f"FEATURE_CACHE_DIR={other / 'cached'}\n")
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "alfm.extract", "dataset=digits", "model=pixels"]
    done = subprocess.run(command, cwd=other, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert files(str(other)) == [".env", "cached/digits/pixels.h5"]


def test_the_dtype_of_a_stream_is_seen_on_its_first_items() -> None:
    """A later item would be reached only by reading all that lie before it."""
    from types import SimpleNamespace

    from alfm.extraction.dtype import choose_dtype

    class Ordered:
        in_order = True
        read: list[int] = []

        def __len__(self) -> int:
            return 10_000

        def load(self, index: int) -> np.ndarray:
            self.read.append(index)
            return np.full(4, index, dtype=np.float32)

    backbone = SimpleNamespace(preprocess=lambda item: item, collate=np.stack, name="as it is")
    encoder = SimpleNamespace(backbone=backbone, start=lambda batch, size: batch, finish=lambda batch: (batch, []))
    assert choose_dtype("auto", {"train": Ordered()}, encoder, 32)["dtype"] == "float16"  # type: ignore
    assert Ordered.read == list(range(156))
