"""Folders: layouts, splits, loops, odd names."""

from __future__ import annotations

import os
import pickle
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alfm.datasets.base import ItemError
from alfm.datasets.folder import folder
from alfm.datasets.ids import unescape
from alfm.errors import UserError


def picture(path: Path, grey: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (6, 5), grey).save(path)
    return path


def test_class_folders_sorted_with_ids_and_files(tmp_path: Path) -> None:
    for name in ("dog/2.png", "dog/1.png", "cat/deep/er/3.PNG", "cat/.hidden.png", ".git/x.png", "dog/notes.txt"):
        picture(tmp_path / name) if name.lower().endswith("png") else (tmp_path / name).write_text("x")
    data = folder(str(tmp_path))
    train = data.splits["train"]
    assert data.name == tmp_path.name and list(data.splits) == ["train"]
    assert data.classes == ["cat", "dog"]
    assert train.ids == ["cat/deep/er/3.PNG", "dog/1.png", "dog/2.png"]
    assert train.labels.tolist() == [0, 1, 1] and train.labels.dtype == np.int64
    assert train.load(1).mode == "RGB"
    assert pickle.loads(pickle.dumps(train)).load(2).size == (6, 5)


def test_flat_is_unlabelled(tmp_path: Path) -> None:
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    data = folder(str(tmp_path))
    assert data.classes is None and data.splits["train"].labels.tolist() == [-1, -1]
    picture(tmp_path / "camera1" / "c.png")
    assert folder(str(tmp_path)).splits["train"].labels.tolist() == [-1, -1, 0]
    assert folder(str(tmp_path), labelled=False).classes is None


def test_split_folders(tmp_path: Path) -> None:
    picture(tmp_path / "train/b/1.png"), picture(tmp_path / "test/a/1.png"), picture(tmp_path / "val/b/1.png")
    data = folder(str(tmp_path))
    assert {s: (p.ids, p.labels.tolist()) for s, p in data.splits.items()} == {
        "train": (["train/b/1.png"], [1]),
        "test": (["test/a/1.png"], [0]),
        "val": (["val/b/1.png"], [1]),
    }
    assert list(folder(str(tmp_path), splits={"train": "train", "test": "val"}).splits) == ["train", "test"]
    with pytest.raises(UserError, match="already has a test split"):
        folder(str(tmp_path), test_fraction=0.5)
    with pytest.raises(UserError, match="'dev'.*'nowhere'"):
        folder(str(tmp_path), splits={"dev": "nowhere"})


