"""`python -m alfm.al_train` from its command line to its files, on a small cache of real digits."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

import alfm
import alfm.simulation.replicates
from alfm.al_train import TASK, main, with_random
from alfm.cache.reader import FeatureCache
from alfm.config.hydra import run_hydra
from alfm.engines.base import open_session
from alfm.engines.local import Local
from alfm.report.terminal import print_summary
from alfm.results.load import load_runs
from alfm.results.rounds_file import columns
from alfm.results.run_hash import run_hash

TIMES = {"fit_seconds", "query_seconds", "eval_seconds", "peak_memory_bytes", "num_replicates"}


@pytest.fixture
def make_cache(tmp_path, digits_arrays):
    x, y, test_x, test_y = digits_arrays

    def make(name: str = "digits/pixels.h5", **changed) -> Path:
        """150 training and 80 test digits; `changed` replaces train_labels=..., test_features=... or sets classes=."""
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        content = {
            "train_features": x[:150].astype(np.float16), "train_labels": y[:150],
            "test_features": test_x[:80].astype(np.float16), "test_labels": test_y[:80],
        }  # fmt: skip
        with h5py.File(path, "w") as file:
            if "classes" in changed:
                file.attrs["class_names"] = changed.pop("classes")
            for key, value in {**content, **changed}.items():
                if value is not None:
                    file[key.replace("_", "/")] = value
        return path

    return make


@pytest.fixture
def cache(make_cache):
    return make_cache()


@pytest.fixture
def asked(monkeypatch):
    """The seeds of every call of the loop."""
    calls: list[list[int]] = []
    original = alfm.simulation.loop.play

    def play(learner, *rest):
        calls.append(learner.seeds)
        yield from original(learner, *rest)

    monkeypatch.setattr(alfm.simulation.replicates, "play", play)
    return calls


def train(cache: Path, *words: str, seeds: str = "[1,2]", n: int = 3) -> int:
    return main([f"cache={cache}", f"seeds={seeds}", f"iterations.n={n}", *words])


def logs() -> Path:
    return Path(os.environ["LOG_DIR"])


def run_folder() -> Path:
    (found,) = logs().rglob("rounds.csv")
    return found.parent


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "rounds.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def outcome(folder: Path) -> tuple[list[dict[str, str]], dict[str, list[int]]]:
    """What a run decided and measured, without what it took."""
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in table(folder)]
    with np.load(folder / "picks.npz") as picks:
        return sorted(rows, key=lambda row: (row["seed"], int(row["round"]))), {k: picks[k].tolist() for k in picks}


def test_a_run_leaves_its_folder_and_says_where(cache, capsys):
    assert train(cache) == 0
    folder = run_folder()
    assert folder.parent == logs() / "digits" / "pixels" and folder.name.startswith("uherding-")
    written = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert written == {"config.yaml", "rounds.csv", "index_sets", "picks.npz", "progress.json", "environment.json"}
    rows = table(folder)
    assert tuple(rows[0]) == columns()
    assert [(r["seed"], r["round"], r["num_labeled"]) for r in rows] == [
        (seed, str(n), str(10 * n)) for seed in ("1", "2") for n in (1, 2, 3)
    ]
    assert all(0 <= float(row["accuracy"]) <= 1 and row["num_replicates"] == "2" for row in rows)
    for picks in outcome(folder)[1].values():
        assert len(set(picks)) == 30 and set(picks) <= set(range(150))
    out = capsys.readouterr().out
    assert "pool 150 x 64, 10 classes, test 80" in out and "AUBC" in out
    assert f"Results: {folder}" in out and "Next: python -m alfm.report" in out


def test_what_is_done_is_not_done_again_unless_forced(cache, asked, capsys):
    assert train(cache) == 0
    before = outcome(run_folder())
    assert train(cache) == 0
    assert asked == [[1, 2]] and "Already done" in capsys.readouterr().out
    assert train(cache, "force=true") == 0
    assert asked == [[1, 2], [1, 2]] and outcome(run_folder()) == before


def test_another_seed_runs_alone(cache, asked):
    assert train(cache) == 0
    assert train(cache, seeds="[1,2,7]") == 0
    assert asked == [[1, 2], [7]]
    assert [row["seed"] for row in table(run_folder())] == ["1"] * 3 + ["2"] * 3 + ["7"] * 3


@pytest.mark.parametrize("strategy", ["margins", "typiclust"])
def test_an_interrupted_run_goes_on_and_ends_as_if_nothing_had_happened(strategy, cache, asked, monkeypatch, capsys):
    assert train(cache, f"query_strategy={strategy}", n=4) == 0
    whole = outcome(run_folder())
    monkeypatch.setenv("LOG_DIR", str(logs() / "again"))
    import alfm.simulation.loop

    measure, calls = alfm.simulation.task.Task.measure, iter(range(99))

    def interrupted(*args):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return measure(*args)

    with monkeypatch.context() as patch:
        patch.setattr(alfm.simulation.task.Task, "measure", interrupted)
        assert train(cache, f"query_strategy={strategy}", n=4) == 130
    assert "goes on from here" in capsys.readouterr().err
    assert len(table(run_folder())) == 4  # two rounds of two seeds
    with pytest.raises(alfm.UserError, match="no finished run"):
        load_runs(run_folder())
    assert train(cache, f"query_strategy={strategy}", n=4) == 0
    assert outcome(run_folder()) == whole
    assert load_runs(run_folder())["finished"].all()


def test_a_run_killed_between_rounds_of_different_seeds_goes_on(cache, asked):
    assert train(cache, n=4) == 0
    folder = run_folder()
    whole = outcome(folder)
    (folder / "progress.json").unlink()
    lines = (folder / "rounds.csv").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("1,3,", "1,4,", "2,4,"))]
    (folder / "rounds.csv").write_text("\n".join(kept) + "\n")  # picks were written first: they reach further
    assert train(cache, n=4) == 0
    assert asked[1:] == [[1], [2]] and outcome(folder) == whole


def test_a_failed_job_of_a_sweep_fails_the_sweep_and_is_not_taken_for_done(cache, monkeypatch, capsys):
    from alfm.strategies.entropy import Entropy

    with monkeypatch.context() as patch:
        patch.setattr(Entropy, "select", lambda *_: 1 / 0)
        words = ["-m", f"cache={cache}", "seeds=[1]", "iterations.n=3"]
        assert main([*words, "query_strategy=entropy,random"]) == 1
        assert "1 of 2 jobs failed" in capsys.readouterr().err
        with pytest.raises(ZeroDivisionError):  # alone: a defect shows its traceback, and python exits with 1
            main([*words[1:], "query_strategy=entropy"])
    assert set(load_runs(logs())["query_strategy"]) == {"random"}
    assert main([*words, "query_strategy=entropy,random"]) == 0
    assert set(load_runs(logs())["query_strategy"]) == {"random", "entropy"}
    assert "Already done" in capsys.readouterr().out


def test_budgets(cache, capsys):
    assert train(cache, "budget.init=16") == 1
    assert "initial budget asks for 160 items but the pool has 150" in capsys.readouterr().err
    assert not list(logs().rglob("rounds.csv"))
    assert train(cache, "budget.init=7", "budget.step=100", "budget.per_class=false", seeds="[1]", n=5) == 0
    assert [row["num_labeled"] for row in table(run_folder())] == ["7", "107", "150"]
    assert "the pool is exhausted after round 3 of 5" in capsys.readouterr().out
    for word in ("iterations.n=0", "budget.step=0", "budget.step=many", "iterations.n=2.5", "budget.init=.inf"):
        assert train(cache, word) == 1
        assert f"{word.partition('=')[0]}=" in capsys.readouterr().err


def test_doubling_budgets(cache):
    assert train(cache, "iterations.exp=true", "query_strategy=random", seeds="[1]", n=4) == 0
    assert [row["num_labeled"] for row in table(run_folder())] == ["10", "20", "40", "80"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["query_strategy=margin"], 2, "There is no query_strategy=margin: did you mean margins"),
        (["classifier=5"], 2, "There is no classifier=5: known: adapter"),
        (["stopping=[kappa_pairs,5]"], 2, "There is no stopping=[kappa_pairs,5]: did you mean kappa_pairs"),
        (["callback=true"], 2, "There is no callback=true: known: tensorboard"),
        (["iteration.n=3"], 2, "iterations.n"),
        (["query_strategy=margins,random"], 2, "add -m"),
        (["seeds=[1,1]"], 1, "different"),
        (["seeds=[]"], 1, "seeds"),
        (["seeds=[one]"], 1, "whole numbers"),
        (["seeds=[-3]"], 1, "whole numbers"),
        (["device=gpu"], 1, "no device"),
        (["device=cuda:63"], 1, "no device cuda:63"),
        (["memory=disk"], 1, "memory=disk"),
        (["keep_geometry=perhaps"], 1, "keep_geometry=perhaps: true or false"),
        (["warm_start=2"], 1, "warm_start=2: true or false"),
        (["splits.test=val"], 1, "no split 'val'"),
        (["init_strategy=typiclus"], 2, "typiclust"),
        (["+init_strategy.budget=3"], 1, "was not given what it takes"),
    ],
)
def test_wrong_words_are_answered_in_one_sentence(words, status, said, cache, capsys):
    assert train(cache, *words) == status
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
    assert not list(logs().rglob("rounds.csv"))


def test_one_seed_needs_no_brackets(cache):
    assert train(cache, seeds="5", n=2) == 0
    assert {row["seed"] for row in table(run_folder())} == {"5"}


def test_a_missing_cache_names_the_command_that_makes_it(tmp_path, capsys):
    assert main(["dataset=digits", "model=pixels"]) == 1
    err = capsys.readouterr().err
    assert "python -m alfm.extract dataset=digits model=pixels" in err and "digits/pixels.h5" in err
    assert main([f"cache={tmp_path}/none.h5"]) == 1
    assert "There is no feature cache" in capsys.readouterr().err
    assert main(["cache=s3://bucket/x.h5"]) == 1
    assert "was given as a URL: caches are read from a disk, so download it first" in capsys.readouterr().err


def nan_features(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[17, 3] = np.nan
    return x


BAD = {
    "NaN": (lambda x, y: {"train_features": nan_features(x)}, "17"),
    "Inf in test": (lambda x, y: {"test_features": np.full((80, 64), np.inf, np.float16)}, "test"),
    "one class": (lambda x, y: {"train_labels": np.zeros(150, np.int64)}, "one class only"),
    "labels outside": (lambda x, y: {"classes": ["a", "b", "c"]}, "3"),
    "labels below -1": (lambda x, y: {"train_labels": y - 2}, "label"),
    "no test items": (
        lambda x, y: {"test_features": np.zeros((0, 64), np.float16), "test_labels": np.zeros(0, np.int64)},
        "test",
    ),
    "no test split": (lambda x, y: {"test_features": None, "test_labels": None}, "no split 'test'"),
    "nothing labelled": (lambda x, y: {"train_labels": np.full(150, -1)}, "no labelled item"),
    "nothing labelled and no test split": (
        lambda x, y: {"train_labels": np.full(150, -1), "test_features": None, "test_labels": None},
        "no labelled item",
    ),
    "other length": (lambda x, y: {"train_labels": y[:-1]}, "train"),
    "several labels": (
        lambda x, y: {"train_labels": np.eye(10, dtype=np.int64)[y] | np.eye(10, dtype=np.int64)[0]},
        "train",
    ),
    "text": (lambda x, y: {"train_features": np.full((150, 64), b"cat")}, "train"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_caches_are_refused_before_any_work(case, make_cache, digits_arrays, capsys):
    change, said = BAD[case]
    x, y = digits_arrays[0][:150].astype(np.float16), digits_arrays[1][:150]
    assert train(make_cache(**change(x, y))) == 1
    err = capsys.readouterr().err
    assert said in err and err.startswith("Error: ") and "Traceback" not in err
    assert not list(logs().rglob("*.csv"))


@pytest.mark.parametrize("damage", ["truncated", "no HDF5", "empty"])
def test_a_damaged_file_is_refused(damage, cache, capsys):
    whole = cache.read_bytes()
    cache.write_bytes({"truncated": whole[: len(whole) // 2], "no HDF5": b"PK\3\4" + whole[4:], "empty": b""}[damage])
    assert train(cache) == 1
    err = capsys.readouterr().err
    assert str(cache) in err and "Traceback" not in err


def test_items_without_a_label_are_left_out_and_counted(make_cache, digits_arrays, capsys):
    y, test_y = digits_arrays[1][:150].copy(), digits_arrays[3][:80].copy()
    y[::3], test_y[:5] = -1, -1
    cache = make_cache(train_labels=y, test_labels=test_y, classes=[str(i) for i in range(10)])
    assert train(cache, n=9) == 0
    out = capsys.readouterr().out
    assert "Left out of the pool: 50 items" in out and "Left out of the test split: 5 items" in out
    for picks in outcome(run_folder())[1].values():
        assert len(picks) == 90 and (y[picks] >= 0).all()  # rows of the cache, not of what is left of it


def test_caches_of_al_foundation_models(make_cache, digits_arrays):
    y, test_y = digits_arrays[1][:150, None], digits_arrays[3][:80, None]
    theirs = make_cache("digits/theirs.hdf", train_labels=y.astype(np.uint8), test_labels=test_y.astype(np.uint8))
    assert train(theirs) == 0
    assert outcome(run_folder()) == outcome_of(make_cache("digits/ours.h5"))


def outcome_of(cache: Path):
    assert train(cache) == 0
    (folder,) = (logs() / "digits" / cache.stem).iterdir()
    return outcome(folder)


def test_a_sweep_reads_each_cache_once_whatever_varies_fastest(make_cache, digits_arrays, monkeypatch):
    caches = [make_cache("digits/a.h5"), make_cache("digits/b.h5")]
    read: list[tuple[str, str]] = []
    original = FeatureCache.features

    def features(self, split):
        read.append((self.path.stem, split))
        return original(self, split)

    monkeypatch.setattr(FeatureCache, "features", features)
    swept = ["query_strategy=random,entropy", f"cache={','.join(map(str, caches))}"]  # Hydra: the caches take turns
    assert main(["-m", *swept, "seeds=[1]", "iterations.n=2"]) == 0
    assert sorted(read) == [("a", "test"), ("a", "train"), ("b", "test"), ("b", "train")]
    assert len(load_runs(logs())["path"].unique()) == 4


def test_a_cache_that_was_replaced_is_read_again(make_cache, digits_arrays):
    """By a session that still holds the one of before."""
    engine = Local(open_session(TASK))

    def train_on(cache: Path) -> int:
        return run_hydra("al_train", TASK, engine.run, argv=[f"cache={cache}", "seeds=[1]", "iterations.n=3"])

    assert train_on(make_cache()) == 0
    before = load_runs(logs())["path"].unique()
    cache = make_cache(
        train_features=digits_arrays[0][150:300].astype(np.float16), train_labels=digits_arrays[1][150:300]
    )
    assert train_on(cache) == 0
    assert len(load_runs(logs())["path"].unique()) == len(before) + 1


@pytest.mark.parametrize(
    ("words", "before"),
    [
        ("query_strategy=uherding", "59b856b481a9076cd20bb8e581da168d82b7cad2b997da6f21c84723e065c553"),
        ("query_strategy=epig", "b6214a26bb7e0e5de8aef7ed6133f5fbffa12e5d25dd32435b6c9ea0af9843e5"),
        ("query_strategy=log_det", "efab828ace7be724bd4f00de960966f22b7e8fe08cdb1f0545ab141d6d307c3e"),
        ("classifier=dropout", "1d8a21c68fd0a7a5133bd79dfd2ab872d2e37a821533c4c00fdb08d280710c05"),
        (
            "init_strategy=index_file init_strategy.path=rows.txt",
            "4ec6c7c935530b30f027395ed1d046e82543f0d3178d6680858b8c55efcf1087",
        ),
    ],
)
def test_runs_of_the_first_versions_keep_their_folders(capsys, words, before):
    """An option that a config gets later stands in `LATER_OPTIONS`, or every folder of before is orphaned."""
    assert main([*words.split(), "--cfg"]) == 0
    assert run_hash(yaml.safe_load(capsys.readouterr().out), "a") == before


def test_a_head_whose_tolerance_is_left_open_is_not_taken_for_that_of_before(cache):
    for words in ([], ["~classifier.tolerance"], ["classifier=propagated", "~classifier.classifier.tolerance"]):
        assert train(cache, "query_strategy=random", *words, n=2) == 0
    found = [yaml.safe_load(file.read_text()) for file in logs().rglob("config.yaml")]
    numbers = {repr(one["classifier"]): one["run"].get("behaviour") for one in found}
    assert len(found) == 3
    assert all(
        number == (None if "tolerance" in text else {"logistic_tolerance": 1}) for text, number in numbers.items()
    )


def test_classes_that_do_not_count_from_0_buy_no_labels_for_the_gaps(make_cache, digits_arrays, capsys):
    y, test_y = digits_arrays[1][:150], digits_arrays[3][:80]
    plain = outcome_of(make_cache("digits/plain.h5"))
    gaps = outcome_of(make_cache("digits/gaps.h5", train_labels=y * 10 + 7, test_labels=test_y * 10 + 7))
    assert gaps == plain
    assert "the 10 classes are numbered 7 to 97: read as 0 to 9" in capsys.readouterr().out
    found = {file.parts[-3]: yaml.safe_load(file.read_text())["run"] for file in logs().rglob("config.yaml")}
    assert found["gaps"]["behaviour"] == {"renumbered_classes": 1} and "behaviour" not in found["plain"]


def test_a_lone_far_label_is_asked_about_and_the_answers_work(make_cache, digits_arrays, capsys):
    y = digits_arrays[1][:150].copy()
    y[::3] = 255
    cache = make_cache(train_labels=y)
    assert train(cache) == 1
    err = capsys.readouterr().err
    assert "50 labels are 255 beside 10 other values" in err and err.count("\n") == 1
    assert "say splits.unlabelled=255 if" in err and "or splits.unlabelled=null if" in err
    assert train(cache, "splits.unlabelled=255") == 0
    assert "Left out of the pool: 50 items" in (out := capsys.readouterr().out) and "10 classes" in out
    assert train(cache, "splits.unlabelled=[255,254]") == 0
    assert train(cache, "splits.unlabelled=null") == 0
    assert "11 classes" in capsys.readouterr().out
    assert train(cache, "splits.unlabelled=maybe") == 1


def test_a_sweep_without_random_gets_it(digits_cache, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["-m", f"cache={digits_cache}", "iterations.n=2", "seeds=[1]", "device=cpu"]
    assert main([*words, "query_strategy=margins,entropy", "--cfg"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# This sweep had no random") and len(list(yaml.safe_load_all(printed))) == 3
    assert main([*words, "query_strategy=margins,entropy", "init_strategy=random"]) == 0
    assert "query_strategy=random is added" in capsys.readouterr().out
    runs = load_runs(os.environ["LOG_DIR"])
    assert runs.groupby("query_strategy")["added"].all().to_dict() == {
        "margins": False, "entropy": False, "random": True
    }  # fmt: skip
    print_summary(runs)
    assert "random was added to a sweep that had nothing to compare with" in " ".join(capsys.readouterr().out.split())
    assert main([f"cache={digits_cache}", *words[2:], "query_strategy=random", "init_strategy=random"]) == 0
    assert "Already done" in capsys.readouterr().out  # the mark makes no other run


def test_random_is_added_beside_every_other_setting_and_never_twice():
    cells = [["query_strategy=margins", "a=1"], ["query_strategy=entropy", "a=1"], ["query_strategy=margins", "a=2"]]
    made, said = with_random(cells)
    assert made == [*cells, ["query_strategy=random", "a=1", "+reference_added=true"],
                    ["query_strategy=random", "a=2", "+reference_added=true"]] and said  # fmt: skip
    for other in ([["query_strategy=margins", "a=1"], ["query_strategy=margins", "a=2"]],
                  [["query_strategy=margins"], ["query_strategy=random"]], [["a=1"], ["a=2"]]):  # fmt: skip
        assert with_random(other) == (other, "")
    made, _ = with_random([["query_strategy=bald", "query_strategy/posterior=laplace"], ["query_strategy=entropy"]])
    assert made[2:] == [["query_strategy=random", "+reference_added=true"]]
