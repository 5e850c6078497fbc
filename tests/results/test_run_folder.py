from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import alfm.results.run_folder as module
import alfm.results.run_hash as hashing
from alfm.errors import UserError
from alfm.results.environment import environment_of
from alfm.results.load import load_runs
from alfm.results.rounds_file import LATER, columns
from alfm.results.run_folder import RunFolder, read_picks
from alfm.results.run_hash import run_hash

CONFIG = {
    "seeds": [1, 10],
    "budget": {"init": 2, "step": 2},
    "query_strategy": {"name": "margins"},
    "device": "cpu",
}


def open_run(log_dir: Path, fingerprint: str = "cache-a", **changes) -> RunFolder:
    options = {name: changes.pop(name) for name in ("force", "environment", "behaviour") if name in changes}
    names = {
        "dataset": "digits",
        "model": "pixels",
        "query_strategy": changes.pop("strategy", "margins"),
        "init_strategy": "random",
        "classifier": "logistic",
    }
    return RunFolder.open(log_dir, **names, config={**CONFIG, **changes}, cache_fingerprint=fingerprint, **options)


def row(seed: int, round_: int, num_labeled: int) -> dict[str, float | int]:
    values = dict.fromkeys(columns(), 0.1 + round_ / 3)
    return {
        **values,
        "seed": seed,
        "round": round_,
        "num_labeled": num_labeled,
        "macro_auroc": float("nan"),
        "num_replicates": 2,
        "num_filled": 0,
        "peak_memory_bytes": 12345,
    }


def picks_of(seed: int, round_: int) -> np.ndarray:
    return np.array([100 * seed + 2 * round_ + 1, 100 * seed + 2 * round_])


def store(folder: RunFolder, round_: int, seeds=(1, 10)) -> None:
    rows = [row(seed, round_, 2 * round_ + 2) for seed in seeds]
    folder.append(rows, {seed: picks_of(seed, round_) for seed in seeds})


def state(folder: RunFolder) -> str:
    return repr([(seed, folder.progress(seed)) for seed in folder.seeds])


def test_layout_and_reading_back(tmp_path: Path) -> None:
    with open_run(tmp_path, environment={"device": "cpu"}) as folder:
        store(folder, 0)
        store(folder, 1)
        folder.finish([1], "all rounds done")
        path, before = folder.path, state(folder)
    assert path.parent == tmp_path / "digits" / "pixels"
    assert path.name.startswith("margins-")
    assert (path / "rounds.csv").read_text().splitlines()[0] == (
        "seed,round,num_labeled,accuracy,balanced_accuracy,macro_f1,macro_auroc,nll,ece,"
        "fit_seconds,query_seconds,eval_seconds,num_replicates,num_filled,peak_memory_bytes,"
        "num_abstained,num_classes,num_validation"
    )
    with np.load(path / "picks.npz", allow_pickle=False) as picks:
        assert set(picks) == {"1", "10"}
        assert picks["10"].dtype == np.int64
        assert picks["10"].tolist() == [1001, 1000, 1003, 1002]
    stored = yaml.safe_load((path / "config.yaml").read_text())
    assert stored["budget"] == CONFIG["budget"]
    assert stored["run"]["classifier"] == "logistic"
    assert json.loads((path / "environment.json").read_text()) == {"sessions": [{"device": "cpu"}]}
    with open_run(tmp_path) as again:
        assert again.path == path
        assert state(again) == before
        assert again.completed_seeds() == {1: "all rounds done"}
        picks, rows = again.progress(7)
        assert (picks.dtype, len(picks), rows) == (np.int64, 0, [])


def test_hash_covers_what_decides_the_picks() -> None:
    base = run_hash(CONFIG, "a")
    for same in (
        {"seeds": [3]},
        {"device": "cuda"},
        {"memory": "host"},
        {"cache": "x.h5"},
        {"paths": {"dataset_dir": "y"}},
    ):
        assert run_hash({**CONFIG, **same}, "a") == base
    for other in ({"budget": {"init": 2, "step": 3}}, {"classifier": "dropout"}):
        assert run_hash({**CONFIG, **other}, "a") != base
    assert run_hash(CONFIG, "b") != base
    assert run_hash(dict(reversed(CONFIG.items())), "a") == base
    with_path = {**CONFIG, "stopping": {"file": "p", "window": 3}}
    without = {**CONFIG, "stopping": {"window": 3}}
    assert run_hash(with_path, "a", ("stopping.file", "nothing.here")) == run_hash(without, "a", ())


