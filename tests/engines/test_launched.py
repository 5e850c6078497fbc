"""Sweeps through Hydra's launchers: the run folders of a plain `-m`, whatever fails or is lost on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

import alfm.al_train
from alfm.cache.claims import Claims
from alfm.config.launching import for_launcher
from alfm.engines.jobs import Sweep
from alfm.engines.launched import jobs_of
from alfm.errors import UserError
from alfm.results.run_folder import read_picks

TIMES = ["fit_seconds", "query_seconds", "eval_seconds", "peak_memory_bytes", "num_replicates"]
FOUR = ["query_strategy=random,margins,entropy,powermargins", "seeds=[1]", "iterations.n=2", "device=cpu"]


@pytest.fixture
def cache(tmp_path: Path, digits_arrays: Sequence[np.ndarray]) -> Path:
    path = tmp_path / "digits" / "pixels.h5"
    path.parent.mkdir()
    x, y, test_x, test_y = digits_arrays
    with h5py.File(path, "w") as file:
        file["train/features"], file["train/labels"] = x[:150].astype(np.float16), y[:150]
        file["test/features"], file["test/labels"] = test_x[:80].astype(np.float16), test_y[:80]
    return path


def outcomes(logs: Path) -> dict[str, tuple[pd.DataFrame, dict[int, np.ndarray]]]:
    """What every run below a folder decided and measured, without what it took."""
    runs = [path.parent for path in logs.rglob("rounds.csv")]
    return {run.name: (pd.read_csv(run / "rounds.csv").drop(columns=TIMES), read_picks(run)) for run in runs}


def same(one: Path, two: Path, count: int) -> None:
    first, second = outcomes(one), outcomes(two)
    assert first.keys() == second.keys() and len(first) == count
    for name, (rows, picks) in first.items():
        pd.testing.assert_frame_equal(rows, second[name][0], check_exact=True)
        assert picks.keys() == second[name][1].keys()
        assert all(np.array_equal(chosen, second[name][1][seed]) for seed, chosen in picks.items())


@dataclass
class InProcess:
    """A launcher that runs its jobs here; `lose(job number)` before each may raise, as where a worker is killed."""

    folder: Path
    lose: Callable[[int], Any] = lambda job: None
    cells_per_job: int | None = None
    name: str = "here"
    all_at_once: bool = False
    launched: list[list[str]] = field(default_factory=list)

    def workers(self) -> int | None:
        return 2

    def start(self, task: Callable[[Any], None], words: Sequence[Sequence[str]], first: int) -> None:
        for number, each in enumerate(words, first):
            self.launched.extend([list(each)])
            self.lose(number)
            task(OmegaConf.from_dotlist(list(each)))


def launched(launcher: InProcess, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("alfm.config.hydra.launcher_of", lambda words, extra: launcher)
    return alfm.al_train.main(["-m", "hydra/launcher=joblib", *words])


def test_cells_of_one_cache_share_a_job_and_every_worker_gets_one(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_DIR", str(tmp_path / "plain"))
    assert alfm.al_train.main(["-m", *FOUR, f"cache={cache}"]) == 0
    monkeypatch.setenv("LOG_DIR", str(tmp_path / "launched"))
    launcher = InProcess(tmp_path / "sweep")
    capsys.readouterr()
    assert launched(launcher, [*FOUR, f"cache={cache}"], monkeypatch) == 0
    assert launcher.launched == [["cells=[0,1]"], ["cells=[2,3]"]]
    same(tmp_path / "plain", tmp_path / "launched", 4)
    assert "[4/4] query_strategy=powermargins" in capsys.readouterr().out
    assert "Results:" in (tmp_path / "sweep/cells/00003.log").read_text()
    assert not (tmp_path / "sweep/settings.json").exists()


def test_what_fails_is_launched_once_more_after_the_others_and_listed(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher = InProcess(tmp_path / "sweep", cells_per_job=1)
    words = [f"cache={tmp_path}/none.h5,{cache}", "query_strategy=random", "seeds=[1]", "iterations.n=2"]
    assert launched(launcher, words, monkeypatch) == 1
    assert launcher.launched == [["cells=[0]"], ["cells=[1]"], ["cells=[0]"]]
    err = capsys.readouterr().err
    assert f"1 of 2 jobs failed: cache={tmp_path}/none.h5" in err and "none.h5" in err.partition("seeds=[1]")[2]
    assert len(outcomes(Path(os.environ["LOG_DIR"]))) == 1


def test_a_lost_job_takes_nothing_with_it(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher raises at the first lost job: what it never began is launched again, and again."""
    lost = iter([None, RuntimeError("killed"), None, RuntimeError("killed")])

    def lose(job: int) -> None:
        if error := next(lost, None):
            raise error

    launcher = InProcess(tmp_path / "sweep", lose)
    assert launched(launcher, [*FOUR, f"cache={cache}"], monkeypatch) == 0
    assert launcher.launched == [["cells=[0,1]"], ["cells=[2,3]"], ["cells=[2]"], ["cells=[3]"], ["cells=[3]"]]


