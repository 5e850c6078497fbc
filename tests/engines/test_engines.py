"""Cells run anywhere: a process that is given nothing but a cell's JSON makes what the command line makes."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import alfm.al_train
import alfm.extract
from alfm.config.cell import Cell
from alfm.config.hydra import run_hydra
from alfm.engines.base import in_order, open_session, run_alone
from alfm.errors import UserError
from alfm.results.run_folder import read_picks


def cells(name: str, task: str, *words: str) -> list[Cell]:
    found: list[Cell] = []
    assert run_hydra(name, task, lambda made: found.extend(made) or 0, argv=list(words)) == 0
    return found


def test_a_fresh_process_makes_the_same_from_json_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both stages, with relative folders, from elsewhere; runs are the same to the folder's name and the picks."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir(), elsewhere.mkdir()
    monkeypatch.chdir(home)
    for name in ("DATASET_DIR", "MODEL_CACHE_DIR", "FEATURE_CACHE_DIR", "LOG_DIR"):
        monkeypatch.delenv(name)
    (home / ".env").write_text("LOG_DIR=runs\n")
    extract = ["dataset=digits", "model=pixels", "device=cpu"]
    train = ["query_strategy=margins", "seeds=[1,2]", "iterations.n=3", "device=cpu"]
    texts = [cell.to_json() for cell in cells("extract", alfm.extract.TASK, *extract)]
    texts += [cell.to_json() for cell in cells("al_train", alfm.al_train.TASK, *train)]
    assert all(isinstance(json.loads(text), dict) for text in texts)
    assert alfm.extract.main(extract) == 0 == alfm.al_train.main(train)
    (home / "features").rename(tmp_path / "features before")
    (home / "runs").rename(tmp_path / "runs before")

    monkeypatch.chdir(elsewhere)
    for text in texts:
        process = multiprocessing.get_context("spawn").Process(target=run_alone, args=(text,))
        process.start()
        process.join(120)
        assert process.exitcode == 0
    assert list(elsewhere.iterdir()) == []
    with (
        h5py.File(home / "features/digits/pixels.h5") as now,
        h5py.File(tmp_path / "features before/digits/pixels.h5") as before,
    ):
        assert np.array_equal(now["train/features"][()], before["train/features"][()])
    (then,), (now,) = (
        [path.parent for path in folder.rglob("rounds.csv")] for folder in (tmp_path / "runs before", home / "runs")
    )
    assert then.name == now.name
    picks, again = read_picks(then), read_picks(now)
    assert picks.keys() == again.keys() == {1, 2}
    for seed, rows in picks.items():
        assert np.array_equal(rows, again[seed])


def test_a_mistake_comes_out_of_a_cell_that_runs_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (cell,) = cells("al_train", alfm.al_train.TASK, "query_strategy=margins")
    with pytest.raises(UserError, match="There is no feature cache .*dataset=digits model=pixels"):
        run_alone(cell.to_json())


def test_cells_of_equal_keys_lie_together_and_one_is_not_asked() -> None:
    cell = Cell("", {}, {}, (), "", {})
    named = [replace(cell, folder=name) for name in "abacba"]
    assert "".join(cell.folder for cell in in_order(named, lambda cell: cell.folder)) == "aaabbc"
    assert in_order([cell], lambda cell: pytest.fail("asked")) == [cell]


def test_hydras_global_state_is_nobodys_while_cells_run() -> None:
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    seen = []

    def look(cells: list[Cell]) -> int:
        seen.append((HydraConfig.initialized(), GlobalHydra.instance().is_initialized(), len(cells)))
        return 7

    assert run_hydra("extract", "", look, argv=["-m", "seed=1,2,3"]) == 7 and seen == [(False, False, 3)]


def test_sessions_are_found_by_name_and_share_nothing() -> None:
    for task in (alfm.al_train.TASK, alfm.extract.TASK):
        one, two = open_session(task), open_session(task)
        assert type(one) is type(two) and one is not two and vars(one) == vars(two) == {"_loaded": {}}


def test_a_users_own_strategy_is_found_in_another_process(
    digits_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `python -m` finds it: in the folder where the command was typed."""
    home, conf = tmp_path / "home", tmp_path / "home/myconf/query_strategy"
    conf.mkdir(parents=True)
    (home / "mine.py").write_text(
        "from alfm import Strategy\n\n\nclass Last(Strategy):\n    needs_head = False\n\n"
        "    def select(self, query, budget):\n        return query.available.byte().topk(budget).indices\n"
    )
    (conf / "last.yaml").write_text("_target_: mine.Last\n")
    monkeypatch.chdir(home)
    words = [f"cache={digits_cache}", "query_strategy=last", "init_strategy=random", "seeds=[1]", "iterations.n=2"]
    (cell,) = cells("al_train", alfm.al_train.TASK, "--config-dir", "myconf", *words)
    code = "import sys; from alfm.engines.base import run_alone; run_alone(sys.argv[1])"
    root = str(Path(alfm.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, cell.to_json()], cwd=tmp_path, env=os.environ | {"PYTHONPATH": root},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