def test_a_run_that_no_mend_changes_has_the_hash_of_before(monkeypatch) -> None:
    before = "b3464dcb9b90877ebdaf98b78300c26dde30f735e5ecc4abd9ca74d8924c2d9f"  # of the version without `behaviour`
    assert run_hash(CONFIG, "a") == run_hash(CONFIG, "a", behaviour={}) == before
    monkeypatch.setattr(hashing, "LATER_OPTIONS", {"init_strategy.rows": None, "budget.more": 0})
    assert run_hash({**CONFIG, "init_strategy": {"rows": None}}, "a") == run_hash({**CONFIG, "init_strategy": {}}, "a")
    hashes = [run_hash(CONFIG, "a", behaviour=one) for one in ({"views": 1}, {"views": 2}, {"rows": 1})]
    hashes += [run_hash({**CONFIG, "init_strategy": {"rows": rows}}, "a") for rows in ("pool", "cache", 0)]
    assert len({before, *hashes}) == 7


def test_a_behaviour_has_a_folder_of_its_own_and_is_written_down(tmp_path: Path) -> None:
    found = {}
    for behaviour in ({}, {"views": 1}):
        with open_run(tmp_path, behaviour=behaviour) as folder:
            store(folder, 0)
            found[folder.path] = yaml.safe_load((folder.path / "config.yaml").read_text())["run"].get("behaviour")
    assert list(found.values()) == [None, {"views": 1}]


def test_adding_a_seed_keeps_the_others(tmp_path: Path) -> None:
    with open_run(tmp_path) as folder:
        store(folder, 0)
        folder.finish([1, 10], "done")
    with open_run(tmp_path, seeds=[10, 7], environment={"n": 2}) as folder:
        assert set(folder.completed_seeds()) == {1, 10}
        store(folder, 0, seeds=(7,))
        folder.finish([7], "done")
    with open_run(tmp_path) as folder:
        assert folder.seeds == [1, 10, 7]
        assert yaml.safe_load((folder.path / "config.yaml").read_text())["seeds"] == [1, 10, 7]
    assert load_runs(tmp_path)["seed"].tolist() == [1, 10, 7]


def tampered(path: Path, file: str) -> None:
    """Two picks of seed 1 change places, or its accuracy rises; everything still fits together."""
    if file == "picks.npz":
        with np.load(path / file) as stored:
            picks = dict(stored)
        picks["1"][[0, 2]] = picks["1"][[2, 0]]
        np.savez(path / file, **picks)
    else:
        text = (path / file).read_text()
        value = text.splitlines()[1].split(",")[3]
        (path / file).write_text(text.replace(value, value.replace("1", "2"), 1))


@pytest.mark.parametrize("file", ["picks.npz", "rounds.csv"])
def test_a_finished_seed_that_was_changed_is_refused(tmp_path: Path, file: str) -> None:
    with open_run(tmp_path) as folder:
        store(folder, 0)
        store(folder, 1)
        folder.finish([1], "done")
        path = folder.path
    tampered(path, file)
    for read in (lambda: open_run(tmp_path), lambda: load_runs(tmp_path), lambda: read_picks(path)):
        with pytest.raises(UserError, match="is not what it was when seed 1 was finished.*force=true"):
            read()
    with open_run(tmp_path, force=True) as folder:
        assert folder.seeds == []


def test_a_seed_that_goes_on_beside_a_finished_one_is_no_change(tmp_path: Path) -> None:
    with open_run(tmp_path) as folder:
        store(folder, 0)
        folder.finish([1], "done")
        store(folder, 1, seeds=(10,))
        path = folder.path
    table = (path / "rounds.csv").read_text()
    (path / "rounds.csv").write_text(table.replace("\n", "\r\n"), newline="")  # as a spreadsheet writes it
    with open_run(tmp_path) as folder:
        store(folder, 2, seeds=(10,))
        folder.finish([10], "done")
    assert load_runs(tmp_path)["seed"].value_counts().to_dict() == {10: 3, 1: 1}


