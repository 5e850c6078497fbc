"""Pools with rare classes and copies: what they hold, and that a run on one is found, resumed and replayed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

import alfm
from alfm.al_train import main
from alfm.errors import UserError
from alfm.report.__main__ import main as report
from alfm.results.load import load_runs
from alfm.results.pool_words import pool_words
from alfm.results.run_hash import run_hash
from alfm.simulation.pools import PoolOptions, made_pool
from alfm.stopping.__main__ import main as stopping

LONG_TAIL = {"imbalance": "exponential", "ratio": 10}
WORDS = ["pool.imbalance=exponential", "pool.ratio=10"]


def labels_of(*counts: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


def sizes(labels: np.ndarray, **options) -> list[int]:
    made = made_pool(np.arange(len(labels)), labels, len(labels), PoolOptions(**options))
    return sorted(np.bincount(labels[made.rows]).tolist(), reverse=True)


def test_profiles_are_the_published_ones():
    even = labels_of(*[1000] * 5)
    assert sizes(even, imbalance="exponential", ratio=100) == [1000, 316, 100, 32, 10]
    assert sizes(even, imbalance="power_law", exponent=1) == [1000, 500, 333, 250, 200]
    by_ratio = sizes(even, imbalance="power_law", ratio=100)
    assert by_ratio == [1000, 138, 43, 19, 10]  # exponent ln 100 / ln 5
    assert sizes(even, imbalance="power_law", exponent=np.log(100) / np.log(5)) == by_ratio
    assert sizes(even, imbalance="exponential", ratio=1) == sizes(even) == [1000] * 5


def test_the_pool_is_the_largest_with_its_profile_and_no_class_vanishes():
    uneven = labels_of(40, 90, 300, 35, 200)
    for seed in range(4):
        made = made_pool(np.arange(665), uneven, 665, PoolOptions(imbalance="exponential", ratio=16, seed=seed))
        counts, whole = np.bincount(uneven[made.rows]), np.bincount(uneven)
        shares = np.sort(counts)[::-1] / made.most
        assert np.allclose(shares, 16 ** (-np.arange(5) / 4), atol=1 / made.most) and (counts <= whole).all()
        assert (counts == whole).any()  # some class has nothing left to give
    made = made_pool(np.arange(665), uneven, 665, PoolOptions(imbalance="exponential", ratio=10**6))
    assert made.least == 1 and made.lone >= 1 and len(np.unique(uneven[made.rows])) == 5


def test_seeds_draw_which_classes_are_rare_and_a_weaker_imbalance_keeps_more_of_the_same():
    even, rows = labels_of(*[200] * 6), np.arange(1200)
    made = {
        (seed, ratio): made_pool(rows, even, 1200, PoolOptions(imbalance="exponential", ratio=ratio, seed=seed)).rows
        for seed in (0, 1) for ratio in (5, 50)
    }  # fmt: skip
    rarest = [int(np.bincount(even[made[seed, 50]]).argmin()) for seed in (0, 1)]
    assert rarest[0] != rarest[1]
    assert set(made[0, 50]) < set(made[0, 5])
    again = made_pool(rows, even, 1200, PoolOptions(imbalance="exponential", ratio=5)).rows
    assert np.array_equal(again, made[0, 5])


def test_copies_have_numbers_of_their_own():
    labels, rows = labels_of(6, 6), np.arange(12) + 3
    made = made_pool(rows, labels, 20, PoolOptions(duplicates=2.25))
    assert made.copies == 27 and len(np.unique(made.numbers)) == len(made.numbers) == 39
    assert made.numbers[:36].tolist() == [*rows, *(rows + 20), *(rows + 40)]
    assert set(made.rows[36:]) < set(rows) and (made.numbers[36:] // 20 == 3).all()
    assert made.facts["items"] == 39 and made.left_out == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"imbalance": "exponential"}, "add pool.ratio="),
        ({"imbalance": "power_law"}, "or pool.exponent="),
        ({"imbalance": "exponential", "exponent": 1}, "is a power law's"),
        ({"imbalance": "power_law", "exponent": 1, "ratio": 5}, "leave one out"),
        ({"ratio": 5}, "add pool.imbalance=exponential or pool.imbalance=power_law"),
        ({"exponent": 1}, "add pool.imbalance=power_law"),
        ({"seed": 3}, "draws nothing"),
        ({"imbalance": "exponential", "ratio": 0.5}, "ratio=0.5: a number between 1 and 1000000000"),
        ({"imbalance": "linear", "ratio": 2}, "exponential or power_law"),
        ({"duplicates": -0.1}, "a number between 0 and 100"),
        ({"imbalance": "power_law", "exponent": float("nan")}, "a number between 0 and 100"),
    ],
)
def test_contradictions_are_refused_in_python_and_on_the_command_line(options, words, digits_cache, capsys):
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        alfm.Simulation(digits_cache, device="cpu", pool=options)
    assert main([f"cache={digits_cache}", *(f"pool.{name}={value}" for name, value in options.items())]) == 1
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


def test_an_option_that_does_not_exist_is_refused(digits_cache):
    with pytest.raises(UserError, match=r"pool.ration: .*did you mean ratio"):
        alfm.Simulation(digits_cache, device="cpu", pool={"ration": 3})
    task = alfm.Simulation(digits_cache, device="cpu")
    with pytest.raises(UserError, match="give them to Simulation"):
        alfm.simulate(task, pool=LONG_TAIL)


def test_left_out_items_are_in_no_feature_and_copies_are(digits_cache):
    task = alfm.Simulation(digits_cache, device="cpu", pool=LONG_TAIL | {"duplicates": 0.5})
    with h5py.File(digits_cache) as file:
        labels, features = file["train/labels"][:], file["train/features"][:]
    assert task.pool.N == len(task.made.rows) < len(labels)
    assert np.array_equal(task.labels.numpy(), labels[task.made.rows])
    assert np.array_equal(task.pool.features.numpy(), features[task.made.rows])
    assert np.array_equal(task.numbers.of_cache(task.cache_rows, "x"), np.arange(task.pool.N))
    in_file = alfm.Simulation(digits_cache, "cpu", "file", pool=LONG_TAIL | {"duplicates": 0.5})
    frames = [alfm.simulate(one, "coreset", seeds=[1], rounds=3) for one in (task, in_file)]
    assert frames[0]["picked"].tolist() == frames[1]["picked"].tolist()


def run(cache: Path, *words: str, seeds: str = "[1,2]", n: int = 3) -> Path:
    """The newest run folder after al_train."""
    few = [f"cache={cache}", "query_strategy=margins", f"iterations.n={n}", f"seeds={seeds}", "device=cpu"]
    assert main([*few, *words]) == 0
    return max((f.parent for f in Path(os.environ["LOG_DIR"]).rglob("rounds.csv")), key=lambda f: f.stat().st_mtime_ns)


def picks(folder: Path) -> dict[str, list[int]]:
    with np.load(folder / "picks.npz") as stored:
        return {seed: stored[seed].tolist() for seed in stored}


def test_a_run_round_trips_is_resumed_replayed_and_watched(digits_cache, tmp_path, capsys):
    words = [*WORDS, "pool.duplicates=1", "budget.step=2"]
    folder = run(digits_cache, *words)
    said = capsys.readouterr().out
    task = alfm.Simulation(digits_cache, device="cpu", pool=LONG_TAIL | {"duplicates": 1})
    least, most, out = task.made.least, task.made.most, task.made.left_out
    told = f"exponential imbalance 10:1 ({least} to {most} items per class, {out} of 1257 left out)"
    assert f"Pool: {told}, {task.made.copies} copies" in said
    whole = picks(folder)
    assert set(np.concatenate(list(whole.values()))) <= set(task.cache_rows)
    assert max(whole["1"]) >= 1257  # a copy was picked
    assert yaml.safe_load((folder / "config.yaml").read_text())["run"]["pool"] == task.made.facts
    frame = alfm.simulate(task, "margins", seeds=[1, 2], rounds=3, step=2)
    assert frame.sort_values(["seed", "round"])["picked"].tolist() == load_runs(folder)["picked"].tolist()
    # interrupted after a round
    progress = folder / "progress.json"
    rows = (folder / "rounds.csv").read_text().splitlines(keepends=True)
    (folder / "rounds.csv").write_text("".join(rows[:3]))
    progress.write_text(json.dumps({"finished": {}}))
    assert run(digits_cache, *words) == folder and picks(folder) == whole
    # another strategy from the same start, in the same pool
    start = ["init_strategy=index_file", f"init_strategy.path={folder}/picks.npz", "query_strategy=coreset"]
    other = run(digits_cache, *words, *start)
    assert other != folder and all(own[:10] == whole[seed][:10] for seed, own in picks(other).items())
    # stopping rules on the finished run
    assert stopping([str(folder), "stopping=kappa_pairs", "device=cpu"]) == 0
    capsys.readouterr()
    assert report([str(folder), "--format", "markdown", "--out", str(tmp_path)]) == 0
    assert told in capsys.readouterr().out.replace(",512", "512")


def test_a_start_from_a_pool_that_holds_other_items_names_the_first_that_is_absent(digits_cache, capsys):
    folder = run(digits_cache, "pool.duplicates=1", seeds="[1]", n=6)
    start = ["init_strategy=index_file", f"init_strategy.path={folder}/picks.npz", "budget.init=5"]
    capsys.readouterr()
    assert main([f"cache={digits_cache}", "seeds=[1]", "iterations.n=2", *start]) == 1
    assert "is not in the pool" in capsys.readouterr().err
    few = run(digits_cache, *WORDS, seeds="[1]", n=2)  # its items are in every pool
    start[1] = f"init_strategy.path={few}/picks.npz"
    there = run(digits_cache, *start, "budget.init=2", seeds="[1]", n=2)
    assert picks(there)["1"][:20] == picks(few)["1"]


def test_pool_seeds_are_draws_of_one_design(digits_cache):
    assert main([
        "-m", f"cache={digits_cache}", "query_strategy=random", "iterations.n=2", "seeds=[1]", "device=cpu", *WORDS,
        "pool.seed=0,1,2",
    ]) == 0  # fmt: skip
    df = load_runs(os.environ["LOG_DIR"])
    assert sorted(df["draw"].unique()) == ["pool.seed=0", "pool.seed=1", "pool.seed=2"]
    assert df["conditions"].nunique() == 1 and df["initial"].nunique() == 3 and df["pool"].nunique() > 1


def test_what_a_pool_is_in_words():
    facts = [
        {"items": 50, "left_out": out, "copies": 0, "most": 30, "least": least, "lone": 1}
        for out, least in ((50, 2), (50, 1))
    ]
    options = {"pool": {"imbalance": "power_law", "exponent": 1.5}, "oracle": {"noise": 0.2, "abstain": 0.1}}
    assert pool_words(options, map(json.dumps, facts)) == (
        "power-law imbalance exponent 1.5 (1 to 30 items per class, 50 of 100 left out, one item kept of 1 class that "
        "had none left), 20 % wrong answers, 10 % unanswered"
    )
    assert pool_words({}, [""]) == ""
    assert pool_words({"oracle": {"confusion": "a/b.csv"}}, []) == "answers confused by b.csv"


def test_the_defaults_are_in_no_hash():
    before = {"budget": {"init": 1, "step": 1, "per_class": True}, "iterations": {"n": 3, "exp": False}}
    pool = {"imbalance": None, "ratio": None, "exponent": None, "seed": 0, "duplicates": 0.0}
    oracle = {"noise": 0.0, "confusion": None, "abstain": 0.0}
    budget = before["budget"] | {"unit": None, "schedule": None}
    now = before | {"pool": pool, "oracle": oracle, "budget": budget}
    assert run_hash(now, "a") == run_hash(before, "a")
    assert run_hash(now | {"budget": budget | {"unit": "class"}}, "a") == run_hash(before, "a")
    hashes = {run_hash(now | {"pool": pool | LONG_TAIL | {"seed": seed}}, "a") for seed in (0, 1)}
    hashes |= {run_hash(now | {"oracle": oracle | {"noise": 0.1}}, "a"), run_hash(before, "a")}
    hashes |= {run_hash(now | {"budget": budget | {"unit": unit}}, "a") for unit in ("labels", "share")}
    hashes |= {run_hash(now | {"budget": budget | {"schedule": [1, 2]}}, "a")}
    assert len(hashes) == 7
