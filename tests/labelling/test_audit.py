"""The audit in a learner: what its estimates are about, and that picks know nothing of it."""

from __future__ import annotations

from collections.abc import Sequence

import h5py
import numpy as np
import pytest

import alfm
from alfm.labelling.audit import AuditReport, estimate, sample_of, seen
from alfm.labelling.estimates import advice_interval, ppi_plus_plus, price, wilson
from alfm.labelling.lamps import lamps
from alfm.learner import Learner

NAMES = [f"c{i}" for i in range(10)]


@pytest.fixture
def truth(digits_cache) -> np.ndarray:
    with h5py.File(digits_cache) as file:
        return file["train/labels"][:]


def learner_of(cache, folder=None, **options) -> alfm.ActiveLearner:
    settings = {"query_strategy": "margins", "classes": NAMES, "labels_in_cache": "ignore", "folder": folder}
    return alfm.ActiveLearner(cache, **settings | options)


def answer(learner, items: Sequence[alfm.labelling.status.Item], truth: np.ndarray) -> None:
    learner.tell(items, [NAMES[truth[item.row]] for item in items])


def play(learner, truth, rounds: int, audit: int = 0) -> list[list[int]]:
    """Rounds of ten picks, the audit answered beside them; the picks."""
    picks = []
    if audit:
        learner.audit(audit)
    for _ in range(rounds):
        batch = learner.ask(10)
        picks.append([learner.state.rows[item] for item in learner.state.batches[-1].items])
        answer(learner, batch, truth)
        answer(learner, learner.ask_audit(), truth)
    return picks


def test_picks_are_those_without_an_audit(digits_cache, truth) -> None:
    with_audit, without = learner_of(digits_cache), learner_of(digits_cache)
    assert play(with_audit, truth, 4, audit=200) == play(without, truth, 4)
    left = set(with_audit.state.window.items)
    assert len(left) == 200 and not left & {one.item for one in with_audit.state.training}


def test_the_estimate_is_about_what_the_model_was_not_trained_on(digits_cache, truth) -> None:
    """Item by item: the order without the training set, cut at the audit's size."""
    learner = learner_of(digits_cache)
    play(learner, truth, 3, audit=120)
    report, head = estimate(learner), learner.head
    trained = {one.item for one in learner.state.training}
    rest = [item for item in learner.state.items if item not in trained]
    rows = [learner.state.rows[item] for item in learner.state.window.order if item not in trained][:120]
    classes, sure = seen(learner.features, head)
    right = classes[rows] == truth[rows]
    assert (report.model, report.trained, report.N, report.m, report.right) == (3, 30, len(rest), 120, right.sum())
    every = sorted(learner.state.rows[item] for item in rest)
    assert report.estimate == ppi_plus_plus(right, sure[rows], sure[every])
    assert report.method == "PPI++" and report.look in (report.estimate.interval,)
    assert report.advice == advice_interval(right, len(rest), 3)
    assert report.value == pytest.approx((classes[every] == truth[every]).mean(), abs=0.08)
    predicted = learner.predict()
    assert [predicted[row] == NAMES[truth[row]] for row in rows] == right.tolist()


def test_an_open_batch_changes_nothing(digits_cache, truth) -> None:
    """The model of the estimate is the one that the batch was made by, until all of the batch is answered."""
    learner = learner_of(digits_cache)
    play(learner, truth, 3, audit=60)
    before = estimate(learner)
    batch = learner.ask(10)
    assert estimate(learner) == before
    answer(learner, batch[:9], truth)
    assert estimate(learner) == before
    learner.tell(batch[9:], [None])
    after = estimate(learner)
    assert (before.model, after.model, after.trained) == (3, 4, 39)


def test_answers_count_up_to_the_first_open_one(digits_cache, truth) -> None:
    learner = learner_of(digits_cache)
    play(learner, truth, 2)
    learner.audit(30)
    items = learner.ask_audit()
    answer(learner, items[:5] + items[6:20], truth)
    report = estimate(learner)
    assert (report.m, report.open) == (5, 11)
    assert report.method == "Wilson" and report.look == wilson(report.right, 5, population=report.N)
    answer(learner, items[5:6], truth)
    assert estimate(learner).m == 20


def test_skipped_items_are_counted_and_named(digits_cache, truth) -> None:
    learner = learner_of(digits_cache)
    play(learner, truth, 2)
    learner.audit(30)
    N = estimate(learner).N
    items = learner.ask_audit()
    learner.skip(items[:3])
    answer(learner, [*items[3:], *learner.ask_audit()[-3:]], truth)
    report = estimate(learner)
    assert (report.skipped, report.m, report.N, report.open) == (3, 30, N - 3, 0)
    assert "3 of the audit could not" in str(report)


def test_classes_that_no_head_knows_are_wrong(digits_cache, truth) -> None:
    learner = learner_of(digits_cache)
    play(learner, truth, 2)
    learner.audit(10)
    learner.tell(learner.ask_audit(), ["a new one"] * 10)
    assert (estimate(learner).m, estimate(learner).right) == (10, 0)


