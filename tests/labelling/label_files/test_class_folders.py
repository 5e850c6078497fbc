"""Labels as folders into which a person has dragged files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from label_pools import photos

from alfm.datasets.marks import mark_of_bytes
from alfm.errors import UserError
from alfm.labelling.items import Items
from alfm.labelling.label_files import read
from alfm.labelling.label_files.class_folders import class_name, folder_name


def put(folder: Path, label: str, name: str, content: str) -> Path:
    path = folder / label / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def labels(found) -> dict[str, str | None]:
    return {act.item: act.label for act in found.acts}


def test_names_where_unique_else_content(tmp_path):
    pool, sorted_ = photos(tmp_path / "pool"), tmp_path / "sorted"
    put(sorted_, "x", "002.jpg", "whatever")
    put(sorted_, "y", "001.jpg", "dog/001.jpg")
    put(sorted_, "y/deeper", "renamed.jpg", "bird.jpg")
    put(sorted_, "y", ".DS_Store", ""), put(sorted_, ".", "003.jpg", "loose"), put(sorted_, "z", "Thumbs.db", "")
    found = read(sorted_, pool)
    assert labels(found) == {"cat/002.jpg": "x", "dog/001.jpg": "y", "bird.jpg": "y"} and not found.listed
    assert found.counts == {"files outside the folders of classes": 1, "empty folders": 1}


def test_what_matches_twice_or_not_at_all_or_in_two_folders_is_listed(tmp_path):
    pool, sorted_ = photos(tmp_path / "pool"), tmp_path / "sorted"
    (tmp_path / "pool" / "dog" / "001.jpg").write_text("cat/001.jpg")
    put(sorted_, "x", "001.jpg", "cat/001.jpg"), put(sorted_, "x", "new.jpg", "new")
    put(sorted_, "x", "bird.jpg", ""), put(sorted_, "y", "bird.jpg", "")
    os.symlink(tmp_path / "gone", sorted_ / "x" / "link.jpg")
    os.mkfifo(sorted_ / "x" / "pipe.jpg")
    found = read(sorted_, pool)
    assert not found.acts
    assert {one.what: one.why for one in found.left_out} == {
        "001.jpg": "it fits several items of the pool",
        "new.jpg": "no such item in the pool",
        "link.jpg": "it is no file, or a link that leads nowhere",
        "pipe.jpg": "it is no file, or a link that leads nowhere",
        "bird.jpg": "it is given 'x' and 'y'",
    }


def test_links_are_the_file_that_they_lead_to(tmp_path):
    pool, sorted_ = photos(tmp_path / "pool"), tmp_path / "sorted"
    (sorted_ / "x").mkdir(parents=True)
    os.symlink(tmp_path / "pool" / "dog" / "001.jpg", sorted_ / "x" / "anything.jpg")
    os.symlink("/etc/hostname", sorted_ / "x" / "climbs.jpg")
    os.symlink("/etc", sorted_ / "folder")
    found = read(sorted_, pool)
    assert labels(found) == {"dog/001.jpg": "x"}


def test_a_file_that_is_gone_from_the_pool_is_found_by_its_name(tmp_path):
    pool, sorted_ = photos(tmp_path / "pool"), tmp_path / "sorted"
    (sorted_ / "x").mkdir(parents=True)
    (tmp_path / "pool" / "bird.jpg").rename(sorted_ / "x" / "bird.jpg")
    assert labels(read(sorted_, pool)) == {"bird.jpg": "x"}


@pytest.mark.parametrize("name", ["cat", "a b", "a/b", "..", ".", ".x", "a\nb", "%41", "=x", "Möwe", "x.", "a:b", "-"])
def test_every_class_is_a_folder_and_back(tmp_path, name):
    folder = folder_name(name)
    assert class_name(folder) == name and "/" not in folder and "\n" not in folder
    assert not folder.startswith((".", "-")) and not folder.endswith((".", " "))
    (tmp_path / folder).mkdir()


def test_plain_names_stay(tmp_path):
    assert [folder_name(name) for name in ("cat", "red fox", "Möwe", "7")] == ["cat", "red fox", "Möwe", "7"]


def test_a_file_that_was_moved_away_and_renamed_is_found_by_its_mark(tmp_path, write_cache):
    pool, sorted_ = photos(tmp_path / "pool"), tmp_path / "sorted"
    marks = [mark_of_bytes(name.encode()) for name in pool.ids]
    config = {"_target_": "alfm.datasets.folder.folder", "root": str(tmp_path / "pool"), "modality": "image"}
    items = Items.open([write_cache(pool.ids, config, marks=marks)], ["train"])
    (sorted_ / "x").mkdir(parents=True)
    (tmp_path / "pool" / "bird.jpg").rename(sorted_ / "x" / "parrot.jpg")
    (tmp_path / "pool" / "cat" / "001.jpg").rename(sorted_ / "x" / "001.jpg")
    assert labels(read(sorted_, items)) == {"bird.jpg": "x", "cat/001.jpg": "x"}


def test_a_folder_without_folders_is_refused(tmp_path):
    with pytest.raises(UserError, match="a folder per class"):
        read(tmp_path, photos())
    with pytest.raises(UserError, match="there is no"):
        read(tmp_path / "gone", photos())
