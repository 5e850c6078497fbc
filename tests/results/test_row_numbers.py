"""Row numbers that a user gives mean the same items whether or not some items of the cache have no label."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

import alfm
import alfm.al_train
from alfm.al_train import main
from alfm.config.parts import from_config
from alfm.errors import UserError
from alfm.results.run_hash import run_hash
from alfm.simulation.cached_task import Simulation
from alfm.strategies.boss import Boss
from alfm.strategies.epig import Epig
from alfm.strategies.index_file import IndexFile

N = 200


@pytest.fixture
def make_cache(tmp_path, digits_arrays):
    x, y, test_x, test_y = digits_arrays

    def make(name: str, order=None, unlabelled=(), ids=True, labels=None, split="train") -> Path:
        """200 digits in an `order`, some of them without a label; a digit's id is its number before ordering."""
        order = np.arange(N) if order is None else np.asarray(order)
        own = np.array((y if labels is None else labels)[:N])
        own[list(unlabelled)] = -1
        path = tmp_path / "digits" / f"{name}.h5"
        path.parent.mkdir(exist_ok=True)
        with h5py.File(path, "w") as file:
            file[f"{split}/features"], file[f"{split}/labels"] = x[:N][order], own[order]
            if ids:
                file[f"{split}/ids"] = [f"é{i}" for i in order]
            file["test/features"], file["test/labels"] = test_x[:60], test_y[:60]
        return path

    return make


def train(cache: Path, *words: str, seeds: str = "[1,2,3]") -> int:
    few = ["query_strategy=random", "iterations.n=2", "budget.init=12", "budget.per_class=false", "budget.step=9"]
    return main([f"cache={cache}", *few, f"seeds={seeds}", "device=cpu", *words])


def runs() -> list[Path]:
    """Run folders, the oldest first."""
    return sorted(
        (file.parent for file in Path(os.environ["LOG_DIR"]).rglob("rounds.csv")), key=lambda f: f.stat().st_ctime_ns
    )


def first_items(folder: Path, cache: Path, n: int = 12) -> dict[str, list[str]]:
    """The ids of what each seed began with."""
    with np.load(folder / "picks.npz") as picks, h5py.File(cache) as file:
        ids = file["train/ids"].asstr()[:]
        return {seed: ids[picks[seed][:n]].tolist() for seed in picks}


def behaviour(folder: Path) -> dict | None:
    return yaml.safe_load((folder / "config.yaml").read_text())["run"].get("behaviour")


@pytest.mark.parametrize("unlabelled", [(), range(0, N, 2), range(150, N)])
def test_a_start_is_replayed_on_its_own_cache(make_cache, unlabelled):
    cache = make_cache("a", unlabelled=unlabelled)
    assert train(cache) == 0
    (source,) = runs()
    assert train(cache, "init_strategy=index_file", f"init_strategy.path={source}/picks.npz") == 0
    again = runs()[1]
    assert first_items(again, cache) == first_items(source, cache)
    assert behaviour(again) == ({"replayed_start": 1} if len(unlabelled) else None)
    assert behaviour(source) is None


def test_a_run_without_row_numbers_to_explain_keeps_its_hash(make_cache):
    cache = make_cache("a")
    np.savetxt(cache.with_suffix(".txt"), np.arange(30), "%d")
    for words in (
        ["init_strategy=index_file", f"init_strategy.path={cache.with_suffix('.txt')}"],
        ["query_strategy=log_det"],
    ):
        assert train(cache, *words, seeds="[1]") == 0
        config = yaml.safe_load((runs()[-1] / "config.yaml").read_text())
        run = config.pop("run")
        for group in ("init_strategy", "query_strategy"):
            config[group].pop("rows", None)  # as it was
        assert run_hash(config, run["cache_fingerprint"]) == run["hash"]


@pytest.mark.parametrize("form", ["txt", "npy", "npz"])
def test_a_list_says_what_it_counts_where_items_have_no_label(make_cache, form, tmp_path, capsys):
    half, whole, path = make_cache("half", unlabelled=range(0, N, 2)), make_cache("whole"), tmp_path / f"rows.{form}"
    rows = np.array([1, 5, 31, 7, 99])
    if form == "txt":
        np.savetxt(path, rows, "%d")
    elif form == "npy":
        np.save(path, rows)
    else:
        np.savez(path, **{"4": rows})
    start = ["init_strategy=index_file", f"init_strategy.path={path}", "budget.init=4"]
    assert train(half, *start, seeds="[4]") == 1
    said = capsys.readouterr().err
    assert "100 items" in said and "init_strategy.rows=cache or init_strategy.rows=pool" in said and not runs()
    for count, wanted in (("cache", [1, 5, 31, 7]), ("pool", [3, 11, 63, 15])):
        assert train(half, *start, f"init_strategy.rows={count}", seeds="[4]") == 0
        assert first_items(runs()[-1], half, 4) == {"4": [f"é{i}" for i in wanted]}
        assert behaviour(runs()[-1]) is None
    assert train(whole, *start, seeds="[4]") == 0
    assert first_items(runs()[-1], whole, 4) == {"4": ["é1", "é5", "é31", "é7"]}


@pytest.mark.parametrize(
    ("count", "rows", "says"),
    [
        ("cache", [1, 2, 3], "lists row 2, and that item is not in the pool"),
        ("cache", [1, 200], "lists row 200"),
        ("pool", [1, 100], "lists row 100, but the pool has rows 0 to 99"),
        ("pool", [-1, 1], "lists row -1"),
        ("cache", [3, 3], "different"),
    ],
)
def test_rows_that_are_not_in_the_pool_are_refused(make_cache, tmp_path, count, rows, says):
    task = Simulation(make_cache("half", unlabelled=range(0, N, 2)), "cpu")
    np.save(tmp_path / "rows.npy", np.array(rows))
    start = IndexFile(str(tmp_path / "rows.npy"), rows=count)
    with pytest.raises(UserError, match=says):
        alfm.simulate(task, "random", init_strategy=start, seeds=[1], rounds=1)


