"""People's loop plays a simulation: the same picks, whatever way the labels came."""

from __future__ import annotations

import json
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import torch

from alfm import ActiveLearner, Simulation, UserError, run
from alfm.config.parts import composed, from_config
from alfm.heads.logistic import Logistic
from alfm.simulation.loop import schedule
from alfm.strategies.margins import Margins
from alfm.strategies.random import Random


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


def simulated(cache, name, seed, rounds=5, step=8):
    init = composed({"query_strategy": name})["init_strategy"][0]
    made = run(
        Simulation(cache), Logistic(), from_config("init_strategy", init), from_config("query_strategy", name),
        schedule(rounds, step, step), [seed],
    )  # fmt: skip
    return [(one.picks[0].tolist(), one.metrics[0]) for one in made]


@pytest.mark.parametrize("audit", [0, 40])
@pytest.mark.parametrize("name", ["random", "margins", "typiclust", "uherding", "badge"])
def test_a_script_gets_the_picks_of_the_simulation(name, audit, cache, truth):
    """With an audit too, whose labels are told early, and some of whose items are then picked."""
    expected = simulated(cache, name, 10)
    learner = ActiveLearner(cache, query_strategy=name, seed=10, labels_in_cache="ignore")
    learner.audit(audit)
    taken, task = 0, Simulation(cache)
    for picks, metrics in expected:
        told(learner, learner.ask_audit(15), truth, by="auditor")
        items = learner.ask(8)
        assert [learner.state.rows[item] for item in learner.state.batches[-1].items] == picks
        assert rows(items) == [row for row in picks if row in rows(items)]
        taken += 8 - len(items)
        told(learner, items, truth)
        assert task.measure(learner.head) == [metrics]
    assert (taken > 0) == (audit > 0) and len(learner.state.window) == audit


@pytest.mark.parametrize("name", ["margins", "typiclust"])
def test_a_script_that_begins_anew_at_every_step_gets_them_too(name, cache, truth, tmp_path):
    folder = tmp_path / "state"
    ActiveLearner(cache, query_strategy=name, seed=10, labels_in_cache="ignore", folder=folder).audit(40)
    for picks, _ in simulated(cache, name, 10, rounds=4):
        told(ActiveLearner.load(folder), ActiveLearner.load(folder).ask_audit(15), truth, by="auditor")
        items = ActiveLearner.load(folder).ask(8)
        state = ActiveLearner.load(folder).state
        assert [state.rows[item] for item in state.batches[-1].items] == picks
        told(ActiveLearner.load(folder), items, truth)


# ---- the same batch, whatever the way there --------------------------------------------------------------------------


def begun(cache, name="margins", **options):
    return ActiveLearner(cache, query_strategy=name, seed=1, labels_in_cache="ignore", **options)


def told(learner, items, truth, **options):
    learner.tell(items, [truth[item.row] for item in items], **options)


def rows(items):
    return [item.row for item in items]


@pytest.mark.parametrize("name", ["margins", "badge"])
def test_the_way_to_the_labels_changes_nothing(name, cache, truth, tmp_path):
    """Told at once; one by one and from behind; wrong, put right and with looks at the model between."""
    learners = [begun(cache, name), begun(cache, name, folder=tmp_path / "b"), begun(cache, name)]
    for _ in range(3):
        batches = [learner.ask(8) for learner in learners]
        assert rows(batches[0]) == rows(batches[1]) == rows(batches[2])
        assert [(item.suggestion, item.confidence) for item in batches[0]] == [
            (item.suggestion, item.confidence) for item in batches[1]
        ]
        told(learners[0], batches[0], truth)
        for item in batches[1][::-1]:
            told(learners[1], [item], truth)
        learners[1] = ActiveLearner.load(tmp_path / "b")
        learners[2].tell(batches[2], ["digit 3"] * 7 + [None])
        learners[2].suggestions()
        learners[2].predict([0])
        told(learners[2], batches[2], truth)
        learners[2].clear(batches[2][:2])
        told(learners[2], batches[2][:2], truth)
    digests = {learner.state.digest() for learner in learners}
    assert len(digests) == 1
    weights = [learner.head.weight for learner in learners]
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])


