"""The simulated annotator: how often it is wrong, that it keeps to what it said, and what happens without answers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import alfm
from alfm.al_train import main
from alfm.config.parts import from_config
from alfm.config.paths import groups_of
from alfm.errors import UserError
from alfm.heads.logistic import Logistic
from alfm.results.load import load_runs
from alfm.simulation.oracle import Annotator, OracleOptions, read_confusion
from alfm.simulation.replicates import run_replicates
from alfm.stopping.__main__ import COUNTS


def asked(labels, classes=4, numbers=None, size=None, seed=1, **options) -> np.ndarray:
    numbers = np.arange(len(labels)) if numbers is None else numbers
    return Annotator(labels, numbers, size or len(labels), classes, OracleOptions(**options)).answers(seed)


def test_symmetric_noise_is_a_share_spread_over_the_other_classes():
    labels = np.arange(40_000) % 4
    said = asked(labels, noise=0.3)
    assert abs((said != labels).mean() - 0.3) < 0.01
    for true in range(4):
        others = np.bincount(said[(labels == true) & (said != labels)], minlength=4)
        assert others[true] == 0 and np.allclose(others[others > 0] / others.sum(), 1 / 3, atol=0.03)


def test_what_is_said_of_an_item_depends_on_it_and_the_seed_alone():
    labels = np.arange(1000) % 4
    said = asked(labels, noise=0.3)
    assert (asked(labels, noise=0.3) == said).all() and (asked(labels, noise=0.3, seed=2) != said).any()
    some = np.array([5, 77, 500, 900])
    assert (asked(labels[some], numbers=some, size=1000, noise=0.3) == said[some]).all()  # in a smaller pool
    twice = np.concatenate([np.arange(1000), np.arange(1000) + 1000])  # in one with copies
    both = asked(labels[twice % 1000], numbers=twice, size=1000, noise=0.3)
    assert (both[:1000] == said).all() and (both[1000:] != said).any()
    less = asked(labels, noise=0.1)
    assert ((less != labels) <= (said != labels)).all()  # more noise adds mistakes to those that are there
    silent = asked(labels, noise=0.3, abstain=0.2)
    assert abs((silent < 0).mean() - 0.2) < 0.05 and (silent[silent >= 0] == said[silent >= 0]).all()


@pytest.mark.parametrize("kind", ["npy", "csv", "txt"])
def test_a_confusion_matrix_says_how_often_each_class_is_named(kind, tmp_path):
    matrix = np.array([[0.5, 0.5, 0], [0, 1, 0], [0.1, 0.2, 0.7]])
    path = tmp_path / f"confusion.{kind}"
    np.save(path, matrix) if kind == "npy" else np.savetxt(path, matrix, delimiter="," if kind == "csv" else " ")
    labels = np.arange(30_000) % 3
    said = asked(labels, classes=3, confusion=str(path))
    for true in range(3):
        assert np.allclose(np.bincount(said[labels == true], minlength=3) / 10_000, matrix[true], atol=0.02)
    swapped = asked(labels, classes=3, confusion=_saved(tmp_path, [[0, 1, 0], [0, 0, 1], [1, 0, 0]]))
    assert (swapped == (labels + 1) % 3).all()


def _saved(folder: Path, matrix, name: str = "matrix.npy") -> str:
    np.save(folder / name, np.array(matrix, dtype=None))
    return str(folder / name)


def test_wrong_matrices_are_refused(tmp_path):
    text = tmp_path / "named.csv"
    text.write_text("cat,dog\n0.5,0.5\n")
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([{}, []], dtype=object), allow_pickle=True)
    for path, words in (
        (_saved(tmp_path, [[1, 0, 0], [0, 1, 0]]), "is 2 x 3, but the cache has 3 classes"),
        (_saved(tmp_path, [[1, 0, 0], [0, 0.8, 0.1], [0, 0, 1]], "b.npy"), "row 2 sums to 0.9.*divide each row"),
        (_saved(tmp_path, [[1, 0, 0], [0, 1, 0], [0, 2, -1]], "c.npy"), "row 3 holds a number that is no share"),
        (_saved(tmp_path, [[1, 0, 0], [0, np.nan, 0], [0, 0, 1]], "d.npy"), "row 2 holds a number"),
        (str(text), "cannot be read as a matrix"),
        (str(objects), "cannot be read as a matrix"),
        (str(tmp_path / "absent.npy"), "absent.npy cannot be read"),
    ):
        with pytest.raises(UserError, match=words):
            read_confusion(path, 3)
    assert np.allclose(read_confusion(_saved(tmp_path, [[0.667, 0.333], [0.5, 0.5]], "e.npy"), 2).sum(1), 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["oracle.noise=1"], "noise=1: a number of at least 0 and below 1"),
        (["oracle.abstain=-1"], "abstain=-1: a number of at least 0 and below 1"),
        (["oracle.noise=0.1", "oracle.confusion=m.npy"], "leave one out"),
        (["oracle.confusion=m.npy"], "m.npy cannot be read"),
        (["oracle.nois=0.1"], "noise"),
    ],
)
def test_wrong_options_are_refused(words, said, digits_cache, capsys):
    assert main([f"cache={digits_cache}", *words]) != 0
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told


def test_learners_are_told_the_noise_and_measured_without(digits_cache):
    clean = alfm.Simulation(digits_cache, device="cpu")
    noisy = alfm.Simulation(digits_cache, device="cpu", oracle={"noise": 0.4})
    assert (noisy.labels == clean.labels).all() and (noisy.test_labels == clean.test_labels).all()
    frames = {name: alfm.simulate(task, "random", seeds=[1, 2], rounds=6) for name, task in
              (("clean", clean), ("noisy", noisy))}  # fmt: skip
    assert frames["clean"]["picked"].tolist() == frames["noisy"]["picked"].tolist()
    last = {name: frame[frame["round"] == 6]["accuracy"].mean() for name, frame in frames.items()}
    assert last["noisy"] < last["clean"] - 0.1
    assert frames["clean"]["conditions"].iloc[0] != frames["noisy"]["conditions"].iloc[0]


@pytest.mark.parametrize("name", ["margins", "badge", "typiclust", "uherding", "bait", "coreset", "dropquery"])
def test_a_replicate_with_fewer_answers_does_not_depend_on_its_company(name, digits_cache):
    task = alfm.Simulation(digits_cache, device="cpu", oracle={"abstain": 0.4, "noise": 0.1})
    together = alfm.simulate(task, name, seeds=[1, 2], rounds=4)
    alone = alfm.simulate(task, name, seeds=[2], rounds=4)
    own = together[together["seed"] == 2].reset_index(drop=True)
    same = ["picked", "accuracy", "nll", "num_abstained", "num_classes", "num_labeled"]
    assert own[same].equals(alone[same])
    assert together.groupby("round")["num_abstained"].nunique().max() > 1  # they differ in how much they know
    assert own["num_labeled"].tolist() == [10, 20, 30, 40]  # labels paid for
    said = task.answers([2])[0]
    assert own["num_abstained"].iloc[-1] <= int((said < 0).sum())


def test_nobody_answers_for_some_rounds(digits_cache):
    """One question a round, nine of ten without an answer: the cold start goes on, and chance is what is measured."""
    task = alfm.Simulation(digits_cache, device="cpu", oracle={"abstain": 0.9})
    frame = alfm.simulate(task, "margins", seeds=[1, 2, 3], rounds=8, per_class=False)
    assert sorted(frame["num_labeled"]) == [n for n in range(1, 9) for _ in range(3)]
    nothing = frame[frame["num_classes"] == 0]
    assert len(nothing) and (nothing["num_abstained"] == nothing["num_labeled"]).all()
    assert np.allclose(nothing["nll"], np.log(10)) and (nothing["accuracy"] < 0.2).all()
    alone = alfm.simulate(task, "margins", seeds=[3], rounds=8, per_class=False)
    assert frame[frame["seed"] == 3]["picked"].tolist() == alone["picked"].tolist()


def test_every_rule_watches_a_run_with_unanswered_rounds(digits_cache):
    rules = [name for name in groups_of()["stopping"] if name not in COUNTS]
    frame = alfm.simulate(
        digits_cache, "margins", seeds=[1, 2], rounds=9, per_class=False, stopping=rules, oracle={"abstain": 0.8},
        device="cpu",
    )  # fmt: skip
    assert {one["rule"] for one in frame.attrs["stopping"]} == set(rules)


def train(cache: Path, *words: str) -> int:
    few = ["query_strategy=margins", "iterations.n=4", "seeds=[1,2]", "device=cpu"]
    return main([f"cache={cache}", *few, *words])


def test_a_run_with_unanswered_items_is_resumed_as_if_nothing_had_happened(digits_cache, capsys):
    words = ["oracle.abstain=0.4", "oracle.noise=0.2"]
    assert train(digits_cache, *words) == 0
    assert "Pool: 20 % wrong answers, 40 % unanswered" in capsys.readouterr().out
    (folder,) = {file.parent for file in Path(os.environ["LOG_DIR"]).rglob("rounds.csv")}
    before = load_runs(folder)
    lines = (folder / "rounds.csv").read_text().splitlines(keepends=True)
    (folder / "rounds.csv").write_text("".join(lines[:4]))  # one replicate is a round ahead of the other
    (folder / "progress.json").write_text(json.dumps({"finished": {}}))
    assert train(digits_cache, *words) == 0
    after = load_runs(folder)
    same = ["seed", "round", "num_labeled", "num_abstained", "num_classes", "accuracy", "nll", "picked"]
    order = ["seed", "round"]
    assert before[same].sort_values(order, ignore_index=True).equals(after[same].sort_values(order, ignore_index=True))
    assert before["num_labeled"].max() == 40  # paid for, answered or not


def test_another_matrix_at_the_same_path_is_another_run(digits_cache, tmp_path):
    path = tmp_path / "m.npy"
    for swap in (0.1, 0.3):
        np.save(path, (1 - swap) * np.eye(10) + swap * np.roll(np.eye(10), 1, axis=1))
        assert train(digits_cache, f"oracle.confusion={path}") == 0
    df = load_runs(os.environ["LOG_DIR"])
    assert df["run"].nunique() == 2 and df["conditions"].nunique() == 2


def test_oracle_strategies_see_what_is_true(digits_cache):
    task = alfm.Simulation(digits_cache, device="cpu", oracle={"noise": 0.5})
    start, random = from_config("init_strategy", "balanced"), from_config("query_strategy", "random")
    picked: list[int] = []
    list(
        run_replicates(
            task, Logistic(), start, random, [10], [1], on_round=lambda made, _: picked.extend(made.picks[0].tolist())
        )
    )
    assert sorted(task.labels[picked].tolist()) == list(range(10))
