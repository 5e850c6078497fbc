"""`alfm.simulate`, and how well the strategies of the main job do on real digits."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

import alfm
from alfm.config.parts import from_config
from alfm.config.paths import conf_dir
from alfm.devices import choose_device
from alfm.heads.logistic import Logistic
from alfm.results.conditions import as_config, config_of_class
from alfm.results.pairing import paired_curves
from alfm.results.rounds_file import columns
from alfm.results.setting import settings_of
from alfm.results.statistics import better_than_random
from alfm.simulation.budgets import budgets_of
from alfm.simulation.cached_task import Simulation
from alfm.simulation.replicates import run_replicates
from alfm.strategies.log_det import LogDet
from alfm.strategies.margins import Margins

NINE = (
    "random", "uncertainty", "entropy", "margins", "coreset", "badge", "typiclust", "probcover", "dropquery"
)  # fmt: skip
NAMES = {
    "dataset", "model", "query_strategy", "init_strategy", "classifier", "budget", "cache", "conditions",
    "query_options", "init_options", "stopping", "behaviour", "pool", "draw", "initial", "picked",
}  # fmt: skip
TIMES = ["fit_seconds", "query_seconds", "eval_seconds", "peak_memory_bytes"]


@pytest.fixture(scope="module")
def task(digits_cache):
    return alfm.Simulation(digits_cache, device="cpu")


@pytest.fixture(scope="module")
def accuracy(task) -> pd.DataFrame:
    """Accuracy at 100 labels: one row per seed, one column per strategy."""
    runs = pd.concat([alfm.simulate(task, name, rounds=10) for name in NINE])
    last = runs[runs["num_labeled"] == 100]
    return last.pivot(index="seed", columns="query_strategy", values="accuracy")


def test_accuracies_on_digits_are_what_plain_scikit_learn_reaches(accuracy):
    mean = accuracy.mean()
    assert list(accuracy.index) == [1, 10, 100, 1000, 10000] and set(accuracy) == set(NINE)
    assert mean["random"] >= 0.86, mean
    assert mean["margins"] >= 0.90, mean
    assert (mean >= 0.80).all(), mean
    assert mean.nunique() == len(NINE), mean  # not one strategy under nine names


def test_a_frame_has_the_columns_of_a_run_and_of_its_setting(task):
    frame = alfm.simulate(task, "margins", seeds=[1, 2], rounds=3)
    assert set(frame) == {*columns(), *NAMES}
    assert frame["num_labeled"].tolist() == [10, 10, 20, 20, 30, 30] and frame["seed"].tolist() == [1, 2] * 3
    assert frame.loc[0, ["dataset", "model", "query_strategy", "init_strategy", "classifier"]].tolist() == [
        "digits", "pixels", "margins", "random", "logistic"
    ]  # fmt: skip
    assert frame.groupby("seed")["initial"].nunique().tolist() == [1, 1] and frame["initial"].nunique() == 2


def test_frames_of_several_strategies_are_paired_by_their_first_items(task):
    seeds = range(10)
    runs = pd.concat([alfm.simulate(task, name, seeds=seeds, rounds=3) for name in ("random", "margins")])
    curves = paired_curves(runs)
    assert curves.strategies == ["random", "margins"] and curves.values.shape == (2, 10, 3)
    assert (curves.values[0, :, 0] == curves.values[1, :, 0]).all()
    table = better_than_random(runs, bands={"all": (2, 3)})
    assert table["strategy"].tolist() == ["margins"] and table["p"].notna().all()
    other = alfm.simulate(task, "margins", init_strategy="centroid", seeds=seeds, rounds=3)
    with pytest.raises(alfm.UserError, match="began seed 0 with different items"):
        paired_curves(pd.concat([runs[runs["query_strategy"] == "random"], other]))


def test_simulate_and_al_train_agree(digits_cache, task):
    from alfm.al_train import main

    frame = alfm.simulate(task, "badge", seeds=[3, 4], rounds=3, init=5, step=7, per_class=False)
    words = ["query_strategy=badge", "seeds=[3,4]", "iterations.n=3", "budget.init=5", "budget.step=7"]
    assert main([f"cache={digits_cache}", *words, "budget.per_class=false"]) == 0
    stored = alfm.load_runs(os.environ["LOG_DIR"])
    order = ["seed", "round"]
    left, right = (f.sort_values(order)[[*columns(), *NAMES]].drop(columns=TIMES) for f in (frame, stored))
    pd.testing.assert_frame_equal(left.reset_index(drop=True), right.reset_index(drop=True), check_dtype=False)


def test_objects_do_as_well_as_names_and_a_path_as_well_as_a_task(digits_cache, task):
    by_name = alfm.simulate(task, "margins", seeds=[1], rounds=3)
    given = {group: from_config(group, name) for group, name in
             (("init_strategy", "random"), ("classifier", "logistic"))}  # fmt: skip
    by_object = alfm.simulate(str(digits_cache), from_config("query_strategy", "margins"), seeds=[1], rounds=3, **given)
    pd.testing.assert_frame_equal(by_name.drop(columns=TIMES), by_object.drop(columns=TIMES))


def test_objects_are_described_by_their_class_and_options(task):
    short = {"seeds": [1, 2], "rounds": 2}
    default, strong = Logistic(), Logistic(strength=10)
    frames = [alfm.simulate(task, "random", classifier=head, **short) for head in ("logistic", default, strong)]
    conditions = [frame["conditions"].iloc[0] for frame in frames]
    assert conditions[0] == conditions[1] != conditions[2]
    assert {frame["classifier"].iloc[0] for frame in frames} == {"logistic"}
    with pytest.raises(alfm.UserError, match=r"different classifier.strength \(auto / 10\)"):
        paired_curves(pd.concat([frames[0], frames[2].assign(query_strategy="other")]))
    ours = [alfm.simulate(task, one, **short) for one in ("margins", Margins(), Margins(oversample=5))]
    (setting,) = settings_of(pd.concat(ours).drop_duplicates(["query_options", "seed", "round"]))
    assert set(setting.shared["strategy"]) == {"margins (oversample=50)", "margins (oversample=5)"}
    assert alfm.simulate(task, LogDet(), **short)["query_strategy"].iloc[0] == "log_det"


class Mine(alfm.Strategy):
    needs_head = False

    def __init__(self, weights, step: int = 1):
        self.w, self._step = weights, step

    def select(self, query, budget):
        return query.available.int().topk(budget, dim=1, sorted=True).indices


def test_objects_of_other_people_are_described_too():
    target = f"{Mine.__module__}.Mine"
    first, again, other = (as_config(Mine(np.arange(n), step=n)) for n in (3, 3, 4))
    assert first == again != other and first["_target_"] == target and first["step"] == 3
    assert as_config(Mine("uniform")) == {"_target_": target, "_step": 1, "w": "uniform"}  # kept under another name
    nested = as_config(from_config("classifier", "propagated"))
    assert nested["classifier"]["_target_"] == "alfm.heads.logistic.Logistic"
    assert config_of_class(Margins, conf_dir() / "query_strategy") == "margins"
    assert config_of_class(Mine, conf_dir() / "query_strategy") is None


def test_seeds_that_repeat_one_another_are_known_by_their_picks(task):
    frames = {
        name: alfm.simulate(task, name, init_strategy="maxherding", seeds=range(10), rounds=3)
        for name in ("random", "margins", "uherding")
    }
    differ = {name: frame[frame["round"] == 3]["picked"].nunique() for name, frame in frames.items()}
    assert differ["random"] == 10 and differ["margins"] == 1 and 1 <= differ["uherding"] < 10
    table = better_than_random(pd.concat(frames.values()), bands={"all": (2, 3)})
    assert table["verdict"].isin(["one start", "few starts"]).all() and table["p"].isna().all()


def test_another_test_split_is_another_setting(digits_cache, task):
    swapped = Simulation(digits_cache, "cpu", pool_split="test", test_split="train")
    frames = [alfm.simulate(t, name, seeds=[1, 2], rounds=2) for t, name in ((task, "random"), (swapped, "margins"))]
    with pytest.raises(alfm.UserError, match=r"splits.pool \(train / test\); splits.test \(test / train\)"):
        paired_curves(pd.concat(frames))


def test_features_that_stay_in_the_file_give_the_same_picks(digits_cache, task):
    kept = [alfm.simulate(t, "margins", seeds=[1, 2], rounds=4)
            for t in (task, Simulation(digits_cache, "cpu", memory="file"))]  # fmt: skip
    assert kept[0]["accuracy"].tolist() == kept[1]["accuracy"].tolist()


def test_unlabelled_items_leave_the_pool_but_keep_their_places(tmp_path, digits_arrays):
    x, y, test_x, test_y = digits_arrays
    y = y.copy()
    y[::2] = -1
    path = tmp_path / "half.h5"
    with h5py.File(path, "w") as file:
        file["train/features"], file["train/labels"] = x, y
        file["test/features"], file["test/labels"] = test_x, test_y
    for memory in ("auto", "file"):
        task = Simulation(path, "cpu", memory)
        assert task.pool.N == len(x) // 2 and task.left_out == (len(x) - len(x) // 2, 0)
        assert (task.cache_rows % 2 == 1).all()
        rows = torch.tensor([0, 3, 100])
        assert np.allclose(task.pool.gather(rows).numpy(), x[task.cache_rows[rows]])
        assert task.labels[rows].tolist() == y[task.cache_rows[rows]].tolist()


def test_mistakes_are_user_errors(digits_cache, task):
    for wrong, said in (
        ({"query_strategy": "margin"}, "margins"),
        ({"classifier": "logistik"}, "logistic"),
        ({"init_strategy": "margins"}, "There is no init_strategy=margins"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [4, 4]}, "different"),
        ({"rounds": 0}, "simulate rounds=0: a whole number between 1 and 1000000 is needed"),
        ({"init": 1000}, "initial budget"),
    ):
        with pytest.raises(alfm.UserError, match=said):
            alfm.simulate(task, **wrong)
    for wrong, said in (
        ({"device": "gpu"}, "no device"),
        ({"memory": "disk"}, "memory=disk"),
        ({"pool_split": "all"}, "no split"),
    ):
        with pytest.raises(alfm.UserError, match=said):
            Simulation(digits_cache, **wrong)
    with pytest.raises(alfm.UserError, match="was not given what it takes"):
        from_config("query_strategy", "random", speed=3)
    with pytest.raises(alfm.UserError, match="cannot be a cold start"):
        alfm.simulate(task, init_strategy=from_config("query_strategy", "margins"))


def test_configs_take_options_and_their_own_groups(task):
    assert from_config("query_strategy", "coreset", metric="cosine").metric == "cosine"
    assert from_config("query_strategy", "dbal").posterior.passes == 25
    assert from_config("classifier", "propagated").classifier is not None


def test_budgets():
    assert budgets_of(10, 3, 1, 2) == [10, 20, 20]
    assert budgets_of(10, 3, 1, 2, per_class=False) == [1, 2, 2]
    assert budgets_of(3, 4, 0.5, 1, doubling=True) == [2, 3, 6, 12]
    assert budgets_of(10, 1000, 1, 1, doubling=True)[-1] == 10 * 2**62  # no number grows without end
    for wrong in (
        (0, 1, 1),
        (3, 0, 1),
        (3, 1, 0),
        (3, 1, -1),
        (3, float("nan"), 1),
        (3, 1, "1"),
        (2.5, 1, 1),
        (3, 0.01, 1),
    ):
        with pytest.raises(alfm.UserError, match="number|at least one label"):
            budgets_of(10, *wrong)


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else choose_device().type)
    with pytest.raises(alfm.UserError, match="has no device cuda:99"):
        choose_device("cuda:99")


def test_rounds_come_as_they_are_made(task):
    built = {group: from_config(group, name) for group, name in
             (("query_strategy", "random"), ("init_strategy", "random"), ("classifier", "logistic"))}  # fmt: skip
    seen: list[int] = []
    rows = run_replicates(
        task, built["classifier"], built["init_strategy"], built["query_strategy"], [10, 10], [1],
        on_round=lambda made, seeds: seen.append(made.round),
    )  # fmt: skip
    assert next(rows)["round"] == 1 and seen == [1]
    assert next(rows)["round"] == 2 and next(rows, None) is None


def test_public_names_are_all_there():
    for name in alfm.__all__:
        assert getattr(alfm, name).__doc__, name
    with pytest.raises(AttributeError, match="simulat"):
        alfm.simulat  # noqa: B018
    assert Path(alfm.__file__).exists() and set(alfm.__all__) <= set(dir(alfm))


def test_stopping_rules_watch_or_end_a_simulation_as_they_do_a_run(digits_cache, task):
    from alfm.al_train import main
    from alfm.results.verdicts import NEVER, read_verdicts
    from alfm.stopping import KappaPairs, LabellingBudget

    given = {"seeds": [1, 2], "rounds": 4}
    plain = alfm.simulate(task, "margins", **given)
    rules = {"twenty": LabellingBudget(labels=20), "agree": KappaPairs(threshold=0.9999)}
    seen = alfm.simulate(task, "margins", **given, stopping=rules, stopping_sample=50)
    pd.testing.assert_frame_equal(plain.drop(columns=TIMES), seen.drop(columns=TIMES))
    assert plain.attrs["stopping"] == []
    verdicts = pd.DataFrame(seen.attrs["stopping"])
    assert set(verdicts["rule"]) == {"twenty", "agree"} and len(verdicts) == 4
    assert verdicts.loc[verdicts["rule"] == "twenty", "labels"].tolist() == [20, 20]
    assert verdicts.loc[verdicts["rule"] == "agree", "reason"].tolist() == [NEVER, NEVER]
    assert rules["twenty"].round == 0  # the caller's own is not told

    ended = alfm.simulate(task, "margins", **given, stopping=["labelling_budget", "kappa_pairs"], stopping_mode="stop")
    assert ended["num_labeled"].max() == 40  # 500 labels are not reached
    words = ["query_strategy=margins", "seeds=[1,2]", "iterations.n=4", "stopping.labelling_budget.labels=20"]
    stop = [f"cache={digits_cache}", *words, "stopping=[labelling_budget]", "stopping.mode=stop"]
    assert main(stop) == 0
    stored = alfm.load_runs(os.environ["LOG_DIR"])
    ours = alfm.simulate(task, "margins", **given, stopping=LabellingBudget(labels=20), stopping_mode="stop")
    columns_ = ["seed", "round", "picked", "conditions", "query_options", "stopping"]
    left, right = (f.sort_values(["seed", "round"])[columns_].reset_index(drop=True) for f in (ours, stored))
    pd.testing.assert_frame_equal(left, right)
    assert left["round"].max() == 2
    assert ours.attrs["stopping"] == [vars(one) for one in read_verdicts(Path(stored["path"].iloc[0]))]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"stopping": "kappa_pair"}, "There is no stopping=kappa_pair: did you mean kappa_pairs"),
        ({"stopping_mode": "stop"}, "stopping_mode=stop: name a rule that says when"),
        ({"stopping": "kappa_pairs", "stopping_mode": "halt"}, "stopping_mode=halt: observe or stop is needed"),
        ({"stopping": ["kappa_pairs", "kappa_pairs"]}, "has two rules kappa_pairs: name them"),
        ({"stopping": 3}, "simulate stopping=3"),
        ({"stopping": [3]}, r"simulate stopping=\[3\]"),
    ],
)
def test_what_is_no_rule_is_told_in_a_sentence(task, given, sentence):
    with pytest.raises(alfm.UserError, match=sentence):
        alfm.simulate(task, "margins", seeds=[1], rounds=2, **given)


def test_a_rule_that_was_told_of_rounds_is_refused(task):
    from alfm.stopping import LabellingBudget

    rule = LabellingBudget()
    rule.update(answers=[0, 1])
    with pytest.raises(alfm.UserError, match="labelling_budget was told of rounds already"):
        alfm.simulate(task, "margins", seeds=[1], rounds=2, stopping=rule)