def replayed(other: Path, here: Path, *words: str) -> int:
    """A run on `other`, and its start on `here`."""
    assert train(other) == 0
    return train(here, "init_strategy=index_file", f"init_strategy.path={runs()[0]}/picks.npz", *words)


@pytest.mark.parametrize("unlabelled", [(), range(0, N, 2)])
def test_a_start_of_another_cache_is_found_by_its_ids(make_cache, unlabelled):
    order = np.random.default_rng(0).permutation(N)
    other, here = make_cache("other", unlabelled=range(0, N, 2)), make_cache("here", order, unlabelled)
    assert replayed(other, here) == 0
    assert first_items(runs()[1], here) == first_items(runs()[0], other)
    assert behaviour(runs()[1]) == {"replayed_start": 1}


def test_a_start_of_a_cache_in_the_same_order_is_what_it_was(make_cache, digits_arrays):
    other, here = make_cache("other"), make_cache("here")
    with h5py.File(here, "a") as file:
        file["train/features"][:] = file["train/features"][:] ** 2  # as another backbone
    assert replayed(other, here) == 0
    assert first_items(runs()[1], here) == first_items(runs()[0], other) and behaviour(runs()[1]) is None


def test_a_start_whose_items_cannot_be_told_is_refused(make_cache, digits_arrays, capsys):
    y = digits_arrays[1]
    order = np.arange(N)[::-1]
    for name, other, here in (
        ("holds no ids", {"ids": False}, {"order": order}),
        ("holds no ids", {}, {"order": order, "ids": False}),
        ("equal ids are not equal items", {}, {"order": order, "labels": (y + 1) % 10}),
        ("is not in the pool", {}, {"unlabelled": range(0, N, 2)}),
    ):
        shutil.rmtree(os.environ["LOG_DIR"], ignore_errors=True)
        paths = make_cache("other", **other), make_cache("here", **here)
        assert replayed(*paths) == 1 and name in capsys.readouterr().err
        assert len(runs()) == 1
    paths = make_cache("other", ids=False), make_cache("here", order, ids=False)
    shutil.rmtree(os.environ["LOG_DIR"])
    assert replayed(*paths) == 1 and "init_strategy.rows=cache" in capsys.readouterr().err
    assert (
        train(
            paths[1],
            "init_strategy=index_file",
            f"init_strategy.path={runs()[0]}/picks.npz",
            "init_strategy.rows=cache",
        )
        == 0
    )
    with np.load(runs()[0] / "picks.npz") as a, np.load(runs()[1] / "picks.npz") as b:
        assert a["1"][:12].tolist() == b["1"][:12].tolist()


@pytest.mark.parametrize("what", ["gone", "changed", "unknown"])
def test_a_start_of_a_cache_that_is_not_there_any_more_is_refused(make_cache, capsys, what):
    other, here = make_cache("other"), make_cache("here", np.arange(N)[::-1])
    assert train(other) == 0
    if what == "gone":
        other.unlink()
    elif what == "changed":
        make_cache("other", np.arange(N)[::-1], labels=np.arange(N) % 7)
    else:
        (runs()[0] / "environment.json").write_text(json.dumps({"sessions": []}))
    assert train(here, "init_strategy=index_file", f"init_strategy.path={runs()[0]}/picks.npz") == 1
    assert "that run's cache cannot be read" in capsys.readouterr().err


def test_a_start_of_another_split_of_the_same_cache_is_refused(make_cache, capsys):
    cache = make_cache("a")
    assert replayed(cache, cache, "splits.pool=test", "splits.test=train") == 1
    assert "no ids" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["epig", "log_det", "graph_cut", "facility_location"])
def test_rows_that_a_strategy_looks_at_are_turned_into_the_pools(make_cache, name, capsys):
    option = "targets" if name == "epig" else "query_rows"
    half, whole = make_cache("half", unlabelled=range(0, N, 2)), make_cache("whole")
    words = [f"query_strategy={name}", f"query_strategy.{option}=[1,31,99]"]
    assert train(half, *words) == 1
    assert "query_strategy.rows=cache or query_strategy.rows=pool" in capsys.readouterr().err and not runs()
    assert train(half, *words, "query_strategy.rows=cache", seeds="[1]") == 0
    assert train(whole, *words, seeds="[1]") == 0
    numbers = Simulation(half, "cpu").numbers
    for count, wanted in (("cache", [0, 15, 49]), ("pool", [1, 31, 99])):
        strategy = from_config("query_strategy", name, **{option: [1, 31, 99], "rows": count}).in_pool(numbers)
        assert getattr(strategy, option) == wanted and getattr(strategy.in_pool(numbers), option) == wanted
    for rows, says in (([2], "lists row 2, and that item is not"), ([200], "lists row 200")):
        with pytest.raises(UserError, match=f"query_strategy.{option} {says}"):
            from_config("query_strategy", name, **{option: rows, "rows": "cache"}).in_pool(numbers)


def test_an_oracle_that_asks_on_parts_of_the_pool_takes_no_row_numbers():
    assert Boss(strategies=[Epig()]).refits
    with pytest.raises(UserError, match="row numbers mean nothing"):
        Boss(strategies=[Epig(targets=[3])])