def test_a_folder_of_before_has_no_checksums_and_opens(tmp_path: Path) -> None:
    with open_run(tmp_path) as folder:
        store(folder, 0)
        folder.finish([1], "done")
        path = folder.path
    (path / "progress.json").write_text(json.dumps({"finished": {"1": "done"}}))
    tampered(path, "rounds.csv")
    with open_run(tmp_path) as folder:
        folder.finish([10], "done")
    progress = json.loads((path / "progress.json").read_text())
    assert set(progress["finished"]) == {"1", "10"} and set(progress["checksums"]) == {"10"}
    assert set(load_runs(tmp_path)["seed"]) == {1, 10}


def other_columns(path: Path, less: str, more: str) -> None:
    """As a version would have written the folder that did not know `less` yet and knew `more`."""
    table = [line.split(",") for line in (path / "rounds.csv").read_text().splitlines()]
    at = table[0].index(less)
    for i, line in enumerate(table):
        line[at] = "0.25" if i else more
    (path / "rounds.csv").write_text("".join(",".join(line) + "\n" for line in table))
    (path / "progress.json").write_text(json.dumps({"finished": {"1": "done"}}))


def test_a_folder_with_other_metrics_opens_goes_on_and_keeps_them(tmp_path: Path) -> None:
    with open_run(tmp_path) as folder:
        store(folder, 0)
        folder.finish([1], "done")
        path = folder.path
    other_columns(path, less="ece", more="brier")
    before = (path / "rounds.csv").read_text().splitlines()
    df = load_runs(tmp_path, finished_only=False)
    assert df["brier"].tolist() == [0.25, 0.25] and df["ece"].isna().all() and df["ece"].dtype == float
    for round_ in (1, 2):  # the second time it has both columns
        with open_run(tmp_path) as folder:
            store(folder, round_, seeds=(10,))
            folder.finish([1] if round_ == 1 else [], "done")
    header, first, *_, last = (path / "rounds.csv").read_text().splitlines()
    assert header == before[0].replace(",fit_seconds", ",ece,fit_seconds")
    measured = first.split(",")
    assert measured.pop(header.split(",").index("ece")) == "" and measured == before[1].split(",")
    assert last.split(",")[header.split(",").index("brier")] == ""
    assert "brier" in folder.progress(1)[1][0] and "ece" not in folder.progress(1)[1][0]
    df = load_runs(tmp_path, finished_only=False)  # with the checksum of a seed that has measured something else
    assert df["ece"].notna().tolist() == [False, False, True, True]
    assert df["brier"].notna().tolist() == [True, True, False, False]


def test_a_table_from_before_the_later_columns_keeps_its_checksums_and_goes_on(tmp_path: Path) -> None:
    old = [name for name in columns() if name not in LATER]

    def unlike_now(round_: int, seed: int) -> dict[str, float | int]:
        return {name: value for name, value in row(seed, round_, 2 * round_ + 2).items() if name in old}

    with open_run(tmp_path) as folder:
        folder.append([unlike_now(0, 1), unlike_now(0, 10)], {seed: picks_of(seed, 0) for seed in (1, 10)})
        folder.finish([1], "done")
        path = folder.path
    table = [line.split(",") for line in (path / "rounds.csv").read_text().splitlines()]
    (path / "rounds.csv").write_text("".join(",".join(line[: len(old)]) + "\n" for line in table))
    assert load_runs(tmp_path, finished_only=False)[list(LATER)].isna().all(axis=None)
    with open_run(tmp_path) as folder:
        folder.append([row(10, 1, 4) | dict.fromkeys(LATER, 3)], {10: picks_of(10, 1)})
    header, first, *_, last = (path / "rounds.csv").read_text().splitlines()
    assert header.split(",") == [*old, *LATER] and first.endswith(",,,") and last.endswith(",3,3,3")
    df = load_runs(tmp_path, finished_only=False)
    assert df["num_classes"].isna().tolist() == [True, True, False] and df["num_classes"].iloc[-1] == 3


def test_a_table_without_its_place_or_cost_is_damaged(tmp_path: Path) -> None:
    with open_run(tmp_path) as folder:
        store(folder, 0)
        path = folder.path
    table = (path / "rounds.csv").read_text()
    for wrong in (table.replace("round,", "turn,", 1), table.replace("ece,", "nll,", 1), "", "seed\n1\n"):
        (path / "rounds.csv").write_text(wrong)
        with pytest.raises(UserError, match="is damaged: rounds.csv cannot be read"):
            open_run(tmp_path)


