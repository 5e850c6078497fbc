"""The items behind a pool: found again, never mixed up, and named when they are gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from alfm.cache import FeatureCache
from alfm.datasets.marks import mark_of_bytes
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
