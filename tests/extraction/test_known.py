"""`known=`: only what is new is embedded, into a cache of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alfm.cache import open_cache
from alfm.cache.verify import verify
from alfm.labelling.items import Items

Run = Callable[..., int]
PHOTOS = ("dataset=image_folder", "dataset.root=photos", "cache.dtype=float32")
FIRST, SECOND, THIRD = (Path(f"features/photos/tiny{ending}.h5") for ending in ("", "-2", "-3"))


def photos(start: int, stop: int, folder: str = "photos") -> None:
    """Files whose order is not that of their numbers, so that new ones come between old ones."""
    Path(folder).mkdir(exist_ok=True)
    for number in range(start, stop):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{folder}/{number % 10}-{number}.png")


def names(start: int, stop: int) -> set[str]:
    return {f"{number % 10}-{number}.png" for number in range(start, stop)}


def test_from_day_to_day(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FEATURE_CACHE_DIR", "features")
    photos(0, 30)
    assert run(*PHOTOS) == 0
    before = FIRST.read_bytes()
    assert run(*PHOTOS, f"known={FIRST}") == 0
    out = capsys.readouterr().out
    assert "Nothing new: all 30 items are in features/photos/tiny.h5" in out and not SECOND.exists()
    assert "Next:  python -m alfm.label cache=features/photos/tiny.h5\n" in out

    photos(30, 37)
    assert run(*PHOTOS, f"known={FIRST}") == 0
    out = capsys.readouterr().out
    assert "Known: 30 of 37 items" in out
    assert "Next:  python -m alfm.label 'cache=[features/photos/tiny.h5,features/photos/tiny-2.h5]'" in out
    made = open_cache(SECOND)
    assert verify(SECOND).problems == [] and set(made.ids("train") or []) == names(30, 37)
    assert FIRST.read_bytes() == before
    assert run(*PHOTOS, f"known={FIRST}") == 0
    assert "Already cached: features/photos/tiny-2.h5" in capsys.readouterr().out

    photos(37, 41)
    assert run(*PHOTOS, f"known={FIRST}") == 1
    err = capsys.readouterr().err
    assert "tiny-2.h5 holds 7 of these 11 items already: name it too, 'known=[features/photos/tiny.h5," in err
    both = f"known=[{FIRST},{SECOND}]"
    assert run(*PHOTOS, both) == 0 and set(open_cache(THIRD).ids("train") or []) == names(37, 41)
    caches = [open_cache(path) for path in (FIRST, SECOND, THIRD)]
    items = Items.open(caches, ["train"] * 3)
    assert set(items.ids) == names(0, 41) and [items.status(row) for row in range(41)] == ["ok"] * 41

    assert run(*PHOTOS, "cache.model=whole") == 0
    whole = open_cache("features/photos/whole.h5")
    place = {item_id: row for row, item_id in enumerate(whole.ids("train") or [])}
    for cache in caches:
        wanted = whole.features("train")[[place[item_id] for item_id in cache.ids("train") or []]]
        np.testing.assert_allclose(cache.features("train"), wanted, atol=1e-5)


def test_a_split_without_news_is_left_away(run: Run) -> None:
    assert run("splits=[test]") == 0
    assert run("known=features/dots/tiny.h5") == 0
    assert open_cache("features/dots/tiny-2.h5").splits == ["train"]


def test_another_choice_of_the_same_size_is_another_cache(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    photos(0, 8)
    for one in (0, 1):
        (Path(f"one{one}")).mkdir()
        name = f"{one}-{one}.png"
        Path(f"one{one}/{name}").write_bytes(Path(f"photos/{name}").read_bytes())
        assert run("dataset=image_folder", f"dataset.root=one{one}", "cache.dtype=float32") == 0
    assert run(*PHOTOS, "known=features/one0/tiny.h5") == 0
    capsys.readouterr()
    assert run(*PHOTOS, "known=features/one1/tiny.h5") == 1
    assert "tiny-2.h5 holds 6 of these 7 items already" in capsys.readouterr().err
    assert run(*PHOTOS, "known=features/one1/tiny.h5", "force=true") == 0
    assert "1-1.png" not in (open_cache(SECOND).ids("train") or [])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["known=[]"], "known=[] names no cache"),
        (["known=nowhere.h5"], "There is no feature cache nowhere.h5"),
        (["known=features/dots/tiny.h5", "model.seed=1"], "another model (model_fingerprint: tiny-0-5 there, tiny-1-5"),
        (["known=features/dots/tiny.h5", "model.dim=6"], "was made with another model"),
        (["known=features/dots/tiny.h5", "dataset.n=61", "cache.model=tiny"], "would be replaced by the cache of what"),
        (["known=plain.h5"], "known=plain.h5 has no ids"),
        (["known={a: b}"], "a cache or a list of caches"),
    ],
)
def test_mistakes(run: Run, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    import h5py

    assert run() == 0
    with h5py.File("plain.h5", "w") as file:
        file["train/features"], file["train/labels"] = np.ones((3, 5), "f4"), np.zeros(3, int)
    capsys.readouterr()
    assert run(*words) != 0
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


def test_one_scale_of_deep_images(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos").mkdir()
    Image.fromarray(np.full((9, 9), 900, np.uint16)).save("photos/a.png")
    assert run(*PHOTOS) == 0
    Image.fromarray(np.full((9, 9), 60000, np.uint16)).save("photos/b.png")
    assert run(*PHOTOS, f"known={FIRST}") == 1
    err = capsys.readouterr().err
    assert "was read with images from 0 (black) to 1023 (white)" in err and "'dataset.intensity_range=[0" in err


def test_an_interrupted_run_goes_on(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("dataset.n=20", "dataset.n_test=5") == 0
    known = "known=features/dots/tiny.h5"
    assert run(known, "dataset.bad=[50]") == 1
    assert run(known) == 0
    assert "Going on" in capsys.readouterr().out
    made = open_cache("features/dots/tiny-2.h5")
    assert (made.num_rows("train"), made.num_rows("test")) == (40, 15)
