from __future__ import annotations

import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest
from sklearn.datasets import load_digits

import alfm
from alfm.al_train import main
from alfm.config.typed_again import cache_of, typed_again
from alfm.results.load import load_runs
from alfm.results.run_folder import read_config, read_picks
from alfm.results.setting import settings_of
from alfm.results.statistics import paired_curves

METRICS = ["seed", "round", "num_labeled", "accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "nll", "ece"]
N = 400


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOG_DIR", "logs")


def make_cache(model: str, order: np.ndarray | None = None, without: tuple[int, ...] = (), ids: bool = True) -> Path:
    """400 digits as `model` sees them, in an order; another model has other features of the same items."""
    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32) / 16
    if model != "a":
        x = np.concatenate([x @ np.random.default_rng(5).normal(size=(64, 20)).astype(np.float32), x[:, ::3]], 1)
    rows = np.array([row for row in (np.arange(N) if order is None else order) if row not in without])
    path = Path("features/digits") / f"{model}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["train/features"], file["train/labels"] = x[rows], y[rows]
        file["test/features"], file["test/labels"] = x[N : N + 300], y[N : N + 300]
        if ids:
            file["train/ids"] = np.array([f"train/{row:06d}" for row in rows], dtype=h5py.string_dtype())
    return path


def run(*words: str) -> Path:
    before = set(Path("logs").rglob("rounds.csv"))
    assert main([*words]) == 0
    (made,) = set(Path("logs").rglob("rounds.csv")) - before
    return made.parent


def original(cache: Path, *words: str) -> Path:
    return run(f"cache={cache}", "query_strategy=margins", "iterations.n=3", "seeds=[3,8]", "device=cpu", *words)


def replay(folder: Path, *words: str) -> Path:
    return run("query_strategy=replay", f"query_strategy.path={folder}", "device=cpu", *words)


def measured(folder: Path):
    return load_runs(folder)[METRICS].sort_values(["seed", "round"]).reset_index(drop=True)


@pytest.mark.parametrize(
    "words",
    [
        [],
        [
            "classifier=propagated",
            "warm_start=false",
            "iterations.exp=true",
            "budget.per_class=false",
            "budget.init=25",
        ],
    ],
)
def test_a_replay_reproduces_every_metric(words):
    source = original(make_cache("a"), *words)
    again = replay(source)
    assert measured(again).equals(measured(source))
    for seed, picks in read_picks(source).items():
        assert read_picks(again)[seed].tolist() == picks.tolist()
    (setting,) = settings_of(load_runs("logs"))
    assert set(setting.shared["strategy"]) == {"margins", "margins, replayed"} and not len(setting.own)
    curves = paired_curves(setting.shared, label="strategy")
    assert (curves.of("margins") == curves.of("margins, replayed")).all()


def test_another_head_learns_from_the_same_picks():
    source = original(make_cache("a"))
    other = replay(source, "classifier=dropout", "seeds=[8]", "iterations.n=2")
    assert read_picks(other)[8].tolist() == read_picks(source)[8][:20].tolist() and set(read_picks(other)) == {8}
    frame = load_runs(other)
    assert set(frame["query_strategy"]) == {"margins, picked with a logistic head"}
    assert set(frame["classifier"]) == {"dropout"} and set(frame["init_strategy"]) == {"random"}


def test_a_transfer_works_by_id_though_rows_are_ordered_differently():
    source = original(make_cache("a"))
    order = np.random.default_rng(1).permutation(N)
    target = make_cache("b", order)
    moved = replay(source, f"cache={target}")
    for seed, picks in read_picks(source).items():
        assert order[read_picks(moved)[seed]].tolist() == picks.tolist()
    frame = load_runs(moved)
    assert set(frame["query_strategy"]) == {"margins, picked with a"} and set(frame["model"]) == {"b"}
    assert set(frame["init_strategy"]) == {"replayed"}
    straight = replay(source, f"cache={make_cache('c')}")  # the same features in the first order: the same curves
    left, right = measured(moved), measured(straight)
    np.testing.assert_allclose(left["accuracy"], right["accuracy"], atol=0.01)
    assert set(load_runs(straight)["init_strategy"]) == {"random"}  # as a run would begin there


def test_a_transfer_stands_beside_runs_that_were_made_there():
    cache, target = make_cache("a"), make_cache("b")
    sources = [original(cache), original(cache, "query_strategy=random")]
    for source in sources:
        replay(source, f"cache={target}")
    native = original(target, "query_strategy=random")
    frame = load_runs("logs")
    (setting,) = (one for one in settings_of(frame) if one.names["model"] == "b")
    assert set(setting.shared["strategy"]) == {"random", "random, picked with a", "margins, picked with a"}
    curves = paired_curves(setting.shared, label="strategy")
    assert len(curves.seeds) == 2
    assert (curves.of("random")[:, 0] == curves.of("margins, picked with a")[:, 0]).all()
    assert load_runs(native)["conditions"].iloc[0] == setting.shared["conditions"].iloc[0]


