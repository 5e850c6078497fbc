"""Experiments: every file composes, stands for what it says, and one runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from alfm.al_train import TASK, main
from alfm.config.hydra import run_hydra
from alfm.config.paths import conf_dir
from alfm.options import read
from alfm.results.load import load_runs
from alfm.simulation.settings import Settings

FOLDER = conf_dir() / "experiment"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
TO_BE_GIVEN = {"torchal_partitions": ["index_sets.folder=sets"], "torchal_transfer": ["query_strategy.path=run"]}


def cells(*words: str) -> list:
    made: list = []
    assert run_hydra("al_train", TASK, lambda found: made.extend(found) or 0, argv=list(words)) == 0
    return made


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_composes_and_its_settings_are_allowed(name):
    settings = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    strategies = settings["query_strategy"].split(",")
    assert strategies[0] == "random" or name == "torchal_transfer"
    assert settings.get("init_strategy") == "random" or name in TO_BE_GIVEN  # one start for all
    assert all((conf_dir() / "query_strategy" / f"{one}.yaml").exists() for one in strategies)
    for cell in cells(f"experiment={name}", f"query_strategy={strategies[0]}", *TO_BE_GIVEN.get(name, [])):
        read(Settings, cell.cfg())


def test_there_is_one_for_each_published_setting():
    assert {name.partition("_")[0] for name in NAMES} == {"torchal", "mdalth"}
    imbalance = cells("experiment=torchal_imbalance", "query_strategy=random,margins")
    assert len(imbalance) == 6 and {cell.choices["query_strategy"] for cell in imbalance} == {"random", "margins"}
    assert {cell.config["pool"]["seed"] for cell in imbalance} == {0, 1, 2}
    for name in ("ag_news", "food101", "speech_commands"):
        config = cells(f"experiment=mdalth_{name}", "query_strategy=margins")[0].config
        assert (config["budget"]["init"], config["budget"]["step"], config["iterations"]["n"]) == (32, 32, 16)
        assert config["budget"]["unit"] == "labels"


def test_what_is_typed_besides_wins(digits_cache, capsys):
    words = ["experiment=mdalth_ag_news", f"cache={digits_cache}", "query_strategy=random,margins", "seeds=[1]"]
    assert main([*words, "iterations.n=2", "stopping=[]", "device=cpu"]) == 0
    df = load_runs(os.environ["LOG_DIR"])
    assert sorted(df["query_strategy"].unique()) == ["margins", "random"]
    assert sorted(df["num_labeled"].unique()) == [32, 64]


def test_a_users_own_experiment_lies_in_a_folder_of_configs(tmp_path: Path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "query_strategy: random,badge\nwarm_start: false\nseeds: [3, 4]\n"
    )
    made = cells("--config-dir", str(tmp_path), "experiment=mine", "device=cpu")
    assert [cell.choices["query_strategy"] for cell in made] == ["random", "badge"]
    assert all(cell.config["seeds"] == [3, 4] and cell.config["warm_start"] is False for cell in made)


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        ("a: 1", ["experiment=torchal"], "There is no experiment=torchal: did you mean torchal_"),
        ("a: 1", ["experiment=mine", "experiment=torchal_noise"], "name one experiment at a time"),
        ("- a", ["experiment=mine"], "must be a mapping of settings"),
        ("a: [", ["experiment=mine"], "is no YAML"),
        ("budgets.init: 3", ["experiment=mine"], "budget"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(content, words, said, tmp_path, capsys):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(content)
    assert main(["--config-dir", str(tmp_path), *words]) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told and len(told.splitlines()) == 1