def test_a_correction_costs_a_fit_of_each_round_since_and_no_more(cache, truth, monkeypatch):
    fits = []
    real = Logistic.fit

    def counted(self, pool, rows, *more, **options):
        fits.append(rows.shape[1])
        return real(self, pool, rows, *more, **options)

    monkeypatch.setattr(Logistic, "fit", counted)
    learner = begun(cache)
    for _ in range(3):
        told(learner, learner.ask(8), truth)
    learner.ask(8)
    assert fits == [8, 16, 24]
    second = learner.state.batches[1].items[0]
    right = learner.state.label_of(second)
    learner.tell([second], ["digit 0" if right != "digit 0" else "digit 1"])
    learner.ask(8)
    assert fits == [8, 16, 24, 16, 24]


def test_asked_again_until_more_is_known(cache, truth):
    learner = begun(cache)
    first = learner.ask(6)
    assert learner.ask(6) == first and len(learner.state.batches) == 1
    more = learner.ask(9)
    assert len(more) == 9 and learner.state.round == 1 and learner.ask(9) == more
    told(learner, more[:4], truth)
    learner.tell([more[4]], ["digit 1"], by="another")
    second = learner.ask(9)
    assert learner.state.round == 2 and len(second) == 9 and not set(rows(second)) & set(rows(more[:5]))
    learner.skip(second[:1])
    third = learner.ask(5)
    assert learner.state.round == 3 and second[0].row not in rows(third)


def test_tell_is_one_synced_write_and_no_fit(cache, truth, tmp_path, monkeypatch):
    learner = begun(cache, folder=tmp_path / "state")
    items = learner.ask(8)
    synced, written, fitted = [], [], []
    sync, write = os.fsync, os.write
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(sync(file)))
    monkeypatch.setattr(os, "write", lambda file, text: written.append(len(text)) or write(file, text))
    monkeypatch.setattr(Logistic, "fit", lambda *args, **options: fitted.append(args))
    told(learner, items, truth)
    assert len(synced) == len(written) == 1 and not fitted
    told(learner, items, truth)  # nothing new
    assert len(written) == 1


def test_the_end_of_a_pool(cache, truth):
    learner = begun(cache)
    every = learner.ask(1000)
    assert len(every) == 300
    told(learner, every, truth)
    assert learner.ask(5) == [] and learner.ask_audit() == []
    assert len(learner.state.batches) == 1 and learner.status().labelled == 300
    learner.clear([7])
    assert rows(learner.ask(5)) == [7]
    learner.skip([7])
    assert learner.ask(5) == []


def test_an_audit_is_not_eaten_when_nothing_is_left_to_ask(cache, truth):
    learner = begun(cache)
    told(learner, learner.ask(8), truth)
    learner.audit(300)
    told(learner, learner.ask_audit(), truth)
    assert learner.ask(8) == [] and len(learner.state.batches) == 1
    assert len(learner.state.window) == 292 and len(learner.state.training) == 8


def test_a_pool_that_is_labelled_to_begin_with(cache, truth):
    learner = ActiveLearner(cache)
    assert learner.ask(3) == [] and learner.status().labelled == 300
    assert (np.array(learner.predict()) == truth).mean() > 0.95
    learner.tell([0], ["digit 9"])
    assert learner.state.label_of("train/0.png") == "digit 9"


# ---- people ----------------------------------------------------------------------------------------------------------


def test_annotators_who_differ_and_one_who_decides(cache, truth):
    learner = begun(cache)
    items = learner.ask(6)
    told(learner, items, truth, by="ann")
    learner.tell(items[:2], ["digit 0" if truth[item.row] != "digit 0" else "digit 1" for item in items[:2]], by="bob")
    status = learner.status()
    assert status.ties == [items[0].id, items[1].id] and status.trained == 4
    assert status.annotators == {"ann": 6, "bob": 2} and "ties 2" in str(status)
    learner.reject([items[2]], ["digit 5"], by="bob")
    assert learner.status().rejected == 1 and learner.status().trained == 4
    assert {items[0].row, items[1].row} <= set(rows(learner.ask(300)))
    told(learner, items[:1], truth, by="cid")
    assert learner.status().ties == [items[1].id]


