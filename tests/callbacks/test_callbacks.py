"""What callbacks are told of a run, and that nothing else changes."""

from __future__ import annotations

import csv
import os
import re
import sys
import types
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import alfm
from alfm.al_train import main
from alfm.callbacks import Callback, Round, Run

HEARD: list[tuple[Run, Round]] = []


class Listener(Callback):
    def __init__(self, fails_at: int = 0) -> None:
        self.fails_at = fails_at

    def on_round(self, run: Run, round: Round) -> None:
        HEARD.append((run, round))
        if round.round == self.fails_at:
            raise ConnectionError("no answer")


def train(cache: Path, *words: str) -> int:
    return main([f"cache={cache}", "seeds=[1,2]", "iterations.n=3", "query_strategy=margins", *words])


def folder() -> Path:
    (found,) = Path(os.environ["LOG_DIR"]).rglob("rounds.csv")
    return found.parent


@pytest.fixture
def mine(monkeypatch) -> str:
    module = types.ModuleType("my_callbacks")
    module.Listener = Listener
    monkeypatch.setitem(sys.modules, "my_callbacks", module)
    HEARD.clear()
    return "+callback.mine._target_=my_callbacks.Listener"


def test_what_is_told_is_what_is_stored(digits_cache, mine):
    assert train(digits_cache) == 0
    plain = folder()
    assert train(digits_cache, mine, "force=true") == 0
    assert folder() == plain  # the same hash
    with np.load(plain / "picks.npz") as picks:
        for i, seed in enumerate((1, 2)):
            told = [round.seeds[i] for _, round in HEARD]
            assert [one.seed for one in told] == [seed] * 3
            assert np.concatenate([one.picks for one in told]).tolist() == picks[str(seed)].tolist()
            assert [one.ended for one in told] == [None, None, "all rounds done"]
    rows = alfm.load_runs(plain).set_index(["seed", "round"])
    for run, round in HEARD:
        assert (run.path, run.query_strategy, run.model, run.rounds) == (plain, "margins", "pixels", 3)
        for one in round.seeds:
            row = rows.loc[(one.seed, round.round)]
            assert (one.num_labeled, one.metrics["accuracy"]) == (row["num_labeled"], row["accuracy"])
            assert round.fit_seconds == row["fit_seconds"]


def test_what_a_callback_raises_ends_the_run_and_loses_nothing(digits_cache, mine, capsys):
    assert train(digits_cache, mine, "+callback.mine.fails_at=2") == 1
    told = capsys.readouterr().err
    assert "callback.mine failed after round 2 (ConnectionError: no answer): the round is stored" in told
    with (folder() / "rounds.csv").open() as file:
        assert sorted(row["round"] for row in csv.DictReader(file)) == ["1", "1", "2", "2"]
    HEARD.clear()
    assert train(digits_cache, mine) == 0
    assert [round.round for _, round in HEARD] == [3]  # what was told once is not told again
    HEARD.clear()
    assert train(digits_cache, mine) == 0 and not HEARD


def test_tensorboard(digits_cache):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train(digits_cache, "callback=tensorboard") == 0
    rows = alfm.load_runs(folder())
    for seed in (1, 2):
        events = EventAccumulator(str(folder() / "tensorboard" / f"seed-{seed}")).Reload().Scalars("accuracy")
        own = rows[rows["seed"] == seed]
        assert [event.step for event in events] == own["num_labeled"].tolist()
        np.testing.assert_allclose([event.value for event in events], own["accuracy"], rtol=1e-6)


def test_tensorboard_that_is_not_there(digits_cache, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert train(digits_cache, "callback=tensorboard") == 1
    assert "pip install 'alfm[tensorboard]'" in capsys.readouterr().err


def test_the_example_of_the_documents(digits_cache, monkeypatch):
    """With a module in MLflow's place that writes down what it is told."""
    told: list[tuple[str, dict[str, float], int]] = []
    active: list[str] = []

    @contextmanager
    def start_run(run_id=None, run_name=None):
        active.append(run_id or run_name)
        yield types.SimpleNamespace(info=types.SimpleNamespace(run_id=active[-1]))

    stand_in = types.SimpleNamespace(
        start_run=start_run, log_metrics=lambda metrics, step: told.append((active[-1], metrics, step))
    )
    monkeypatch.setitem(sys.modules, "mlflow", stand_in)
    page = (Path(alfm.__file__).parents[1] / "docs" / "protocol.md").read_text()
    (code,) = re.findall(r"```python\n# my_package.py\n(.*?)```", page, re.S)
    module = types.ModuleType("my_package")
    exec(code, module.__dict__)
    monkeypatch.setitem(sys.modules, "my_package", module)
    assert train(digits_cache, "+callback.mlflow._target_=my_package.MLflow") == 0
    rows = alfm.load_runs(folder()).sort_values(["round", "seed"])
    assert [step for _, _, step in told] == rows["num_labeled"].tolist()
    assert [metrics["nll"] for _, metrics, _ in told] == rows["nll"].tolist()
    assert {name for name, _, _ in told} == {f"{folder().name} seed {seed}" for seed in (1, 2)}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["callback=tensorbord"], "tensorboard"),
        (["+callback.mine._target_=collections.OrderedDict"], "a Callback is needed"),
    ],
)
def test_mistakes_are_a_sentence(words, sentence, digits_cache, capsys):
    assert train(digits_cache, *words) in (1, 2)
    assert sentence in capsys.readouterr().err