def test_a_class_called_train_is_not_taken_for_a_split(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        picture(tmp_path / name / "1.png")
    (tmp_path / "docs").mkdir()
    with pytest.raises(UserError, match="train/ beside bus/: are these classes or splits"):
        folder(str(tmp_path))
    classes = folder(str(tmp_path), splits={"train": "."})
    assert classes.classes == ["bus", "train"] and classes.splits["train"].ids == ["bus/1.png", "train/1.png"]
    assert folder(str(tmp_path), splits={"train": "train"}).splits["train"].ids == ["train/1.png"]
    assert list(folder(str(tmp_path), exclude=["bus"]).splits) == ["train"]


def test_a_seeded_share_and_a_fingerprint_that_sees_sizes(tmp_path: Path) -> None:
    for index in range(20):
        picture(tmp_path / f"{'ab'[index % 2]}/{index}.png")
    data = folder(str(tmp_path), test_fraction=0.2)
    assert np.bincount(data.splits["test"].labels).tolist() == [2, 2] and len(data.splits["train"]) == 16
    assert data.fingerprint == folder(str(tmp_path), test_fraction=0.2).fingerprint
    assert data.fingerprint != folder(str(tmp_path), test_fraction=0.2, seed=1).fingerprint
    with open(tmp_path / "a/0.png", "ab") as file:
        file.write(b"more")
    assert data.fingerprint != folder(str(tmp_path), test_fraction=0.2).fingerprint


def test_listed_splits_patterns_exclusions_balance(tmp_path: Path) -> None:
    for index in range(6):
        picture(tmp_path / f"a/{index}.png")
    picture(tmp_path / "b/0.png"), picture(tmp_path / "b/1.png"), picture(tmp_path / "noise/0.png")
    (tmp_path / "test.txt").write_text("a/5.png\nb/1.png\n")
    data = folder(str(tmp_path), split_lists={"test": "test.txt"}, exclude=["noise"])
    assert data.splits["test"].ids == ["a/5.png", "b/1.png"] and data.classes == ["a", "b"]
    assert len(data.splits["train"]) == 6
    balanced = folder(str(tmp_path), balance=True, exclude=["noise"])
    assert np.bincount(balanced.splits["train"].labels).tolist() == [2, 2]
    assert folder(str(tmp_path), pattern="b/*").splits["train"].ids == ["b/0.png", "b/1.png"]
    with pytest.raises(UserError, match="names no file"):
        (tmp_path / "test.txt").write_text("zzz\n")
        folder(str(tmp_path), split_lists={"test": "test.txt"})


def test_symlink_loops_end_and_links_are_followed(tmp_path: Path) -> None:
    picture(tmp_path / "root/a/1.png")
    (tmp_path / "root/a/again").symlink_to(tmp_path / "root", target_is_directory=True)
    picture(tmp_path / "elsewhere/2.png")
    (tmp_path / "root/b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "root/c").symlink_to(tmp_path / "root/c")
    assert folder(str(tmp_path / "root")).splits["train"].ids == ["a/1.png", "b/2.png"]


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    source = picture(tmp_path / "x.png")
    place = os.fsencode(tmp_path / "set" / "caf").replace(b"caf", b"caf\xe9")
    os.makedirs(place)
    with open(os.path.join(place, b"50%41\xff.png"), "wb") as file:
        file.write(source.read_bytes())
    data = folder(str(tmp_path / "set"))
    train = data.splits["train"]
    assert train.ids == ["caf%E9/50%2541%FF.png"] and data.classes == ["caf%E9"]
    assert train.load(0).size == (6, 5)
    assert os.path.exists(os.path.join(tmp_path / "set", unescape(train.ids[0])))


def test_bad_files_are_item_errors(tmp_path: Path) -> None:
    picture(tmp_path / "a/1.png"), (tmp_path / "a/2.png").touch(), (tmp_path / "a/3.jpg").write_text("no")
    train = folder(str(tmp_path)).splits["train"]
    with pytest.raises(ItemError, match="a/2.png.*empty"):
        train.load(1)
    with pytest.raises(ItemError, match="a/3.jpg"):
        train.load(2)
    os.remove(tmp_path / "a/1.png")
    with pytest.raises(ItemError, match="a/1.png: No such file"):
        train.load(0)


def test_a_dangling_link_is_a_bad_item_and_not_overlooked(tmp_path: Path) -> None:
    picture(tmp_path / "a/1.png")
    (tmp_path / "a/2.png").symlink_to(tmp_path / "gone.png")
    train = folder(str(tmp_path)).splits["train"]
    assert len(train) == 2
    with pytest.raises(ItemError, match="a/2.png: No such file"):
        train.load(1)


def test_options_of_another_modality(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    assert len(folder(str(tmp_path), max_seconds=None, decode_size=3).splits["train"]) == 1
    with pytest.raises(UserError, match="max_seconds is no option of image data"):
        folder(str(tmp_path), max_seconds=3)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no image file"):
        folder(str(tmp_path))
    with pytest.raises(UserError, match="is not a folder"):
        folder(str(tmp_path / "nowhere"))


# ---- which folders are splits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("Training", "Testing"), ["train", "test"]),
        (("Train", "Valid"), ["train", "val"]),
        (("TRAIN", "Test", "Validation"), ["train", "test", "val"]),
        (("train", "test", "validation"), ["train", "test", "validation"]),
        (("trn", "Dev"), ["train", "val"]),
    ],
)
def test_usual_split_folders_in_any_case(tmp_path: Path, folders: tuple[str, ...], splits: list[str]) -> None:
    for place in folders:
        picture(tmp_path / place / "cat/1.png"), picture(tmp_path / place / "dog/1.png")
    data = folder(str(tmp_path))
    assert list(data.splits) == splits and data.classes == ["cat", "dog"]
    assert data.splits[splits[0]].ids == [f"{folders[0]}/cat/1.png", f"{folders[0]}/dog/1.png"]
    excluded = folder(str(tmp_path), exclude=[folders[1]])
    assert list(excluded.splits) == [splits[0], *splits[2:]]


def advice(error: pytest.ExceptionInfo[UserError], key: str, which: int = 0) -> object:
    """What a sentence tells to type for `dataset.<key>`."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    words = [word for word in shlex.split(str(error.value)) if word.startswith(f"dataset.{key}=")]
    return OverridesParser.create().parse_override(words[which].rstrip(",;:")).value()


def test_folders_that_may_be_splits_are_asked_about(tmp_path: Path) -> None:
    for place in ("train_set", "test_set"):
        picture(tmp_path / "a" / place / "cat/1.png"), picture(tmp_path / "a" / place / "dog/1.png")
    with pytest.raises(UserError, match="holds test_set/, train_set/: if these are splits") as error:
        folder(str(tmp_path / "a"))
    assert list(folder(str(tmp_path / "a"), splits=advice(error, "splits")).splits) == ["test", "train"]
    assert folder(str(tmp_path / "a"), splits=advice(error, "splits", 1)).classes == ["test_set", "train_set"]
    for place in ("train_a", "train_b"):
        picture(tmp_path / "twice" / place / "cat/1.png")
    with pytest.raises(UserError, match="if these are splits") as error:
        folder(str(tmp_path / "twice"))
    assert len(folder(str(tmp_path / "twice"), splits=advice(error, "splits")).splits) == 2
    picture(tmp_path / "b/Training/1.png"), picture(tmp_path / "b/train/1.png")
    with pytest.raises(UserError, match="are Training/ and train/ one split") as error:
        folder(str(tmp_path / "b"))
    assert len(folder(str(tmp_path / "b"), splits=advice(error, "splits")).splits) == 2
    picture(tmp_path / "c/Testing/1.png"), picture(tmp_path / "c/control/1.png")
    with pytest.raises(UserError, match="Testing/ beside control/") as error:
        folder(str(tmp_path / "c"))
    assert folder(str(tmp_path / "c"), splits=advice(error, "splits")).classes == ["Testing", "control"]


def test_splits_one_folder_further_in(tmp_path: Path) -> None:
    for split in ("Train", "Test"):
        picture(tmp_path / "a/my photos" / split / "cat/1.png"), picture(tmp_path / "b/cat" / split / "1.png")
        picture(tmp_path / "b/dog" / split / "1.png")
    with pytest.raises(UserError, match="holds only my photos/, and that holds Test/, Train/") as error:
        folder(str(tmp_path / "a"))
    assert list(folder(advice(error, "root")).splits) == ["train", "test"]
    with pytest.raises(UserError, match="class folders cat/, dog/ hold Test/, Train/ each") as error:
        folder(str(tmp_path / "b"))
    assert folder(str(tmp_path / "b"), splits=advice(error, "splits")).classes == ["cat", "dog"]
    (tmp_path / "b/list.txt").write_text("cat/Test/1.png\ndog/Test/1.png\n")
    assert len(folder(str(tmp_path / "b"), split_lists={"test": "list.txt"}).splits["test"]) == 2


def test_one_file_in_two_splits(tmp_path: Path) -> None:
    picture(tmp_path / "a/1.png"), picture(tmp_path / "test/a/1.png")
    with pytest.raises(UserError, match="test/a/1.png is in the split 'train' and in 'test'"):
        folder(str(tmp_path), splits={"train": ".", "test": "test"})
    data = folder(str(tmp_path), splits={"train": ".", "test": "test"}, exclude=["test"])
    assert {name: split.ids for name, split in data.splits.items()} == {"train": ["a/1.png"], "test": ["test/a/1.png"]}


# ---- what is left out, and what was named and not used --------------------------------------------------------------


def test_files_that_are_no_items_are_counted_and_named(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        picture(tmp_path / name)
    for name in ("fish/1.heic", "fish/2.HEIC", "cat/3.heic", "cat/notes.md", "cat/Thumbs.db", "dog/.DS_Store"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "empty").mkdir()
    data = folder(str(tmp_path), exclude=["nowhere"])
    assert data.classes == ["cat", "dog"]
    assert data.left_out == [
        "4 files whose ending is not known for image data: 3 .heic (such as cat/3.heic), 1 .md (such as cat/notes.md)",
        "folders without any image file, which are no classes: empty/, fish/",
        "nothing for dataset.exclude=nowhere: there is no such folder",
    ]
    assert folder(str(tmp_path), pattern="cat/*").left_out[1].startswith("folders without any image file that matches")
    with pytest.raises(UserError, match=r"holds no audio file .*, only 3 \.png .*3 \.heic"):
        folder(str(tmp_path), "audio")


def test_items_beside_split_folders_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "train/a/1.png"), picture(tmp_path / "loose.png")
    (tmp_path / "train/b").mkdir()
    assert folder(str(tmp_path)).left_out == [
        "folders without any image file, which are no classes: train/b/",
        "1 file beside the folders of the splits: loose.png",
    ]
    picture(tmp_path / "train/b/1.png"), (tmp_path / "loose.png").unlink()
    assert folder(str(tmp_path)).left_out == []


def test_every_listed_name_is_a_file(tmp_path: Path) -> None:
    for index in range(4):
        picture(tmp_path / f"a/{index}.png")
    (tmp_path / "a/5.heic").write_text("x")

    def listed(text: str, **options: object) -> dict[str, list[str]]:
        (tmp_path / "test.txt").write_text(text, encoding="utf-8")
        data = folder(str(tmp_path), split_lists={"test": "test.txt"}, **options)
        return {name: split.ids for name, split in data.splits.items()}

    assert listed("\ufeffa/0.png\r\n./a/1.png\na\\2.png\n")["test"] == ["a/0.png", "a/1.png", "a/2.png"]
    with pytest.raises(UserError, match=r"1 names of test.txt match no file below .*'a/9.png'"):
        listed("a/0.png\na/9.png\n")
    assert "1 files of test.txt" in folder_left_out(tmp_path, "a/0.png\na/5.heic\n")
    (tmp_path / "val.txt").write_text("a/0.png\n")
    with pytest.raises(UserError, match="a/0.png is listed for 'val' and belongs to 'test' already"):
        folder(str(tmp_path), split_lists={"test": "test.txt", "val": "val.txt"})
    (tmp_path / "train.txt").write_text("a/1.png\na/2.png\n")
    data = folder(str(tmp_path), split_lists={"train": "train.txt", "test": "test.txt"})
    assert data.splits["train"].ids == ["a/1.png", "a/2.png"] and data.splits["test"].ids == ["a/0.png"]
    assert "1 files that are in no list, such as a/3.png" in data.left_out
    with pytest.raises(UserError, match="takes files out of train; there are the splits val"):
        folder(str(tmp_path), splits={"val": "a"}, split_lists={"test": "test.txt"})


def folder_left_out(root: Path, text: str) -> str:
    (root / "test.txt").write_text(text)
    return " ".join(folder(str(root), split_lists={"test": "test.txt"}).left_out)


def test_names_are_compared_composed(tmp_path: Path) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    picture(tmp_path / "train" / apart / "1.png"), picture(tmp_path / "test" / composed / "1.png")
    picture(tmp_path / "train/b/1.png")
    data = folder(str(tmp_path))
    assert data.classes == ["b", composed] and data.splits["test"].labels.tolist() == [1]
    assert data.splits["train"].load(1).size == (6, 5)
    (tmp_path / "train/list.txt").write_text(f"{composed}/1.png\n", encoding="utf-8")
    alone = folder(str(tmp_path / "train"), split_lists={"test": "list.txt"})
    assert alone.splits["test"].ids == [f"{apart}/1.png"] and alone.classes == ["b", apart]