def test_numbers_rows_and_what_is_no_label(cache, digits_cache):
    learner = begun(cache)
    learner.tell(["train/3.png", 4, np.int64(5)], ["digit 1", "digit 2", float("nan")])
    assert learner.state.all_skipped == ["train/5.png"] and learner.status().labelled == 2
    for ids, labels, why in [
        (["train/x.png"], ["digit 1"], "There is no item 'train/x.png' in the pool: did you mean"),
        ([300], ["digit 1"], "no row 300 in the pool: its rows are 0 to 299"),
        ([-1], ["digit 1"], "no row -1"),
        ([True], ["digit 1"], "'True' is no item"),
        ([None], ["digit 1"], "'None' is no item"),
        ([1], [" "], "' ' is no label"),
        ([1], [["digit 1"]], "is no label"),
        ([1, 2], ["digit 1"], "2 items and 1 labels"),
    ]:
        with pytest.raises(UserError, match=re.escape(why)):
            learner.tell(ids, labels)
    assert learner.state.revision == 4
    plain = begun(digits_cache)
    plain.tell(["7", 8], [3, np.int64(4)])
    assert plain.classes == ["3", "4"] and plain.state.label_of("8") == "4"
    named = begun(digits_cache, classes=["cat", "dog"])
    with pytest.raises(UserError, match="Label 1 is a number and the classes have names \\(cat, dog\\): give the name"):
        named.tell([0], [1])


def test_the_last_word_of_one_call_stands_whatever_was_known_before(cache):
    learner = begun(cache)
    learner.tell([1], ["digit 1"])
    learner.tell([1, 1], ["digit 2", "digit 1"])
    assert learner.state.label_of("train/1.png") == "digit 1"
    learner.tell([1, 1, 1], [None, "digit 3", "digit 1"])
    assert learner.state.label_of("train/1.png") == "digit 1"


def test_what_another_process_took_back_is_not_held_for_known(cache, tmp_path, monkeypatch):
    """It does so after this one last looked, and before this one writes."""
    mine = begun(cache, folder=tmp_path / "state")
    mine.tell([1], ["digit 1"])
    other = ActiveLearner.load(tmp_path / "state")
    writing = mine.journal.writing

    def later():
        monkeypatch.undo()
        other.clear([1])
        return writing()

    monkeypatch.setattr(mine.journal, "writing", later)
    mine.tell([1], ["digit 1"])
    assert mine.state.label_of("train/1.png") == "digit 1"


def test_a_text_is_no_list_of_items(digits_cache):
    """Its characters would be row numbers."""
    learner = begun(digits_cache)
    learner.tell([5], ["1"])
    for call in (
        lambda: learner.tell("12", ["3", "4"]),
        lambda: learner.tell(["1", "2"], "34"),
        lambda: learner.tell(learner.ask(1)[0], ["3"]),
        lambda: learner.skip("12"),
        lambda: learner.clear("12"),
        lambda: learner.reject("12", ["3", "4"]),
        lambda: learner.predict("12"),
    ):
        with pytest.raises(UserError, match="is no list of (items|labels): put it into brackets"):
            call()
    for call in (lambda: learner.clear(["1"], acts=["a", "b"]), lambda: learner.reject(["1"], ["3", "4"])):
        with pytest.raises(UserError, match="1 items and 2 (acts|labels); give one for each"):
            call()
    learner.tell([6], ["2"])
    assert learner.predict([]) == [] and learner.predict_proba([]).shape == (0, len(learner.classes))
    learner.merge_classes("1", "2")
    assert learner.state.label_of("5") == "2"


def test_space_around_a_class_is_no_part_of_its_name(cache):
    learner = begun(cache, classes=[" cat", "dog "])
    learner.add_class(" bird ")
    learner.tell([1], ["cat"])
    learner.rename_class("dog", " hound")
    assert learner.classes == ["cat", "hound", "bird"]


def test_acts_said_again_count_once(cache):
    learner = begun(cache)
    learner.tell([1, 2], ["digit 1", "digit 2"], acts=["x", "y"])
    learner.tell([1], ["digit 3"], acts=["z"])
    learner.tell([1, 2, 3], ["digit 1", "digit 2", "digit 4"], acts=["x", "y", "w"])
    assert [learner.state.votes[f"train/{row}.png"]["me"][-1] for row in (1, 2, 3)] == ["3", "2", "4"]


