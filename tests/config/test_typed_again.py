"""The command that is printed for a run makes that run."""

from __future__ import annotations

import shlex

import pytest

from alfm.config.cell import Cell
from alfm.config.hydra import run_hydra
from alfm.config.typed_again import cache_of, typed_again

NAMES = ("query_strategy", "init_strategy", "classifier")


def composed(words: list[str]) -> dict:
    """The configuration as a run folder keeps it."""
    cells: list[Cell] = []
    assert run_hydra("al_train", "", lambda found: cells.extend(found) or 0, argv=words) == 0
    (cell,) = cells
    run = {name: cell.choices[name] for name in NAMES} | {"dataset": "digits", "model": "pixels"}
    return {**cell.config, "run": run}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["query_strategy=margins", "query_strategy.oversample=10", "seeds=[1,2]", "budget.per_class=false"],
        ["query_strategy=bald", "query_strategy/posterior=laplace", "init_strategy=typiclust", "classifier=dropout"],
        ["stopping=[delta_f,variance]", "stopping.delta_f.window=5", "stopping.mode=stop", "splits.unlabelled=[255,1]"],
        ["cache='a folder/of mine.h5'", "classifier.strength=10", "+classifier.new=3"],
    ],
)  # fmt: skip
def test_what_is_printed_is_the_same_configuration(words: list[str]) -> None:
    config = composed(words)
    python, flag, module, *printed = shlex.split(typed_again(config))
    assert (python, flag, module) == ("python", "-m", "alfm.al_train")
    assert composed(printed) == config


def test_a_strategy_of_a_users_own_is_named(tmp_path) -> None:
    config = composed(["cache=mine.h5", "seeds=[3]"])
    config["query_strategy"] = {"_target_": "mine.Nearest"}
    config["run"]["query_strategy"] = "nearest"
    config["cache"] = None
    text = typed_again(config, cache="there.h5")
    assert "cache=there.h5 query_strategy=nearest" in text and "seeds=[3]" in text
    assert cache_of(tmp_path) is None
