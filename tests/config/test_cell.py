"""A cell is plain data, and every command line of ours makes one that survives the way through JSON."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError

import alfm.al_train
import alfm.extract
from alfm.config.cell import Cell, as_cfg
from alfm.config.hydra import run_hydra


def cells(name: str, *words: str) -> list[Cell]:
    found: list[Cell] = []
    task = {"al_train": alfm.al_train.TASK, "extract": alfm.extract.TASK}[name]
    assert run_hydra(name, task, lambda made: found.extend(made) or 0, argv=list(words)) == 0
    return found


@pytest.mark.parametrize(
    ("name", "words", "group", "option"),
    [
        ("al_train", ["query_strategy=bald", "query_strategy/posterior=laplace"], "query_strategy", "bald"),
        ("al_train", ["init_strategy=index_file", "init_strategy.path=rows.txt"], "init_strategy", "index_file"),
        ("al_train", ["classifier=propagated", "cache=x.h5", "splits.unlabelled=[3,4]"], "classifier", "propagated"),
        ("extract", ["dataset=domainnetreal", "model=timm", "model.arch=a"], "dataset", "domainnetreal"),
        ("extract", ["augment=randaugment", "views=3", "shard=0/2"], "augment", "randaugment"),
        ("extract", [], "augment", None),
    ],
)
def test_cells_go_through_json_and_pickle(name: str, words: list[str], group: str, option: str | None) -> None:
    (cell,) = cells(name, *words)
    assert Cell.from_json(cell.to_json()) == cell == pickle.loads(pickle.dumps(cell))
    assert cell.choices[group] == option and not any("hydra" in key for key in (*cell.choices, *cell.config))
    assert OmegaConf.to_container(cell.cfg(), resolve=True) == cell.config


def test_a_cell_knows_what_was_typed_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("LOG_DIR=from file\nTOKEN=secret\n")
    monkeypatch.delenv("LOG_DIR")
    one, two = cells("al_train", "-m", "query_strategy=margins,random", "dataset.name='${hydra:runtime.choices.model}'")
    assert (one.words[0], two.words[0]) == ("query_strategy=margins", "query_strategy=random")
    assert one.config["dataset"]["name"] == "pixels" and one.folder == str(tmp_path)
    assert one.environment["LOG_DIR"] == "from file" and "secret" not in one.to_json()


def test_a_config_is_what_it_was_before_it_became_data() -> None:
    """`${` of a name is no reference, backslashes and quotes stay, and so do keys that are numbers."""
    letters = ["\\", "$", "{", "}", "a", "/", " ", "'", '"', ":", "?"]
    draw = random.Random(0)
    texts = ["".join(draw.choices(letters, k=draw.randrange(9))) for _ in range(2000)]
    config = {"texts": texts, "names": {0: "cat", 1: "$x ${oc.env:HOME}", "b": [{True: None, 2.5: 1e-5}]}}
    cell = Cell("task", config, {"dataset": None}, ("a=b",), "/", {})
    assert OmegaConf.to_container(cell.cfg(), resolve=True) == config
    assert repr(Cell.from_json(cell.to_json())) == repr(cell)
    assert replace(cell, config={}).cfg() == {}
    with pytest.raises(ConfigAttributeError):
        as_cfg({"budget": 1}).budgets  # noqa: B018


def test_a_reference_that_leads_nowhere_is_answered_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["+x=${oc.env:NOT_THERE}"], ["+x.y=${seedz}"]):
        assert alfm.al_train.main(words) == 2
        err = capsys.readouterr().err
        assert err.startswith("Error: ") and err.count("\n") == 1 and "Traceback" not in err