def test_classes_that_appear_late_are_renamed_and_merged(cache, truth):
    learner = begun(cache, classes=[])
    items = learner.ask(20)
    told(learner, items, truth)
    assert set(learner.classes) == {truth[item.row] for item in items} and learner.head.C == len(learner.classes)
    learner.rename_class(learner.classes[0], "first")
    learner.merge_classes(learner.classes[1:3], "others")
    learner.add_class("never seen")
    assert "first" in learner.predict() and learner.classes[0] == "never seen"
    proba = learner.predict_proba([0, 1])
    assert proba.shape == (2, len(learner.classes)) and np.allclose(proba.sum(1), 1, atol=1e-5)
    assert proba[:, 0].max() < 1e-6
    assert any("classes were not given" in note for note in learner.status().notes)
    with pytest.raises(UserError, match="no class 'nothing'"):
        learner.rename_class("nothing", "something")


def test_the_newest_head_suggests_and_a_class_of_the_audit_alone_is_not_known(cache, truth):
    learner = begun(cache, classes=[])
    assert learner.suggestions() is None and learner.refit() is None
    with pytest.raises(UserError, match="Nothing is labelled yet"):
        learner.predict()
    told(learner, learner.ask(30), truth)
    learner.audit(5)
    learner.tell(learner.ask_audit(), ["only here"] * 5)
    found = learner.suggestions()
    labels, confidence = found
    assert labels.shape == confidence.shape == (300,) and 0 < confidence.min() <= confidence.max() <= 1
    assert found.classes[-1] == "only here" and "only here" not in learner.head_classes
    assert np.mean([found.name(row) == truth[row] for row in range(300)]) > 0.7
    assert learner.suggestions().labels is not None and learner.refit() is learner.refit()
    assert learner.predict_proba()[:, -1].max() == 0
    assert learner.status().audit_answered == 5 and "Audit: 5 of 5" in str(learner.status())


# ---- where it lies ---------------------------------------------------------------------------------------------------


def test_saved_and_gone_on_with(cache, truth, tmp_path):
    learner = begun(cache)
    told(learner, learner.ask(8), truth)
    learner.save(tmp_path / "state")
    told(learner, learner.ask(8), truth)  # goes on writing there
    again = ActiveLearner.load(tmp_path / "state")
    assert again.state.digest() == learner.state.digest() and again.ask(8) == learner.ask(8)
    again.save(tmp_path / "state")
    again.save(tmp_path / "copy")
    again.tell([0], ["digit 0"])
    learner.refresh()
    assert learner.state.label_of("train/0.png") == "digit 0"
    assert ActiveLearner.load(tmp_path / "copy").state.label_of("train/0.png") is None
    for call in (lambda: learner.save(tmp_path / "copy"), lambda: begun(cache, folder=tmp_path / "copy")):
        with pytest.raises(UserError, match="holds a labelling state"):
            call()
    with pytest.raises(UserError, match="holds no labelling state: begin one"):
        ActiveLearner.load(tmp_path / "nothing")


def test_a_strategy_of_ones_own_is_recorded_if_it_can_be_made_again(cache, truth, tmp_path):
    learner = begun(cache, Margins(cluster_features=True), folder=tmp_path / "state")
    told(learner, learner.ask(8), truth)
    again = ActiveLearner.load(tmp_path / "state")
    assert again.state.settings["query_strategy"]["cluster_features"] is True
    assert rows(again.ask(8)) == rows(learner.ask(8))

    class Mine(Random):
        def __init__(self, function):
            self.function = function

    mine = begun(cache, Mine(len))
    assert len(mine.ask(4)) == 4
    for call in (lambda: mine.save(tmp_path / "mine"), lambda: begun(cache, Mine(len), folder=tmp_path / "mine")):
        with pytest.raises(UserError, match="query_strategy=.* cannot be made again from its options"):
            call()
    with pytest.raises(UserError, match="boss looks at hidden labels"):
        begun(cache, "boss")
    with pytest.raises(UserError, match="There is no query_strategy=margin: did you mean margins"):
        begun(cache, "margin")


