"""People's loop plays a simulation: the same picks, whatever way the labels came."""

from __future__ import annotations

import h5py
import pytest

from alfm import ActiveLearner, Simulation, UserError, run
from alfm.config.parts import composed, from_config
from alfm.heads.logistic import Logistic
from alfm.simulation.loop import schedule


@pytest.fixture(scope="module")
def cache(digits_arrays, tmp_path_factory):
    """300 digits with ids and class names, labelled, and a test split."""
    x, y, test_x, test_y = digits_arrays
    path = tmp_path_factory.mktemp("pool") / "digits.h5"
    with h5py.File(path, "w") as file:
        file.attrs["class_names"] = [f"digit {k}" for k in range(10)]
        for split, points, labels in (("train", x[:300], y[:300]), ("test", test_x[:100], test_y[:100])):
            file[f"{split}/features"], file[f"{split}/labels"] = points, labels
            file[f"{split}/ids"] = [f"{split}/{row}.png" for row in range(len(points))]
    return path


@pytest.fixture(scope="module")
def truth(digits_arrays):
    return [f"digit {label}" for label in digits_arrays[1][:300]]


def simulated(cache, name, seed, rounds=6, step=8):
    init = composed({"query_strategy": name})["init_strategy"][0]
    made = run(
        Simulation(cache), Logistic(), from_config("init_strategy", init), from_config("query_strategy", name),
        schedule(rounds, step, step), [seed],
    )  # fmt: skip
    return [one.picks[0].tolist() for one in made]


@pytest.mark.parametrize("audit", [0, 40])
@pytest.mark.parametrize("name", ["random", "margins", "typiclust", "uherding", "badge"])
def test_a_script_gets_the_picks_of_the_simulation(name, audit, cache, truth, tmp_path):
    """Saved and loaded between every step, and with audit labels told early, some of which are then picked."""
    expected = simulated(cache, name, 10)
    folder = tmp_path / "state"
    learner = ActiveLearner(cache, query_strategy=name, seed=10, labels_in_cache="ignore", folder=folder)
    learner.audit(audit)
    taken = 0
    for picks in expected:
        for item in ActiveLearner.load(folder).ask_audit(15):
            ActiveLearner.load(folder).tell([item], [truth[item.row]], by="auditor")
        items = ActiveLearner.load(folder).ask(8)
        state = ActiveLearner.load(folder).state
        assert [state.rows[item] for item in state.batches[-1].items] == picks
        asked = [item.row for item in items]
        assert asked == [row for row in picks if row in asked]
        taken += 8 - len(asked)
        ActiveLearner.load(folder).tell(items, [truth[item.row] for item in items])
    assert (taken > 0) == (audit > 0)
    assert len(ActiveLearner.load(folder).state.window) == audit


def test_told_wrong_and_put_right(cache, truth):
    learner = ActiveLearner(cache, labels_in_cache="ignore")
    with pytest.raises(UserError, match="no item"):
        learner.tell(["nothing"], ["digit 1"])
