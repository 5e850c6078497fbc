"""What is printed to be typed: through a shell's and Hydra's eyes it comes back as it was."""

from __future__ import annotations

import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from alfm import al_train
from alfm.cache import open_cache
from alfm.cache.after import after_cache
from alfm.commands import command, setting, typed


@pytest.mark.parametrize(
    "value",
    [
        "/plain/path-1.2/x.h5",
        "/my photos/a (1)/x.h5",
        "a,b=c[d]{e}",
        "it's 'quoted' \"twice\"",
        "größe/猫.h5",
        "back\\slash\\",
        "slash\\'quote",
        "~/x y",
        "a#b;c&d|e",
        [0, 4095],
        [-1024.5, 3071],
        {"train": ".", "test": "my test"},
        True,
        None,
        32,
    ],
)
def test_a_setting_survives_shell_and_hydra(value: object) -> None:
    words = shlex.split(command("al_train", setting("cache", value)))
    assert words[:3] == ["python", "-m", "alfm.al_train"] and len(words) == 4
    assert OverridesParser.create().parse_override(words[3]).value() == value
    assert shlex.split(typed("cache", value)) == [words[3]]


def test_plain_words_stay_plain() -> None:
    assert command("report", "logs/a b") == "python -m alfm.report 'logs/a b'"
    assert typed("cache", "features/digits/pixels.h5") == "cache=features/digits/pixels.h5"
    assert typed("dataset.intensity_range", [0, 4095]) == "'dataset.intensity_range=[0,4095]'"


def cache(path: Path, **labels: list[int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for split, column in labels.items():
            file[f"{split}/features"] = np.random.default_rng(0).normal(size=(len(column), 3)).astype(np.float32)
            file[f"{split}/labels"] = np.array(column)
    return path


def test_the_next_command_works(tmp_path: Path) -> None:
    for number, splits in enumerate(({"train": [0, 1, 0, 1], "test": [0, 1]}, {"all": [0, 1, 1, 0], "held": [0, -1]})):
        path = cache(tmp_path / f"my (photos) {number}" / "a b.h5", **splits)
        words = shlex.split(after_cache(open_cache(path)))
        assert words[:4] == ["Next:", "python", "-m", "alfm.al_train"]
        assert al_train.main([*words[4:], "query_strategy=random", "seeds=[1]", "iterations.n=1"]) == 0


def test_what_is_not_labelled_is_labelled_next(tmp_path: Path) -> None:
    said = after_cache(open_cache(cache(tmp_path / "a b.h5", train=[-1, -1], test=[-1])))
    assert said.startswith("No item is labelled yet.\nNext:  python -m alfm.label ")
    assert shlex.split(said)[-1] == f"cache={tmp_path}/a b.h5"
    assert after_cache(open_cache(cache(tmp_path / "b.h5", held=[-1]))).endswith(f"cache={tmp_path}/b.h5 split=held")


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        ({"train": [1, 1], "test": [0]}, "No split has labelled items of two classes"),
        ({"train": [0, 1], "test": [-1]}, "Only train is labelled"),
    ],
)
def test_no_command_where_none_would_work(tmp_path: Path, splits: dict[str, list[int]], says: str) -> None:
    assert after_cache(open_cache(cache(tmp_path / "a.h5", **splits))).startswith(says)


def test_the_share_is_named_as_it_is_typed(tmp_path: Path) -> None:
    said = after_cache(open_cache(cache(tmp_path / "a.h5", train=[0, 1])))
    assert said.endswith("such as a share of it (dataset.test_fraction=0.2 force=true).")