def test_looking_at_a_finished_run_writes_nothing(tmp_path: Path) -> None:
    with open_run(tmp_path) as folder:
        store(folder, 0)
        folder.finish([1, 10], "done")
    before = {file: file.stat().st_mtime_ns for file in folder.path.iterdir() if file.name != ".lock"}
    with open_run(tmp_path, environment={"device": "other"}, seeds=[1]):
        pass
    assert {file: file.stat().st_mtime_ns for file in folder.path.iterdir() if file.name != ".lock"} == before


def test_killed_at_every_instant_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run(tmp_path / "whole") as folder:
        for round_ in range(3):
            store(folder, round_)
        folder.finish([1, 10], "done")
        whole = state(folder)
    replace = os.replace
    for survive in range(1 + 3 * 2 + 1):  # config, then picks and rounds of each round, then the mark
        calls = iter(range(100))

        def killed(source, target, calls=calls, survive=survive):
            if next(calls) >= survive:
                raise KeyboardInterrupt
            replace(source, target)

        monkeypatch.setattr(module.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt), open_run(tmp_path / str(survive)) as folder:
            for round_ in range(3):
                store(folder, round_)
            folder.finish([1, 10], "done")
        monkeypatch.setattr(module.os, "replace", replace)
        with open_run(tmp_path / str(survive)) as folder:
            assert folder.completed_seeds() == {}  # never taken for done
            done = [len(folder.progress(seed)[1]) for seed in (1, 10)]
            assert done == [max(0, (survive - 1) // 2)] * 2
            for round_ in range(done[0], 3):
                store(folder, round_)
            folder.finish([1, 10], "done")
            assert state(folder) == whole


def test_force_starts_over_and_leaves_foreign_files(tmp_path: Path) -> None:
    with open_run(tmp_path) as folder:
        store(folder, 0)
        folder.finish([1], "done")
    (folder.path / "notes.txt").write_text("mine")
    (folder.path / "rounds.csv").write_text("broken")
    with open_run(tmp_path, force=True) as folder:
        assert folder.seeds == []
        assert folder.completed_seeds() == {}
    assert (folder.path / "notes.txt").read_text() == "mine"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
        "from test_run_folder import open_run, store\n"
        "folder = open_run(Path(sys.argv[1])); store(folder, 0); print('ready', flush=True); time.sleep(60)"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        assert worker.stdout.readline() == b"ready\n"
        with pytest.raises(UserError, match=f"another process .pid {worker.pid} on"):
            open_run(tmp_path)
        assert len(load_runs(tmp_path, finished_only=False)) == 2  # looking is allowed
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    with open_run(tmp_path) as folder:  # a kill leaves no lock behind
        assert len(folder.progress(1)[1]) == 1


def test_rows_that_do_not_follow_are_refused(tmp_path: Path) -> None:
    with open_run(tmp_path) as folder:
        store(folder, 0, seeds=(1,))
        before = state(folder)
        for bad_row, bad_picks, fault in (
            (row(1, 2, 4), [8, 9], "round 2 follows round 0"),
            (row(1, 1, 5), [8, 9], "num_labeled 5, but 4 picks"),
            (row(1, 1, 4), [8, 101], "picked twice"),
            (row(1, 1, 2), [], "no new label"),
            (row(1, 1, 4), [8, -1], "negative"),
            ({"seed": 1}, [8, 9], "exactly seed, round"),
        ):
            with pytest.raises(ValueError, match=fault):
                folder.append([bad_row], {1: np.array(bad_picks, dtype=np.int64)})
        with pytest.raises(ValueError, match="picks of seeds"):
            folder.append([row(1, 1, 4)], {2: np.array([8, 9])})
        with pytest.raises(ValueError, match="no rows"):
            folder.finish([5], "done")
        assert state(folder) == before
        folder.finish([1], "done")
        with pytest.raises(ValueError, match="is finished"):
            folder.append([row(1, 1, 4)], {1: np.array([8, 9])})


def damage(path: Path, how: str) -> None:
    rounds = (path / "rounds.csv").read_text()
    if how == "header":
        (path / "rounds.csv").write_text(rounds.replace("accuracy", "precision", 1))
    elif how == "cut line":
        (path / "rounds.csv").write_text(rounds[:-30])
    elif how == "missing round":
        lines = rounds.splitlines(keepends=True)
        (path / "rounds.csv").write_text("".join(lines[:2] + lines[3:]))
    elif how == "picks gone":
        (path / "picks.npz").unlink()
    elif how == "picks cut":
        (path / "picks.npz").write_bytes((path / "picks.npz").read_bytes()[:-40])
    elif how == "picks short":
        np.savez(path / "picks.npz", **{"1": picks_of(1, 0), "10": picks_of(10, 0)})
    elif how == "picks pickled":
        np.savez(path / "picks.npz", **{"1": np.array([{}], dtype=object), "10": picks_of(10, 0)})
    elif how == "picks float":
        np.savez(path / "picks.npz", **{"1": np.arange(6.0), "10": np.arange(6.0)})
    elif how == "config gone":
        (path / "config.yaml").unlink()
    elif how == "config odd":
        (path / "config.yaml").write_text("- 1\n")
    elif how == "progress odd":
        (path / "progress.json").write_text("[]")
    elif how == "progress of others":
        (path / "progress.json").write_text('{"finished": {"99": "done"}}')


@pytest.mark.parametrize(
    "how",
    [
        "header",
        "cut line",
        "missing round",
        "picks gone",
        "picks cut",
        "picks short",
        "picks pickled",
        "picks float",
    ]
    + ["config gone", "config odd", "progress odd", "progress of others"],
)
def test_damage_is_named(tmp_path: Path, how: str) -> None:
    with open_run(tmp_path) as folder:
        for round_ in range(3):
            store(folder, round_)
        folder.finish([1, 10], "done")
    damage(folder.path, how)
    for attempt in (lambda: open_run(tmp_path), lambda: load_runs(tmp_path)):
        with pytest.raises(UserError, match=f"{folder.path.name} is damaged: .*force=true"):
            attempt()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "digits").write_text("a file in the way")
    with pytest.raises(UserError, match="cannot make the run folder"):
        open_run(tmp_path)


def test_load_runs(tmp_path: Path) -> None:
    with open_run(tmp_path) as first:
        store(first, 0)
        store(first, 1)
        first.finish([10], "pool exhausted")
    with open_run(tmp_path, strategy="badge", budget={"init": 2, "step": 5}) as second:
        rows = [row(10, 0, 2)]
        second.append(rows, {10: picks_of(10, 0)[::-1]})  # the same initial set in another order
        second.finish([10], "done")
    df = load_runs([tmp_path, first.path])  # named twice, read once
    assert len(df) == 3
    assert df["initial"].nunique() == 1
    assert set(df["query_strategy"]) == {"margins", "badge"}
    of_first = df[df["run"] == first.path.name]
    assert of_first["seed"].tolist() == [10, 10]
    assert of_first["budget"].unique().tolist() == ["2 to 4 labels in 2 rounds"]
    assert of_first["accuracy"].tolist() == [0.1, 0.1 + 1 / 3]
    planned = {"budget": {"init": 1, "step": 2, "per_class": True}, "iterations": {"n": 20, "exp": True}}
    with open_run(tmp_path / "planned", **planned) as folder:
        store(folder, 0)
        folder.finish([1], "stopped early")
    assert set(load_runs(folder.path)["budget"]) == {"1 + 2 labels per class a round, doubling, 20 rounds"}
    everything = load_runs(first.path.parent, finished_only=False)
    assert everything.groupby("seed")["finished"].all().to_dict() == {1: False, 10: True}
    assert everything.groupby("seed")["initial"].first().nunique() == 2
    with open_run(tmp_path / "elsewhere", fingerprint="cache-b") as third:
        store(third, 0)
        third.finish([10], "done")
    assert load_runs(third.path)["initial"].iloc[0] != df["initial"].iloc[0]  # the same rows of another cache


def test_load_runs_without_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_runs(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run"):
        load_runs(tmp_path)
    with open_run(tmp_path) as folder:
        store(folder, 0)
    with pytest.raises(UserError, match="no finished run"):
        load_runs(tmp_path)


def test_environment() -> None:
    entry = environment_of("cpu", "a/b.h5", "f" * 8, [1, 2])
    assert entry["versions"]["torch"]
    assert entry["threads"] >= 1
    assert (entry["cache"], entry["cache_fingerprint"], entry["seeds"]) == ("a/b.h5", "f" * 8, [1, 2])
    json.dumps(entry)
    checkout = (Path(__file__).parents[2] / ".git").exists()
    assert (entry["git_commit"] is not None) == checkout
