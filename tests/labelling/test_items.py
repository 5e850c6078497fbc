"""The items behind a pool: found again, never mixed up, and named when they are gone."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from alfm.cache import FeatureCache
from alfm.datasets.arrays import digits
from alfm.datasets.base import Dataset
from alfm.datasets.folder import folder
from alfm.datasets.marks import content_mark, mark_of_bytes
from alfm.datasets.stored import NotReopened, reopened, stored_config
from alfm.datasets.table import table
from alfm.datasets.tar_shards import tar_shards
from alfm.errors import UserError
from alfm.labelling.items import ItemGone, Items

Write = Callable[..., FeatureCache]
FOLDER = {"_target_": "alfm.datasets.folder.folder", "modality": "image"}


def photos(folder: Path, names: list[str]) -> list[str]:
    """Different images under these names; returns their marks."""
    marks = []
    for number, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (number, 200, 100)).save(file)
        marks.append(mark_of_bytes(file.read_bytes()))
    return marks


def opened(cache: FeatureCache, **how: Any) -> Items:
    return Items.open([cache], ["train"], **how)


def test_images_of_a_folder(tmp_path: Path, write_cache: Write) -> None:
    names = ["1.png", "cat/2.png", "50%.png"]
    marks = photos(tmp_path / "photos", names)
    items = opened(write_cache(names, FOLDER | {"root": str(tmp_path / "photos")}, marks=marks))
    assert (items.ids, items.N, items.modality, items.why_unseen) == (names, 3, "image", None)
    assert items.row("cat/2.png") == 1 and items.path(1) == str(tmp_path / "photos/cat/2.png")
    assert items.load(1).getpixel((0, 0)) == (1, 200, 100) and items.text(1) is None
    raw, kind = items.file_bytes(2)
    assert raw == (tmp_path / "photos/50%.png").read_bytes() and kind == "image/png"
    assert [items.status(row) for row in range(3)] == ["ok"] * 3
    with pytest.raises(UserError, match="no item 'cat/3.png' in the pool: did you mean cat/2.png"):
        items.row("cat/3.png")


def test_what_is_missing_or_changed_is_named_and_never_shown(tmp_path: Path, write_cache: Write) -> None:
    names = ["a.png", "b.png", "c.png"]
    marks = photos(tmp_path / "photos", names)
    items = opened(write_cache(names, FOLDER | {"root": str(tmp_path / "photos")}, marks=marks))
    (tmp_path / "photos/b.png").unlink()
    (tmp_path / "photos/a.png").replace(tmp_path / "photos/c.png")
    assert [items.status(row) for row in range(3)] == ["missing", "missing", "changed"]
    for row, says in ((1, "b.png: No such file"), (2, "c.png has changed since it was embedded")):
        for show in (items.load, items.file_bytes):
            with pytest.raises(ItemGone, match=says):
                show(row)


def test_without_marks_it_is_shown_and_said_to_be_unknown(tmp_path: Path, write_cache: Write) -> None:
    photos(tmp_path / "photos", ["a.png"])
    items = opened(write_cache(["a.png"], FOLDER | {"root": str(tmp_path / "photos")}))
    assert items.status(0) == "unknown" and items.load(0).size == (6, 4)
    (tmp_path / "photos/a.png").unlink()
    assert items.status(0) == "missing"


# ---- other kinds of data sets -----------------------------------------------------------------------------------


def of_dataset(write_cache: Write, dataset: Dataset, config: dict[str, Any], **more: Any) -> Items:
    """Items of a cache as an extraction of `dataset` would write it."""
    split = dataset.splits["train"]
    marks = [content_mark(split, row, split.load(row)) for row in range(len(split))]
    kept, _ = stored_config(config)
    return opened(write_cache(list(split.ids), kept, marks=marks, modality=dataset.modality, **more))


def test_texts_of_a_table(tmp_path: Path, write_cache: Write) -> None:
    source = tmp_path / "a.csv"
    source.write_text("text,label\nfirst <script>,x\nsecond,y\n")
    config = {"path": str(source), "modality": "text", "column": "text", "label_column": "label"}
    items = of_dataset(write_cache, table(**config), {"_target_": "alfm.datasets.table.table", **config})
    assert items.why_unseen is None and items.ids == ["a:0", "a:1"] and items.path(0) is None
    assert [items.text(0), items.text(1)] == ["first <script>", "second"] and items.status(1) == "ok"
    assert items.file_bytes(0) == (b"first <script>", "text/plain; charset=utf-8")
    source.write_text("text,label\nnew,y\nfirst <script>,x\n")  # rows have moved: never another's text
    items = opened(FeatureCache(tmp_path / "a.h5"))
    assert [items.text(0), items.text(1)] == [None, None] and items.status(0) == items.status(1) == "changed"
    with pytest.raises(ItemGone, match="a:1 has changed"):
        items.load(1)
    source.unlink()
    assert "there is no table" in str(opened(FeatureCache(tmp_path / "a.h5")).why_unseen)


def test_files_of_a_table_with_ids_of_its_own(tmp_path: Path, write_cache: Write) -> None:
    photos(tmp_path, ["p/1.png", "p/2.png"])
    (tmp_path / "t.csv").write_text("key,path\nk1,p/1.png\nk2,p/2.png\n")
    config = {"path": str(tmp_path / "t.csv"), "id_column": "key"}
    items = of_dataset(write_cache, table(**config), {"_target_": "alfm.datasets.table.table", **config})
    assert items.ids == ["k1", "k2"] and items.path(1) == str(tmp_path / "p/2.png") and items.status(1) == "ok"
    assert items.load(1).getpixel((0, 0)) == (1, 200, 100)


def test_items_in_arrays_and_in_archives(tmp_path: Path, write_cache: Write) -> None:
    items = of_dataset(write_cache, digits(), {"_target_": "alfm.datasets.arrays.digits"})
    assert items.why_unseen is None and items.load(3).size == (8, 8) and items.status(3) == "ok"
    assert items.file_bytes(3)[1] == "image/png" and items.path(3) is None
    photos(tmp_path, ["1.png", "2.png"])
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("1.png", "2.png"):
            archive.add(tmp_path / name, name)
    config = {"root": str(tmp_path), "splits": {"train": "a.tar"}, "label": None}
    made = tar_shards(**config)
    items = of_dataset(write_cache, made, {"_target_": "alfm.datasets.tar_shards.tar_shards", **config}, name="b.h5")
    assert items.file_bytes(1) == ((tmp_path / "2.png").read_bytes(), "image/png") and items.status(0) == "ok"


def test_a_folder_of_texts(tmp_path: Path, write_cache: Write) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_bytes("caf\xe9".encode("cp1252"))
    config = FOLDER | {"modality": "text", "root": str(tmp_path / "notes"), "encoding": "cp1252"}
    made = folder(str(tmp_path / "notes"), "text", encoding="cp1252")
    items = of_dataset(write_cache, made, config)
    assert items.text(0) == "caf\xe9" and items.status(0) == "ok"
    (tmp_path / "notes/a.txt").write_text("tea")
    assert items.text(0) is None and items.status(0) == "changed"


def test_a_data_set_that_the_user_names(write_cache: Write) -> None:
    made = digits()
    ids = list(made.splits["train"].ids)
    cache = write_cache(ids, {"_target_": "mine.Digits"})
    assert "mine.Digits, which is no part of alfm" in str(opened(cache).why_unseen)
    items = opened(cache, dataset=made)
    assert items.why_unseen is None and items.load(0).size == (8, 8) and items.status(0) == "unknown"


# ---- what a file from elsewhere may not do ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {"_target_": "subprocess.call", "args": ["touch", "TRACE"]},
        {"_target_": "os.mkdir", "path": "TRACE"},
        {"_target_": "alfm.datasets.folder.os.mkdir", "path": "TRACE"},
        {"_target_": "alfm.datasets.table.table", "modality": "text", "path": {"_target_": "os.mkdir"}},
        {"_target_": "alfm.datasets.arrays.digits", "name": {"_target_": "os.mkdir", "path": "TRACE"}},
        {"_target_": "alfm.datasets.hugging_face.hugging_face", "path": "json", "modality": "text", "column": "a",
         "data_files": "https://127.0.0.1:9/x.json"},
        {"_target_": "alfm.datasets.hugging_face.hugging_face", "path": "pandas", "modality": "text", "column": "a",
         "data_files": "x.pkl"},
        {"_target_": "alfm.datasets.torchvision_data.torchvision_dataset", "class_name": "LSUN", "root": "."},
        {"_target_": ["alfm.datasets.arrays.digits"]},
        {"_target_": "alfm.datasets.folder.folder", "root": 7},
        {"_target_": "alfm.datasets.folder.folder", "root": "/", "max_pixels": "many", "colour": 3},
        {"_target_": "alfm.datasets.arrays.digits", "colour": 3},
        {},
    ],
)  # fmt: skip
def test_no_code_is_run_because_a_cache_names_it(
    config: dict[str, Any], tmp_path: Path, write_cache: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    items = opened(write_cache(["a", "b"], config))
    why = items.why_unseen
    if config.get("root") != "/":
        assert why is not None and "labelled by id" in why and "items=TABLE" in why and "\n" not in why
    with pytest.raises(ItemGone, match=r"^a\b"):
        items.load(0)
    assert items.status(1) == "missing" and not (tmp_path / "TRACE").exists()


@pytest.mark.parametrize("name", ["../secret.png", "a/../../secret.png", "/etc/passwd", "..", "%2E%2E/secret.png"])
def test_paths_that_climb_out_of_the_root_are_not_opened(name: str, tmp_path: Path, write_cache: Write) -> None:
    photos(tmp_path, ["photos/a.png", "secret.png"])
    items = opened(write_cache([name], FOLDER | {"root": str(tmp_path / "photos")}))
    assert items.path(0) is None and items.status(0) == "missing"
    for show in (items.load, items.file_bytes):
        with pytest.raises(ItemGone, match="lies outside"):
            show(0)


@pytest.mark.parametrize(("path", "name"), [("pandas", "pandas"), (None, "LSUN"), (None, "LSUNClass")])
def test_no_reader_that_unpickles_is_called(path: str | None, name: str) -> None:
    library = "hugging_face.hugging_face" if path else "torchvision_data.torchvision_dataset"
    config = {"_target_": f"alfm.datasets.{library}", "path": path, "class_name": name, "root": "."}
    with pytest.raises(NotReopened, match=f"{name} runs what pickled files say"):
        reopened(config)


@pytest.mark.parametrize("modality", ["image", "audio", "text"])
def test_what_is_no_file_is_not_opened(modality: str, tmp_path: Path, write_cache: Write) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    config = FOLDER | {"root": str(tmp_path), "modality": modality}
    items = opened(write_cache(["pipe.png", "endless.png"], config, modality=modality))
    for row in (0, 1):
        for show in (items.load, items.file_bytes):
            with pytest.raises(ItemGone, match="is no file"):
                show(row)
        assert items.status(row) == "missing"


def test_a_config_that_is_no_config(write_cache: Write) -> None:
    for text in ("[" * 5000, "{", "[1]", "null"):
        cache = write_cache(["a"], None, dataset_config=text)
        assert "does not say where its items are" in str(opened(cache).why_unseen)


# ---- a table of one's own -----------------------------------------------------------------------------------------


def test_a_table_as_a_spreadsheet_writes_it(tmp_path: Path, write_cache: Write) -> None:
    photos(tmp_path, ["bilder/caf\xe9.png", "bilder/2.png"])
    (tmp_path / "t.csv").write_bytes("id;path\nx1;bilder/caf\xe9.png\nx2;bilder\\2.png\nother;1.png\n".encode("cp1252"))
    cache = write_cache(["x1", "x2", "x3"], modality=None)
    items = opened(cache, table=tmp_path / "t.csv")
    assert items.modality == "image" and items.why_unseen is None
    assert items.load(0).getpixel((0, 0)) == (0, 200, 100) and items.status(0) == "unknown"
    assert items.load(1).getpixel((0, 0)) == (1, 200, 100), "the separators of Windows"
    with pytest.raises(ItemGone, match=r"x3 is not in .*t\.csv: add a row"):
        items.load(2)
    (tmp_path / "u.csv").write_text("\ufeffid\ttext\nx1\tone, two\nx2\t\n", encoding="utf-16")
    items = opened(cache, table=tmp_path / "u.csv")
    assert items.modality == "text" and items.text(0) == "one, two" and items.text(1) == "" and items.text(2) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("id,path\nx1,../../etc/passwd\n", r"row 1: ../../etc/passwd lies outside .*dataset.root=FOLDER"),
        ("id,path\nx1,/etc/passwd\n", "lies outside"),
        ("id,path\nx1,\n", "row 1: the path is empty"),
        ("id,path\nx1,a.png\nx1,b.png\n", "row 2: the id 'x1' was there before, with another path"),
        ("id,path\nzz,a.png\n", "no id of the pool: its first is 'zz', and the pool has such as 'x1'"),
        ("name,path\nx1,a.png\n", "has the columns name, path: id, and path or text, are needed"),
        ("id,path\nx1,a.exe\n", "endings of its paths"),
        ("", "is empty"),
    ],
)
def test_tables_that_do_not_fit(content: str, says: str, tmp_path: Path, write_cache: Write) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(UserError, match=says):
        opened(write_cache(["x1"], modality=None), table=tmp_path / "t.csv")


def test_a_table_with_paths_anywhere_below_a_root(tmp_path: Path, write_cache: Write) -> None:
    photos(tmp_path, ["disk/a.png"])
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/t.csv").write_text(f"id,path\nx1,{tmp_path}/disk/a.png\n")
    items = opened(write_cache(["x1"]), table=tmp_path / "tables/t.csv", root=tmp_path / "disk")
    assert items.status(0) == "unknown"


# ---- several caches -----------------------------------------------------------------------------------------------


def test_rows_of_several_caches_follow_one_another(tmp_path: Path, write_cache: Write) -> None:
    roots = [tmp_path / "one", tmp_path / "two"]
    marks = [photos(roots[0], ["a.png", "b.png"]), photos(roots[1], ["c.png"])]
    caches = [
        write_cache(names, FOLDER | {"root": str(root)}, marks=each, name=f"{names[0]}.h5")
        for names, root, each in zip((["a.png", "b.png"], ["c.png"]), roots, marks, strict=True)
    ]
    items = Items.open(caches, ["train", "train"])
    assert items.ids == ["a.png", "b.png", "c.png"] and items.row("c.png") == 2
    assert [items.status(row) for row in range(3)] == ["ok"] * 3
    roots[1].rename(tmp_path / "moved")
    assert "two of the items is not there" in str(Items.open(caches, ["train"] * 2).why_unseen)
    items = Items.open(caches, ["train"] * 2, root=tmp_path / "moved")  # stands for the folder that is gone
    assert [items.status(row) for row in range(3)] == ["ok"] * 3 and items.why_unseen is None


def test_ids_that_occur_twice_are_refused(write_cache: Write) -> None:
    one, two = write_cache(["a", "b"], name="one.h5"), write_cache(["b"], name="two.h5")
    with pytest.raises(UserError, match=r"'b' is in .*one.h5 and in .*two.h5: .*known=.*one.h5"):
        Items.open([one, two], ["train"] * 2)
    with pytest.raises(UserError, match="the id 'a' occurs more than once in train"):
        opened(write_cache(["a", "c", "a"]))
    with pytest.raises(UserError, match="hold audio and image data"):
        Items.open([one, write_cache(["z"], name="three.h5", modality="audio")], ["train"] * 2)
    plain = [write_cache(None, rows=2, name=f"{n}.h5") for n in range(2)]
    assert Items.open(plain, ["train"] * 2).ids == ["0", "1", "2", "3"], "rows of the pool where there are no ids"


def test_opening_reads_no_item(tmp_path: Path, write_cache: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    ids = [f"{number:06d}.jpg" for number in range(100_000)]
    cache = write_cache(ids, FOLDER | {"root": str(tmp_path / "photos")}, marks=["b5-0123456789abcdef"] * len(ids))
    looked: list[object] = []
    with monkeypatch.context() as patched:
        for name in ("stat", "lstat", "listdir", "scandir"):
            real = getattr(os, name)
            patched.setattr(os, name, lambda *given, real=real, **how: (looked.append(given), real(*given, **how))[1])
        items = opened(cache)
        assert items.N == 100_000 and items.row("099999.jpg") == 99_999 and items.why_unseen is None
    assert len(looked) < 50
    assert items.status(5) == "missing"
