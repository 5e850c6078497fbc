"""Budgets in every unit, as a list, and what contradicts what."""

from __future__ import annotations

import os

import pytest

import alfm
from alfm.al_train import main
from alfm.errors import UserError
from alfm.results.load import budget_text, load_runs
from alfm.simulation.budgets import budgets_of


def test_units_say_what_is_counted():
    assert budgets_of(10, 3, 1, 2, unit="class") == [10, 20, 20]
    assert budgets_of(10, 3, 1, 2, unit="labels") == budgets_of(10, 3, 1, 2, per_class=False) == [1, 2, 2]
    assert budgets_of(10, 3, 0.05, 0.1, unit="share", items=1000) == [50, 100, 100]
    assert budgets_of(10, 4, 0.05, 0.1, unit="share", items=1000, doubling=True) == [50, 100, 200, 400]
    assert budgets_of(10, 20, 1, 1, listed=[1, 2, 4]) == [10, 20, 40]
    assert budgets_of(10, 3, 1, 1, unit="labels", listed=[10, 20, 40]) == [10, 20, 40]
    assert budgets_of(10, 20, 1, 1, unit="share", listed=[0.1, 0.5], items=50) == [5, 25]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["budget.unit=class", "budget.per_class=false"], "contradict each other"),
        (["budget.unit=share", "budget.init=5", "budget.step=0.1"], "budget.init=5 is a share of the pool"),
        (["budget.unit=share", "budget.init=0.00001", "budget.step=0.1"], "at least one label a round"),
        (["budget.unit=percent"], "class, labels or share"),
        (["budget.schedule=[10,20]", "iterations.exp=true"], "doubles it: leave one out"),
        (["budget.schedule=[10,20]", "budget.init=3"], "leave budget.init and budget.step out"),
        (["budget.schedule=[10,20]", "budget.step=3"], "leave budget.init and budget.step out"),
        (["budget.schedule=[10,20]", "iterations.n=5"], "has 2 rounds and iterations.n=5"),
        (["budget.schedule=[]"], "budget.schedule="),
        (["budget.schedule=[10,0]"], "budget.schedule="),
        (["budget.schedule=10"], "budget.schedule="),
        (["budget.schedule=[0.01,1]"], "at least one label a round"),
        (["budget.schedule=[2000]", "budget.unit=labels"], "the first of budget.schedule"),
    ],
)
def test_contradictions_are_refused(words, said, digits_cache, capsys):
    assert main([f"cache={digits_cache}", "seeds=[1]", "device=cpu", *words]) == 1
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told


def test_one_budget_said_in_two_ways_is_one_run(digits_cache, capsys):
    few = [f"cache={digits_cache}", "query_strategy=random", "seeds=[1]", "device=cpu"]
    assert main([*few, "iterations.n=2", "budget.per_class=false", "budget.init=30"]) == 0
    capsys.readouterr()
    assert main([*few, "iterations.n=2", "budget.unit=labels", "budget.init=30"]) == 0
    assert "Already done" in capsys.readouterr().out
    assert main([*few, "budget.schedule=[10,20,40]", "budget.unit=labels"]) == 0
    assert main([*few, "budget.unit=share", "budget.init=0.05", "budget.step=0.025", "iterations.n=3"]) == 0
    counts = {
        str(name): own["num_labeled"].tolist() for name, own in load_runs(os.environ["LOG_DIR"]).groupby("budget")
    }
    assert counts == {
        "30 + 1 labels a round, 2 rounds": [30, 31],
        "10, 20, 40 labels, 3 rounds": [10, 30, 70],
        "5 + 2.5 % of the pool a round, 3 rounds": [63, 94, 125],
    }


def test_python_takes_the_same(digits_cache):
    frame = alfm.simulate(digits_cache, "random", seeds=[1], schedule=[20, 10], unit="labels", device="cpu")
    assert frame["num_labeled"].tolist() == [20, 30] and set(frame["budget"]) == {"20, 10 labels, 2 rounds"}
    with pytest.raises(UserError, match="contradict"):
        alfm.simulate(digits_cache, per_class=False, unit="class")


def test_a_share_is_of_the_pool_as_it_was_made(digits_cache):
    pool = {"imbalance": "exponential", "ratio": 10}
    task = alfm.Simulation(digits_cache, device="cpu", pool=pool)
    frame = alfm.simulate(task, "random", seeds=[1], rounds=2, init=0.5, step=0.25, unit="share")
    assert frame["num_labeled"].tolist() == [round(task.pool.N / 2), round(task.pool.N / 2) + round(task.pool.N / 4)]


def test_budgets_in_words():
    rounds = {"n": 20, "exp": True}
    assert budget_text({"budget": {"init": 1, "step": 2, "per_class": True}, "iterations": rounds}, []) == (
        "1 + 2 labels per class a round, doubling, 20 rounds"
    )
    listed = {"init": 1, "step": 1, "per_class": True, "unit": "share", "schedule": [0.05, 0.1]}
    assert budget_text({"budget": listed, "iterations": rounds}, []) == "5, 10 % of the pool, 2 rounds"