def test_what_it_says(digits_cache, truth) -> None:
    learner = learner_of(digits_cache)
    assert str(estimate(learner)) == "No estimate: there is no model yet."
    learner.audit(60)
    answer(learner, learner.ask(10), truth)
    report = estimate(learner)
    cost = price(0.05, 0.8, report.N)
    assert (report.value, report.look, report.method, report.advice) == (None, None, None, None)
    assert str(report) == (
        f"No estimate: no audit label yet for any of the {report.N} items not trained on. "
        "The audit waits for 60 labels. "
        f"If 80% are right, +-5 points cost about {cost.one_look} audit labels for one look, and {cost.advice} for "
        "advice that holds however often you look."
    )
    answer(learner, learner.ask_audit(), truth)
    said = str(estimate(learner))
    assert said.startswith("If you stop now, about ") and "60 audit labels" in said
    assert "which holds however often you look" in said and "accuracy" not in said


def test_it_goes_on_after_loading(digits_cache, truth, tmp_path) -> None:
    """All of it follows from the journal."""
    learner = learner_of(digits_cache, tmp_path / "state")
    play(learner, truth, 2, audit=60)
    again = alfm.ActiveLearner.load(tmp_path / "state")
    assert estimate(again) == estimate(learner)


def test_a_picked_item_stays_in_the_sample_of_models_before(digits_cache, truth) -> None:
    """What a later batch took from the audit belongs to what earlier models were not trained on."""
    learner = learner_of(digits_cache)
    play(learner, truth, 4, audit=300)
    rounds = learner.state.round  # more than were played where a whole batch was known from the audit
    first, last = (sample_of(learner.state, round) for round in (1, rounds))
    taken = {learner.state.rows[one.item] for one in learner.state.training if one.round > 1}
    assert len(taken) == 10 * (rounds - 1) and taken & set(first.rows.tolist())
    assert not taken & set(last.rows.tolist())
    assert len(first.rows) == len(last.rows) == 300 and len(first.rest) == len(last.rest) + len(taken)


def test_sessions_of_a_learner_hold(digits_cache, truth) -> None:
    """Several seeds through the learner itself: the look holds in most, the advice in all."""
    looks, advices = [], []
    for seed in range(4):
        learner = learner_of(digits_cache, query_strategy="random", seed=seed)
        play(learner, truth, 1, audit=100)
        report = estimate(learner)
        trained = {learner.state.rows[one.item] for one in learner.state.training}
        rest = [row for row in range(len(truth)) if row not in trained]
        share = (seen(learner.features, learner.head)[0][rest] == truth[rest]).mean()
        looks.append(share in report.look)
        advices.append(share in report.advice)
    assert sum(looks) >= 3 and all(advices)


def test_a_report_without_labels_has_no_number() -> None:
    assert "%" not in str(AuditReport(0, 0, 10, 0, 0, 0, 0, None, None))


def test_what_nobody_asked_for_is_told_and_bounds_how_far_the_estimate_is_off(digits_cache, truth) -> None:
    """Half the pool is labelled because it is easy: the audit keeps its easy items, the rest has none."""
    learner = learner_of(digits_cache)
    play(learner, truth, 2)
    learner.tell([5], [NAMES[truth[5]]])  # before there is an audit: the same as any other
    learner.audit(150)
    answer(learner, learner.ask_audit(), truth)
    assert estimate(learner).volunteered == 0 and "nobody" not in str(estimate(learner))
    asked, right = set(learner.state.once_trained), np.array(learner.predict()) == np.array(NAMES)[truth]
    easy = [row for row in np.flatnonzero(right).tolist() if learner.state.items[row] not in asked][:700]
    learner.tell(easy, [NAMES[truth[row]] for row in easy])
    report = estimate(learner)
    rest = sample_of(learner.state, learner.state.round).rest
    share = (np.array(learner.predict())[rest] == np.array(NAMES)[truth[rest]]).mean()
    assert report.volunteered == sum(learner.state.items[row] not in learner.state.window for row in easy) > 500
    assert report.advice.low > share, "so a sentence is needed"
    assert report.value - report.off <= share
    assert f"{report.volunteered} labels were of items that neither the strategy nor the audit asked for" in str(report)
    learner.audit(50)
    assert estimate(learner).volunteered == report.volunteered, "what a smaller audit gives back was asked for"


def test_a_batch_that_is_open_costs_no_fit(digits_cache, truth, monkeypatch) -> None:
    """Neither for the estimate nor, afterwards, for the batch: what was fitted is kept."""
    learner = learner_of(digits_cache)
    play(learner, truth, 3, audit=30)
    batch = learner.ask(10)
    answer(learner, batch[:4], truth)
    learner.predict()
    fits = []
    fit = Learner.fit
    monkeypatch.setattr(Learner, "fit", lambda self: fits.append(self._told) or fit(self))
    for _ in range(2):
        estimate(learner), learner.ask_audit(), learner.batch(), lamps(learner), learner.predict()
    assert not any(fits)