def test_a_journal_that_names_something_to_run_runs_nothing(cache, tmp_path):
    begun(cache, folder=tmp_path / "state")
    path = tmp_path / "state" / "journal.jsonl"
    text = path.read_text()
    for target in ("os.system", "subprocess.Popen", "nowhere.at.all", "builtins.exec"):
        path.write_text(text.replace("alfm.strategies.margins.Margins", target))
        with pytest.raises(UserError, match=re.escape(f"query_strategy._target_={target}")):
            ActiveLearner.load(tmp_path / "state").ask(3)


def test_a_hand_edited_journal_is_named_with_its_line(cache, tmp_path):
    learner = begun(cache, folder=tmp_path / "state")
    learner.tell([1, 2], ["digit 1", "digit 2"])
    path = tmp_path / "state" / "journal.jsonl"
    path.write_text(path.read_text().replace("train/2.png", "train/nobody.png"))
    with pytest.raises(
        UserError, match=r"journal\.jsonl, line 3: there is no item 'train/nobody\.png'.*; put that line"
    ):
        ActiveLearner.load(tmp_path / "state")


def test_settings_that_lack_something_are_said_in_a_sentence(cache, tmp_path):
    begun(cache, folder=tmp_path / "state")
    path = tmp_path / "state" / "journal.jsonl"
    act = json.loads(path.read_text())
    for key in sorted(act.keys() - {"time", "by", "classes_given"}):
        path.write_text(json.dumps({name: value for name, value in act.items() if name != key}) + "\n")
        if key == "warm_start":
            assert len(ActiveLearner.load(tmp_path / "state").ask(2)) == 2
            continue
        with pytest.raises(UserError):
            ActiveLearner.load(tmp_path / "state").ask(2)


class Slow(Random):
    """Waits in the middle of a batch, as strategies that look at all pairs do."""

    begun, go_on = threading.Event(), threading.Event()

    def select(self, query, budget):
        self.begun.set()
        assert self.go_on.wait(60)
        return super().select(query, budget)


def test_labels_are_told_and_suggestions_made_while_a_batch_is_made(cache, truth, tmp_path):
    learner = begun(cache, Slow(), init_strategy=Slow(), folder=tmp_path / "state")
    learner.audit(30)
    with ThreadPoolExecutor(1) as worker:
        asked = worker.submit(learner.ask, 12)
        assert Slow.begun.wait(60)
        outside = [row for row in range(300) if learner.item(row) not in learner.state.window][:5]
        learner.tell(outside, [truth[row] for row in outside])  # known too late for this batch
        assert learner.suggestions() is not None
        ActiveLearner.load(tmp_path / "state").tell(outside[:1], ["digit 0"], by="another process")
        Slow.go_on.set()
        items = asked.result(60)
    alone = begun(cache, Slow(), init_strategy=Slow())
    assert rows(items) == [item.row for item in alone.ask(12) if item.row not in outside]
    assert learner.state.recorded(12) is None and learner.state.next_round == 2  # more is known than it was made from
    assert ActiveLearner.load(tmp_path / "state").state.digest() == learner.state.digest()


def test_two_who_ask_at_once_get_one_batch(cache, tmp_path):
    """The second has looked before the first has written."""
    first = begun(cache, folder=tmp_path / "state")
    second = ActiveLearner.load(tmp_path / "state")
    second._models.rounds(second.state.settings)
    real = second._models.rounds(second.state.settings).ask

    def late(*question):
        found = real(*question)
        first.ask(7)
        return found

    second._models.rounds(second.state.settings).ask = late
    assert rows(second.ask(7)) == rows(first.ask(7)) and len(first.state.batches) == 1


def test_a_full_disk_leaves_the_learner_as_it_was(cache, tmp_path, monkeypatch):
    learner = begun(cache, folder=tmp_path / "state")
    items = learner.ask(4)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, text: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(UserError, match="No space left on device.*nothing was recorded"):
            learner.tell(items, ["digit 1"] * 4)
        with pytest.raises(UserError, match="nothing was recorded"):
            learner.ask(9)
    assert learner.status().labelled == 0 and learner.ask(4) == items
    learner.tell(items, ["digit 1"] * 4)
    assert ActiveLearner.load(tmp_path / "state").status().labelled == 4


# ---- pools -----------------------------------------------------------------------------------------------------------


