"""The three lamps: when each is lit, what it says before, and that one that never was says so."""

from __future__ import annotations

from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

import alfm
from alfm.labelling.estimates import advice_interval
from alfm.labelling.lamps import Lamp, calibration, lamps, seconds_each
from alfm.stopping.learning_curve import outlook


@pytest.fixture
def truth(digits_cache) -> np.ndarray:
    with h5py.File(digits_cache) as file:
        return file["train/labels"][:]


def played(cache, truth: np.ndarray, rounds: int, batch: int, audit: int = 0) -> alfm.ActiveLearner:
    names = [str(i) for i in range(10)]
    learner = alfm.ActiveLearner(cache, query_strategy="random", classes=names, labels_in_cache="ignore")
    learner.audit(audit)
    for _ in range(rounds):
        for items in (learner.ask(batch), learner.ask_audit()):
            learner.tell(items, [str(truth[item.row]) for item in items])
    return learner


def test_they_say_not_yet_before_they_can_say_anything(digits_cache, truth) -> None:
    learner = played(digits_cache, truth, 0, 10)
    assert [lamp.on for lamp in lamps(learner)] == [None] * 3
    learner = played(digits_cache, truth, 1, 10)
    stable, advice, gain = lamps(learner)
    assert (stable.on, advice.on, gain.on) == (None, None, None)
    assert "0 of 3 pairs" in str(stable) and "No audit label yet" in str(advice) and "no curve" in str(gain)
    assert all("not yet" in str(lamp) for lamp in (stable, advice, gain))


def test_stable_is_the_mean_kappa_of_three_pairs_of_models(digits_cache, truth) -> None:
    learner = played(digits_cache, truth, 4, 30)
    stable = lamps(learner)[0]
    assert stable.on is False and str(stable).endswith("Never lit so far.")
    training = learner.training_set()
    classes = [
        head.map(learner.features, lambda _, z, rows, r: z.argmax(1))[0].numpy() for head in learner.heads(training)
    ]
    rest = np.setdiff1d(np.arange(len(truth)), training.rows)
    kappas = [cohen_kappa_score(one[rest], other[rest]) for one, other in zip(classes[:-1], classes[1:], strict=True)]
    said = float(stable.text.split("pairs ")[1].split(",")[0])
    assert said == pytest.approx(np.mean(kappas), abs=0.02)  # of a thousand of them


def test_stable_is_lit_where_nothing_changes_any_more(digits_cache, truth) -> None:
    """Many labels, then a few at a time."""
    learner = played(digits_cache, truth, 1, 600)
    for _ in range(4):
        items = learner.ask(3)
        learner.tell(items, [str(truth[item.row]) for item in items])
    stable = lamps(learner)[0]
    assert stable.on is True and stable.first in (4, 5) and f"First lit at model {stable.first}" in str(stable)
    assert "Mean confidence" in stable.text and "nothing of how many are right" in stable.text


def test_advice_is_lit_when_its_interval_is_above_the_target(digits_cache, truth) -> None:
    learner = played(digits_cache, truth, 2, 150, audit=300)
    head = learner.head
    trained = set(learner.training_set().rows)
    rows = [learner.state.rows[item] for item in learner.state.window.order]
    rows = [row for row in rows if row not in trained][:300]
    right = head.map(learner.features, lambda _, z, rows, r: z.argmax(1))[0].numpy()[rows] == truth[rows]
    interval = advice_interval(right, len(truth) - len(trained), 2)
    below, above = lamps(learner, target=interval.low - 0.001)[1], lamps(learner, target=interval.low + 0.001)[1]
    assert below.on is True and below.first in (1, 2) and str(interval) in below.text
    assert above.on is False and "audit labels in all would show it" in above.text
    assert "Never lit so far" in str(lamps(learner, target=0.9999)[1])
    assert "not reached" in lamps(learner, target=0.9999)[1].text or interval.high > 0.9999


def test_gain_asks_a_forecast_from_six_models_on(digits_cache, truth) -> None:
    asked = []

    def forecast(labels, right, more):
        asked.append((list(labels), np.shape(right), more))
        return SimpleNamespace(high=0.02 - 0.001 * labels[-1] / 10, not_yet=None, text="100 more labels: +0.5 points")

    learner = played(digits_cache, truth, 5, 20, audit=40)
    assert "5 of 6 models" in lamps(learner, forecast=forecast)[2].text and not asked
    for _ in range(2):
        items = learner.ask(20)
        learner.tell(items, [str(truth[item.row]) for item in items])
    answered = learner.ask_audit()
    learner.tell(answered, [str(truth[item.row]) for item in answered])
    measured = outlook(labels=[20, 40, 60, 80, 100, 120, 140], right=_paired(learner, truth), more=100)
    assert lamps(learner)[2].text.removeprefix("not yet: ").startswith(measured.not_yet or measured.text)
    gain = lamps(learner, forecast=forecast, worth=0.0075)[2]
    assert asked == [([20, 40, 60, 80, 100, 120, 140], (7, 40), 100), ([20, 40, 60, 80, 100, 120], (6, 40), 100)]
    assert gain.on is True and gain.first == 7 and "+0.5 points" in gain.text
    silent = lamps(learner, forecast=lambda *_: SimpleNamespace(high=0.05, not_yet="wide", text="not yet: wide"))[2]
    assert silent.on is None and "not yet: wide" in silent.text
    little = lamps(learner, forecast=lambda *_: SimpleNamespace(high=0.004, not_yet="wide", text="not yet: wide"))[2]
    assert little.on is True and "not yet" not in little.text  # unsure of how little, and sure that it is


def _paired(learner, truth) -> np.ndarray:
    """Does each round's model predict each audit item rightly? bool (T, m)."""
    rows = [learner.state.rows[item] for item in learner.state.window.items]
    heads = learner.heads(learner.training_set())
    names = np.array(learner.head_classes)
    x = learner.features.vectors(heads[0].spaces[0]).rows(torch.tensor(rows), plain=True)
    return np.stack([names[head.logits(x, 0).argmax(1).numpy()] == truth[rows].astype(str) for head in heads])


def test_a_round_of_skips_is_no_point_of_the_curve(digits_cache, truth) -> None:
    asked = []
    learner = played(digits_cache, truth, 6, 20, audit=20)
    learner.skip(learner.ask(20))
    items = learner.ask(20)
    learner.tell(items, [str(truth[item.row]) for item in items])
    learner.tell(audit := learner.ask_audit(), [str(truth[item.row]) for item in audit])
    silent = SimpleNamespace(high=0.0, not_yet="wide", text="not yet: wide")
    lamps(learner, forecast=lambda labels, *_: asked.append(list(labels)) or silent)
    assert asked and all((np.diff(labels) > 0).all() for labels in asked)
    assert lamps(learner)[2].text


def test_pace() -> None:
    times = [f"2026-01-01T10:{minute:02}:{second:02}+00:00" for minute in (0, 30) for second in range(0, 60, 4)]
    assert seconds_each(times) == 4 and seconds_each(times[:10]) is None  # the half hour is a pause
    assert seconds_each(times[:1] * 40) is None  # all at once: from a file


def test_calibration_finds_the_temperature() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4000, 5)) * 2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = np.array([rng.choice(5, p=own) for own in p])
    assert calibration(logits / 3, targets) == pytest.approx(3, rel=0.1)


def test_a_lamp_that_never_was_lit_says_so() -> None:
    assert str(Lamp("stable", False, "So far.")) == "stable: off. So far. Never lit so far."
    assert str(Lamp("stable", False, "Now.", 4)) == "stable: off. Now. First lit at model 4."
