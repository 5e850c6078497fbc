"""`tune=`, `tune.from=` and `validation.size=` of a run, from the command line to its folder."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import alfm
from alfm.al_train import main
from alfm.heads.logistic import Logistic
from alfm.results.load import load_runs, load_stops, load_tuning
from alfm.results.tuning_effect import gain_of_tuning, options_chosen
from alfm.results.tuning_file import FILE, read_tuning
from alfm.simulation.index_sets import IndexSets
from alfm.simulation.settings import Tune
from alfm.simulation.tuning import tuned
from alfm.stopping.__main__ import main as stopping

WORDS = ["device=cpu", "query_strategy=margins", "iterations.n=4", "seeds=[1,10]", "budget.per_class=false"]
WORDS += ["budget.init=8", "budget.step=8"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tuning") / "points.h5"
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 6))
    with h5py.File(path, "w") as file:
        for split, n in (("train", 90), ("test", 60)):
            labels = np.arange(n) % 3
            file[f"{split}/features"] = (centres[labels] + rng.normal(size=(n, 6))).astype(np.float32)
            file[f"{split}/labels"] = labels
    return path


@pytest.fixture
def logs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LOG_DIR", str(tmp_path / "logs"))
    return tmp_path / "logs"


def run(cache: Path, *words: str) -> int:
    return main([f"cache={cache}", *WORDS, *words])


def folders(logs: Path) -> list[Path]:
    return sorted(path.parent for path in logs.rglob("rounds.csv"))


def test_a_tuned_run_and_its_twin(cache, logs, capsys) -> None:
    assert run(cache) == 0
    (plain,) = folders(logs)
    assert run(cache, "tune=true", "stopping=max_confidence") == 0
    (tuned,) = set(folders(logs)) - {plain}
    chosen = read_tuning(tuned)
    assert [(one.seed, one.round) for one in chosen] == [(s, r) for r in range(1, 5) for s in (1, 10)]
    assert chosen[0].reason == "kept: 8 labels for 3 classes, fewer than 3 per class"
    assert all(np.isfinite(one.score) for one in chosen[2:])
    frame = load_tuning(logs)
    assert list(frame["option"].unique()) == ["strength"] and len(frame) == 8
    first = options_chosen(frame).iloc[0]
    assert (first["round"], first["seeds"], first["kept"], first["median"]) == (1, 2, 1.0, 1.0)
    (gain,) = gain_of_tuning(load_runs(logs)).itertuples()
    assert (gain.run, gain.twin, gain.seeds) == (tuned.name, plain.name, 2) and gain.low <= gain.gain <= gain.high
    assert stopping([str(tuned), "stopping=overall_uncertainty"]) == 0, "a finished run's rounds are replayed"
    assert run(cache, "tune=false") == 0 and len(folders(logs)) == 2
    assert "Already done" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["tune=true", "tune.by=optuna"])
def test_an_interrupted_run_chooses_as_one_that_was_not(cache, logs, monkeypatch, how) -> None:
    words = ["tune=true", "tune.folds=3", *([how, "tune.trials=6"] if "optuna" in how else [])]
    if "optuna" in how:
        pytest.importorskip("optuna")
    assert run(cache, *words) == 0
    (folder,) = folders(logs)
    whole = (folder / FILE).read_bytes(), _measured(folder)
    from alfm.results.run_folder import RunFolder

    append, calls = RunFolder.append, []

    def killed(self, rows, picks):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        append(self, rows, picks)

    monkeypatch.setattr(RunFolder, "append", killed)
    assert run(cache, *words, "force=true") != 0
    monkeypatch.undo()
    monkeypatch.setenv("LOG_DIR", str(logs))
    assert run(cache, *words) == 0
    assert ((folder / FILE).read_bytes(), _measured(folder)) == whole


def test_choices_of_another_run_are_used_again(cache, logs, capsys) -> None:
    assert run(cache, "tune=true") == 0
    (first,) = folders(logs)
    assert run(cache, f"tune.from={first}", "seeds=[2]") == 0
    (second,) = set(folders(logs)) - {first}
    of_first = {one.round: one.options for one in read_tuning(first) if one.seed == 1}
    assert {one.round: one.options for one in read_tuning(second)} == of_first
    assert run(cache, f"tune.from={first}", "tune.seed=1", "seeds=[2]") == 0 and len(folders(logs)) == 2
    assert run(cache, f"tune.from={first}", "tune.seed=10", "seeds=[2]") == 0
    said = {
        f"tune.from={first} tune.seed=7": "has no such finished seed, it has 1, 10",
        f"tune.from={logs}": "there is no run",
        f"tune.from={first} iterations.n=5": "set iterations.n=4",
    }
    for words, sentence in said.items():
        assert run(cache, *words.split()) == 1
        assert sentence in capsys.readouterr().err


def test_validation_labels_are_paid_for_and_not_trained_on(cache, logs) -> None:
    assert run(cache, "validation.size=12", "tune=true") == 0
    (folder,) = folders(logs)
    rows = load_runs(folder)
    assert rows["num_labeled"].tolist()[:4] == [20, 28, 36, 44] and set(rows["num_validation"]) == {12}
    with np.load(folder / "picks.npz") as picks:
        from alfm.simulation.validation import Validation

        held = Validation(12).rows([1], 90)[0].numpy()
        assert set(picks["1"][:12]) == set(held) and len(set(picks["1"])) == 44
    assert all(np.isfinite(one.score) for one in read_tuning(folder)), "judged on, however few labels to train on"
    assert stopping([str(folder), "stopping=overall_uncertainty"]) == 0
    one = alfm.simulate(
        cache, "margins", seeds=[1], rounds=4, init=8, step=8, per_class=False, validation=12, tune=True
    )
    assert one["accuracy"].tolist() == rows[rows["seed"] == 1]["accuracy"].tolist()
    assert one["conditions"][0] == rows["conditions"][0]
    assert len(one.attrs["tuning"]) == 4


def test_simulate_takes_settings_of_tuning(cache) -> None:
    frame = alfm.simulate(cache, "random", seeds=[1], rounds=3, init=8, step=8, per_class=False, tune=Tune(folds=3))
    assert [one["round"] for one in frame.attrs["tuning"]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("tune=maybe", "tune.enabled=maybe"),
        ("tune.by=optuna", "add tune=true"),
        ("tune=true tune.by=magic", "tune.by=magic"),
        ("tune=true tune.folds=1", "tune.folds=1"),
        ("tune.seed=1", "tune.from=RUN"),
        ("tune=true tune.space={depth:[1,2]}", "has no option depth"),
        ("tune=true tune.space={strength:[1]}", "give two values or more"),
        ("tune=true tune.space=3", "tune.space=3"),
        ("validation.size=90", "lower one of them"),
        ("validation.size=0.5", "validation.unit=share"),
        ("validation.size=2 validation.unit=share", "a number below 1"),
        ("validation.size=0.001 validation.unit=share", "less than one item"),
        ("validation.unit=pounds validation.size=1", "validation.unit=pounds"),
    ],
)
def test_wrong_words_are_answered_in_a_sentence(cache, logs, capsys, words, sentence) -> None:
    assert run(cache, *words.split()) == 1
    said = capsys.readouterr().err
    assert sentence in said and "Traceback" not in said
    assert not logs.exists() or not folders(logs)


def _measured(folder: Path) -> list[float]:
    return load_runs(folder)["accuracy"].tolist()


def test_validation_labels_that_nobody_gave_are_counted(cache, logs) -> None:
    rule = ["stopping=labelling_budget", "stopping.labelling_budget.labels=28"]
    assert run(cache, "validation.size=12", "oracle.abstain=0.5", *rule) == 0
    (folder,) = folders(logs)
    rows = load_runs(folder)
    answers = alfm.Simulation(cache, device="cpu", oracle={"abstain": 0.5}).answers([1, 10])
    with np.load(folder / "picks.npz") as picks:
        for seed, own in zip((1, 10), answers.numpy(), strict=True):
            for row in rows[rows["seed"] == seed].itertuples():
                assert row.num_abstained == (own[picks[str(seed)][: row.num_labeled]] < 0).sum()
            assert (own[picks[str(seed)][:12]] < 0).any()
    stops = load_stops(folder)
    assert stops["labels"].tolist() == [28, 28], "what is paid for is spent, answered or not"


def test_the_first_round_of_a_run_that_was_not_tuned_yet(cache, logs) -> None:
    """Nothing is chosen while nobody has answered; another seed may have answers by then."""
    assert run(cache, "tune=true") == 0
    (first,) = folders(logs)
    lines = (first / FILE).read_text().splitlines(keepends=True)
    (first / FILE).write_text("".join(line for line in lines if not line.startswith("1,1,")))
    assert run(cache, f"tune.from={first}", "tune.seed=1", "seeds=[2]") == 0


def test_choices_for_another_head_and_of_longer_runs(cache, logs, capsys) -> None:
    words = ["budget.init=1", "budget.step=1", f"budget.schedule=[{','.join(['3'] * 22)}]", "iterations.n=20"]
    assert run(cache, "tune=true", "seeds=[1]", *words) == 0, "the schedule says how many rounds there are"
    (first,) = folders(logs)
    assert run(cache, f"tune.from={first}", "seeds=[2]", *words) == 0
    (second,) = set(folders(logs)) - {first}
    assert len(read_tuning(second)) == 22
    assert run(cache, f"tune.from={first}", "classifier=dropout", "seeds=[2]") == 1
    assert "it chose strength, which Dropout does not have; add classifier=logistic" in capsys.readouterr().err


def test_a_validation_file_is_answered_by_the_annotator(cache, tmp_path) -> None:
    (tmp_path / "held.txt").write_text(" ".join(map(str, range(60))))
    sets = IndexSets(validation=str(tmp_path / "held.txt"))
    task = alfm.Simulation(cache, device="cpu", index_sets=sets, oracle={"noise": 0.4, "abstain": 0.2})
    said = task.held_answers(1)
    whole = alfm.Simulation(cache, device="cpu", oracle={"noise": 0.4, "abstain": 0.2}).answers([1])[0]
    assert said.tolist() == whole[:60].tolist(), "what is said of an item does not depend on what it is asked for"
    classifier = tuned(Tune(), Logistic(), task, [1])
    features, classes = classifier._own_held_out[1]
    assert classes.tolist() == [one for one in said.tolist() if one >= 0] and len(features) == len(classes) < 60
