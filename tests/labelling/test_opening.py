"""From a command line to a learner: what the folder holds stands, and what is typed wins."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from alfm import UserError
from alfm.config.hydra import run_hydra
from alfm.labelling.opening import open_learner, set_audit


@pytest.fixture
def opened(digits_cache, tmp_path, monkeypatch, capsys):
    """What `python -m alfm.select WORDS` would open, in a folder of its own; a mistake as its sentence."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pixels.h5").symlink_to(digits_cache)

    def opened(*words, config="select"):
        found = []

        def run(cells):
            for cell in cells:
                found.append(open_learner(cell))
                set_audit(cell, found[-1])
            return 0

        if run_hydra(config, "nobody", run, argv=list(words)):
            raise UserError(capsys.readouterr().err)
        return found[0]

    return opened


BEGIN = ("cache=pixels.h5", "labels_in_cache=ignore")


@pytest.mark.parametrize("config", ["select", "label"])
def test_a_state_is_begun_beside_the_person_and_gone_on_with(config, opened):
    first = opened(*BEGIN, "query_strategy=margins", "seed=7", "classes=[0,1,2,3,4,5,6,7,8,9]", config=config)
    assert first.journal.folder == Path("pixels.labelling") and first.classes == list("0123456789")
    names = {"query_strategy": "margins", "init_strategy": "random", "classifier": "logistic"}
    assert first.state.settings["names"] == names
    batch = first.ask(5)
    for words in (("cache=pixels.h5",), ("state=pixels.labelling", "seed=7", "query_strategy=margins")):
        again = opened(*words, config=config)
        assert again.state.settings["names"] == names and again.state.settings["seed"] == 7
        assert [item.row for item in again.ask(5)] == [item.row for item in batch]
        assert len(again.state.batches) == 1


def test_what_is_typed_wins_and_is_recorded(opened):
    opened(*BEGIN)
    assert opened("state=pixels.labelling").state.settings["names"]["init_strategy"] == "maxherding"
    changed = opened("state=pixels.labelling", "query_strategy=typiclust", "query_strategy.max_clusters=9", "audit=20")
    settings = changed.state.settings
    assert settings["query_strategy"]["max_clusters"] == 9 and settings["names"]["init_strategy"] == "typiclust"
    again = opened("state=pixels.labelling", "classes=[zero,one]")
    assert again.state.settings == settings and again.state.window.size == 20 and again.classes == ["zero", "one"]
    assert again.state.settings_acts == 2
    assert opened("state=pixels.labelling", "classifier=logistic", "warm_start=true").state.settings_acts == 2
    assert opened("state=pixels.labelling", "classifier.tolerance=0.001").state.settings_acts == 3
    assert opened("state=pixels.labelling", "warm_start=false").state.settings["warm_start"] is False


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("seed=4",), "seed=4: pixels.labelling was begun with seed=0, which stays; leave it out"),
        (("split=test",), "begun with split=train"),
        (("labels_in_cache=use",), "begun with labels_in_cache=ignore"),
        (("query_strategy.held_out=0.2",), "goes on with query_strategy=margins, .* say query_strategy=NAME beside"),
        (("query_strategy=boss",), "boss looks at hidden labels"),
        (("init_strategy=balanced",), "balanced looks at hidden labels"),
        (("classes=3",), "classes=3: a list of names"),
        (("audit=-1",), "audit=-1"),
        (("cache=nothing.h5",), "no feature cache nothing.h5"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(words, why, opened):
    opened(*BEGIN, "query_strategy=margins")
    with pytest.raises(UserError, match=why):
        opened("state=pixels.labelling", *words)


def test_each_cache_has_a_folder_of_its_own(opened, digits_cache, tmp_path, monkeypatch):
    """Two data sets embedded with one model, where `alfm.extract` puts them and elsewhere."""
    for name in ("ants", "bees"):
        (tmp_path / "features" / name).mkdir(parents=True)
        shutil.copy(digits_cache, tmp_path / "features" / name / "dino.h5")
    with h5py.File("features/bees/dino.h5", "a") as file:
        file["train/labels"][0] = 9 - file["train/labels"][0]
    monkeypatch.setenv("FEATURE_CACHE_DIR", "features")
    assert opened("cache=features/ants/dino.h5").journal.folder == Path("ants-dino.labelling")
    assert opened("cache=features/bees/../ants/dino.h5").journal.folder == Path("ants-dino.labelling")
    assert opened("cache=features/bees/dino.h5").journal.folder == Path("bees-dino.labelling")
    monkeypatch.setenv("FEATURE_CACHE_DIR", "elsewhere")
    assert opened("cache=features/ants/dino.h5").journal.folder == Path("dino.labelling")
    with pytest.raises(UserError, match=r"bees/dino.h5 is none of the caches of .*ants/dino.h5: name .* state="):
        opened("cache=features/bees/dino.h5")


def test_nothing_to_open(opened):
    with pytest.raises(UserError, match="Which items\\? Name the pool with cache=PATH"):
        opened()
    with pytest.raises(UserError, match="holds no labelling state: begin one with cache=PATH"):
        opened("state=here")
    assert not Path("here").exists()


def test_labels_in_the_cache_count_unless_they_are_ignored(opened, digits_arrays):
    assert np.array_equal(opened("cache=pixels.h5").status().trained, len(digits_arrays[1]))
