"""What an extraction keeps of where its items are, and of what they were."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from PIL import Image
from standins import dots

from alfm.cache import open_cache
from alfm.cache.parts import PartsFolder
from alfm.cache.verify import verify
from alfm.datasets.marks import content_mark, mark_of_bytes
from alfm.labelling.items import Items

Run = Callable[..., int]


def flat_photos(folder: str, count: int = 6) -> list[Path]:
    Path(folder).mkdir(exist_ok=True)
    files = [Path(folder) / f"IMG {number:03d}.png" for number in range(count)]
    for number, file in enumerate(files):
        if not file.exists():
            Image.new("RGB", (12, 10), (number * 20, 90, 40)).save(file)
    return files


def test_a_folder_is_shown_again_from_anywhere(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = flat_photos("photos")
    assert run("dataset=image_folder", "dataset.root=photos") == 0
    path = tmp_path / "features/photos/tiny.h5"
    assert verify(path).problems == []
    cache = open_cache(path)
    config = json.loads(cache.attributes["dataset_config"])
    assert config["_target_"] == "alfm.datasets.folder.folder" and config["root"] == str(tmp_path / "photos")
    assert cache.marks("train") == [mark_of_bytes(file.read_bytes()) for file in files]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    items = Items.open([cache], ["train"])
    assert [items.status(row) for row in range(6)] == ["ok"] * 6 and items.load(3).getpixel((0, 0)) == (60, 90, 40)
    shutil.move(tmp_path / "photos", tmp_path / "moved")
    items = Items.open([cache], ["train"])
    assert "photos of the items is not there" in str(items.why_unseen) and items.status(0) == "missing"
    items = Items.open([cache], ["train"], root="../moved")
    assert items.why_unseen is None and items.status(5) == "ok"


def test_the_marks_of_what_was_left_out_are_not_there(run: Run) -> None:
    bad = [0, 17, 59]
    assert run(f"dataset.bad={bad}", "on_error=skip", "num_workers=2") == 0
    split = dots(60, 20, "dots", bad, None, "image", 8).splits["train"]
    kept = [row for row in range(60) if row not in bad]
    cache = open_cache("features/dots/tiny.h5")
    assert cache.marks("train") == [content_mark(split, row, split.load(row)) for row in kept]
    assert len(set(cache.marks("train") or [])) == len(kept)


def test_the_marks_of_items_that_give_nan_are_not_there(run: Run) -> None:
    assert run("model.trouble=broken", "on_error=skip") == 0
    split = dots(60, 20, "dots", [], None, "image", 8).splits["train"]
    cache = open_cache("features/dots/tiny.h5")
    ids = cache.ids("train") or []
    assert 0 < len(ids) < 60
    rows = [split.ids.index(item_id) for item_id in ids]
    assert cache.marks("train") == [content_mark(split, row, split.load(row)) for row in rows]


def test_a_cache_of_an_earlier_version_is_the_same_cache(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    path = Path("features/dots/tiny.h5")
    fingerprint = open_cache(path).fingerprint
    with h5py.File(path, "a") as file:
        del file.attrs["dataset_config"]
        for split in ("train", "test"):
            del file[split]["marks"], file[split]["mark_checksums"]
    before = path.read_bytes()
    assert open_cache(path).fingerprint == fingerprint
    assert run() == 0 and path.read_bytes() == before
    out = capsys.readouterr().out
    assert "Already cached" in out and "does not say where its items are" in out
    assert "does not say where its items are" in str(Items.open([open_cache(path)], ["train"]).why_unseen)


def test_a_run_of_an_earlier_version_is_gone_on_with(run: Run) -> None:
    """Its manifest has no config, and it has parts without marks."""
    assert run("dataset.bad=[37]") == 1
    folder = PartsFolder(Path("features/dots/tiny.h5"))
    manifest = folder.path / "manifest.json"
    old = json.loads(manifest.read_text())
    assert old["attributes"].pop("dataset_config")["_target_"] == "standins.dots"
    manifest.write_text(json.dumps(old))
    assert run("dataset.bad=[]") == 0
    assert json.loads(open_cache("features/dots/tiny.h5").attributes["dataset_config"])["n"] == 60


def test_no_secret_enters_a_cache(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "3v3ryb0dy-may-read-caches"
    config = tmp_path / "conf/dataset/guarded.yaml"
    config.write_text(
        "_target_: guarded.guarded\nname: guarded\n"
        f"storage_options: {{hub_token: {secret}, anon: false}}\nurl: https://me:{secret}@host/x?sig={secret}&v=1\n"
    )
    (tmp_path / "guarded.py").write_text(
        "from standins import dots\n"
        "def guarded(name, storage_options, url):\n    return dots(20, 8, name, [], None, 'image', 8)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run("dataset=guarded") == 0
    out = capsys.readouterr().out
    assert "not kept in the cache, since it looks like a secret: dataset.storage_options.hub_token, dataset.url" in out
    for file in (tmp_path / "features").rglob("*"):
        assert file.is_dir() or secret.encode() not in file.read_bytes()
    kept = json.loads(open_cache("features/guarded/tiny.h5").attributes["dataset_config"])
    assert kept["storage_options"] == {"anon": False} and kept["url"] == "https://host/x?sig=&v=1"