def test_a_launcher_that_begins_nothing_says_why(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lose(job: int) -> None:
        raise FileNotFoundError("sbatch\nand more")

    assert launched(InProcess(tmp_path / "sweep", lose), [*FOUR, f"cache={cache}"], monkeypatch) == 2
    log = tmp_path / "sweep/launcher.log"
    assert (
        capsys.readouterr().err == f"Error: hydra/launcher=here began no job: FileNotFoundError: sbatch (see {log})\n"
    )
    assert "Traceback" in log.read_text()


def test_ctrl_c_before_a_cell_is_begun_is_no_traceback(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(task: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("alfm.engines.launched.open_session", interrupted)
    assert launched(InProcess(tmp_path / "sweep"), [*FOUR, f"cache={cache}"], monkeypatch) == 130
    assert "Interrupted." in capsys.readouterr().err and not (tmp_path / "sweep").exists()


def test_a_cell_that_another_job_is_at_is_left_to_it(cache: Path, tmp_path: Path) -> None:
    from test_engines import cells

    made = cells("al_train", alfm.al_train.TASK, f"cache={cache}", "seeds=[1]", "iterations.n=2")
    sweep = Sweep.create(tmp_path / "sweep", made, {"A_SECRET": "word"})
    for private in ("settings.json", "cells/00000.json"):
        assert (tmp_path / "sweep" / private).stat().st_mode & 0o077 == 0
    other = Claims(sweep.folder, 120)
    assert other.claim("00000")
    sweep.run([0])
    assert sweep.at_work() == {0} and not sweep.done(0)
    other.close()
    sweep.run([0])
    assert sweep.done(0) and sweep.begun() == {0: 2}
    with pytest.raises(UserError, match="a sweep lies there"):
        Sweep.create(tmp_path / "sweep", made, {})


def test_jobs_hold_cells_of_one_cache() -> None:
    assert list(jobs_of(range(6), lambda number: "abaabb"[number], 2)) == [[0, 2], [3], [1, 4], [5]]


def test_words_of_the_launcher_are_not_words_of_the_cells() -> None:
    words = ["hydra/launcher=joblib", "seeds=1", "hydra.launcher.n_jobs=2", "sweep.cells_per_job=3", "budget.init=2"]
    assert for_launcher(words) == (
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "sweep.cells_per_job=3"],
        ["seeds=1", "budget.init=2"],
    )
    assert for_launcher(["+hydra/launcher=joblib", "seeds=1"]) == (["hydra/launcher=joblib"], ["seeds=1"])
    assert for_launcher(["hydra/launcher=basic", "seeds=1"]) == ([], ["hydra/launcher=basic", "seeds=1"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["hydra/launcher=joblib"], "launchers run the cells of a sweep; add -m"),
        (["-m", "sweep.cells_per_job=2"], "add -m hydra/launcher=joblib"),
        (["-m", "hydra/launcher=joblib", "hydra.launcher.n_job=2"], "has no such setting; did you mean n_jobs"),
        (["-m", "hydra/launcher=slurm"], "There is no hydra/launcher=slurm: there are joblib, submitit_local"),
        (["-m", "hydra/launcher=joblib", "sweep.cells_per_job=0"], "a whole number from 1 on"),
        (["-m", "hydra/launcher=joblib", "hydra.launcher.jobs=2"], "jobs"),
        (["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "give 2, or -1 for all"),
    ],
)
def test_a_wrong_launcher_is_said(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert alfm.al_train.main(words) == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["joblib", "submitit_local", "ray"])
def test_a_launcher_makes_the_run_folders_of_a_plain_sweep(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In fresh processes, one of four failing; nothing appears in the working folder."""
    if find_spec(f"hydra_plugins.hydra_{name.partition('_')[0]}_launcher") is None:
        pytest.skip("hydra-ray-launcher needs an old cloudpickle, so an environment of its own (extra ray-launcher)")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("PYTHONPATH", str(Path(alfm.__file__).parent.parent))
    four = ["query_strategy=random,margins", f"cache={cache},{tmp_path}/none.h5", *FOUR[1:]]
    monkeypatch.setenv("LOG_DIR", str(tmp_path / "plain"))
    assert alfm.al_train.main(["-m", *four]) == 1
    monkeypatch.setenv("LOG_DIR", str(tmp_path / "launched"))
    assert alfm.al_train.main(["-m", f"hydra/launcher={name}", *four]) == 1
    same(tmp_path / "plain", tmp_path / "launched", 2)
    assert list(home.iterdir()) == []