def test_where_a_start_is_replayed_picks_at_random_are_what_others_are_compared_with():
    source = original(make_cache("a"), "query_strategy=random")
    moved = replay(source, f"cache={make_cache('b', np.arange(N)[::-1])}")
    assert set(load_runs(moved)["query_strategy"]) == {"random"}


def test_an_interrupted_replay_goes_on_and_a_finished_one_is_known_wherever_it_lies(capsys):
    source = original(make_cache("a"))
    first = replay(source, "seeds=[3]")
    assert main(["query_strategy=replay", f"query_strategy.path={source.absolute()}/picks.npz", "device=cpu"]) == 0
    assert measured(first).equals(measured(source))
    capsys.readouterr()
    source.rename("moved")
    assert main(["query_strategy=replay", "query_strategy.path=moved", "device=cpu"]) == 0


def test_caches_without_ids_are_the_users_word():
    source = original(make_cache("a", ids=False))
    target = make_cache("b", ids=False)
    moved = replay(source, f"cache={target}", "query_strategy.rows=cache")
    assert read_picks(moved)[3].tolist() == read_picks(source)[3].tolist()


def test_mistakes_are_one_sentence(capsys):
    cache = make_cache("a")
    source = original(cache)
    picked = read_picks(source)[3].tolist()[:1]
    lacking, bare = make_cache("b", without=tuple(picked)), make_cache("c", ids=False)
    Path("nothing").mkdir()
    words = ["query_strategy=replay", f"query_strategy.path={source}"]
    for more, message in (
        ([f"cache={lacking}"], f"train/{picked[0]:06d}, which the pool of"),
        ([f"cache={bare}"], "say so with query_strategy.rows=cache"),
        (["budget.init=3"], "budget.init=: a replay has the budget of the run"),
        (["init_strategy=typiclust"], "a replay has the init_strategy of the run"),
        (["seeds=[3,4]"], "has no finished seed 4 (it has 3, 8): leave seeds= out"),
        (["query_strategy.path=nothing"], "is no run's folder"),
    ):
        capsys.readouterr()
        assert main([*words, *more]) == 1
        err = " ".join(capsys.readouterr().err.split())
        assert message in err, err
    assert main(["query_strategy=replay"]) == 2


def test_nobody_else_replays():
    with pytest.raises(alfm.UserError, match="for python -m alfm.al_train alone"):
        alfm.simulate(make_cache("a"), alfm.strategies.Replay("somewhere"), rounds=2, seeds=[1])


def test_validation_labels_that_a_run_has_paid_for_are_paid_for_again():
    source = original(make_cache("a"), "validation.size=15", "iterations.n=2", "seeds=[3]")
    again = replay(source)
    assert measured(again).equals(measured(source))
    assert read_picks(again)[3].tolist() == read_picks(source)[3].tolist()
    order = np.random.default_rng(1).permutation(N)
    moved = replay(source, f"cache={make_cache('b', order)}")
    assert order[read_picks(moved)[3]].tolist() == read_picks(source)[3].tolist()
    assert load_runs(moved)["num_validation"].tolist() == [15, 15]


def test_a_replay_has_as_many_rounds_as_the_run(capsys):
    listed = f"budget.schedule=[{','.join(['2'] * 22)}]"
    cache = make_cache("a")
    folder = original(cache, "query_strategy=random", "budget.unit=labels", listed, "seeds=[1]", "iterations.n=20")
    assert measured(replay(folder)).equals(measured(folder)) and len(measured(folder)) == 22
    short = original(cache, "query_strategy=random", "iterations.n=2", "seeds=[1]")
    assert main(["query_strategy=replay", f"query_strategy.path={short}", "iterations.n=3"]) == 1
    assert "has 2 rounds; leave it out" in capsys.readouterr().err


def test_what_is_printed_makes_the_same_run(capsys):
    """Of replays, of runs from index sets, and of runs with the choices of another."""
    cache = make_cache("a")
    Path("l.txt").write_text("0 1 2 3 4 5 6 7 8 9 10 11")
    words = ["seeds=[1]", "iterations.n=2"]
    tuned = original(cache, "query_strategy=random", "tune=true", "budget.init=3", *words)
    given = original(cache, "query_strategy=uherding", "index_sets.labelled=l.txt", f"tune.from={tuned}", *words)
    for folder in (given, replay(given), replay(tuned, "iterations.n=1")):
        _, _, _, *printed = shlex.split(typed_again(read_config(folder), cache_of(folder)))
        assert main(printed) == 0
        assert f"Already done: {folder} " in capsys.readouterr().out