def write(path, points, labels=None, ids=None, views=None, names=True):
    with h5py.File(path, "w") as file:
        if names:
            file.attrs["class_names"] = [f"digit {k}" for k in range(10)]
        file["train/features"] = points
        file["train/labels"] = np.full(len(points), -1) if labels is None else labels
        if ids is not None:
            file["train/ids"] = ids
    return path


@pytest.mark.parametrize("memory", ["auto", "file"])
def test_a_pool_grows_and_old_rows_keep_their_numbers(memory, digits_arrays, tmp_path):
    x, y, _, _ = digits_arrays
    a = write(tmp_path / "a.h5", x[:100], ids=[f"a{row}" for row in range(100)])
    b = write(tmp_path / "b.h5", x[100:150], ids=[f"b{row}" for row in range(50)])
    learner = begun(a, folder=tmp_path / "state", memory=memory)
    learner.audit(10)
    first = learner.ask(10)
    learner.tell(first, [f"digit {y[item.row]}" for item in first])
    grown = ActiveLearner.load(tmp_path / "state", cache=[a, b], memory=memory)
    assert grown.state.rows["b0"] == 100 and grown.status().items == 150 and grown.status().labelled == 10
    assert np.array_equal(grown.features.gather(torch.tensor([3, 120, 100])).numpy(), x[[3, 120, 100]])
    batch = grown.ask(40)
    assert any(item.row >= 100 for item in batch) and learner.features.N == 100
    learner.refresh()  # another process has added the cache
    assert learner.features.N == 150 and rows(learner.ask(40)) == rows(batch)
    both = ActiveLearner.load(tmp_path / "state", memory=memory)  # from where they were
    assert both.state.settings_acts == 2 and rows(both.ask(40)) == rows(batch)
    (tmp_path / "moved").mkdir()
    a.rename(tmp_path / "moved" / "a.h5")
    with pytest.raises(UserError, match=r"a\.h5 is not there any more: say where it is now with cache=PATH"):
        ActiveLearner.load(tmp_path / "state")
    assert ActiveLearner.load(tmp_path / "state", cache=tmp_path / "moved" / "a.h5").status().items == 150


def test_pools_that_cannot_be_one(digits_arrays, tmp_path):
    x = digits_arrays[0]
    a = write(tmp_path / "a.h5", x[:50], ids=[f"a{row}" for row in range(50)])
    begun(a, folder=tmp_path / "state")
    narrow = write(tmp_path / "n.h5", x[:9, :5], ids=[f"n{row}" for row in range(9)])
    with pytest.raises(UserError, match="64 dimensions and .*n.h5 of 5: embed both with the same model"):
        ActiveLearner.load(tmp_path / "state", cache=[a, narrow])
    with pytest.raises(UserError, match=r"n\.h5 is none of the caches of this labelling state, which is about .*a\.h5"):
        ActiveLearner.load(tmp_path / "state", cache=narrow)
    again = write(tmp_path / "again.h5", x[60:70], ids=[f"a{row}" for row in range(10)])
    with pytest.raises(UserError, match="item 'a0' is there twice.*with known="):
        ActiveLearner.load(tmp_path / "state", cache=[a, again])
    assert ActiveLearner.load(tmp_path / "state").status().items == 50
    write(a, x[1:51], ids=[f"a{row}" for row in range(50)])
    with pytest.raises(UserError, match=r"a\.h5 has changed since it was labelled, so its rows may be other items"):
        ActiveLearner.load(tmp_path / "state")
    with pytest.raises(UserError, match="names no cache"):
        ActiveLearner([])


def test_without_ids_items_go_by_their_rows_and_views_are_trained_on(digits_arrays, tmp_path):
    x, y, _, _ = digits_arrays
    views = np.stack([x[:80], np.roll(x[:80], 1, 1)], 1)
    learner = begun(write(tmp_path / "v.h5", views, names=False), classes=list(range(10)))
    assert learner.features.views.shape == (80, 1, 64) and learner.features.N == 80
    items = learner.ask(30)
    assert items[0].id == str(items[0].row)
    learner.tell(items, [int(y[item.row]) for item in items])
    assert np.mean(np.array(learner.predict()) == y[:80].astype(str)) > 0.6
