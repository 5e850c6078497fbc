"""Labels that are contradicted: the rule against a plain version, and planted mistakes found."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

import alfm
from alfm.heads.dropout import Dropout
from alfm.heads.logistic import Logistic
from alfm.labelling.disputed import contradicted, disputed, folds_of, out_of_fold
from alfm.streams import integer


def plain(probabilities: np.ndarray, given: np.ndarray) -> list[bool]:
    """Item by item and class by class, as the paper says it."""
    n, C = probabilities.shape
    usual = {}
    for j in range(C):
        of_j = [probabilities[i, j] for i in range(n) if given[i] == j]
        if of_j:
            usual[j] = sum(of_j) / len(of_j)
    joint = [[0] * C for _ in range(C)]
    for i in range(n):
        candidates = [j for j in usual if probabilities[i, j] >= usual[j]]
        if candidates:
            joint[given[i]][max(candidates, key=lambda j: probabilities[i, j])] += 1
    disputed = [False] * n
    for c in range(C):
        joint[c][c] = max(joint[c][c], 1)
        own = sorted((i for i in range(n) if given[i] == c), key=lambda i: probabilities[i, c])
        for i in own[: round(len(own) * (1 - joint[c][c] / sum(joint[c])))]:
            disputed[i] = probabilities[i].argmax() != c
    return disputed


@pytest.mark.parametrize("C", [2, 5, 30])
def test_the_rule_is_the_published_one(C: int) -> None:
    rng = np.random.default_rng(C)
    given = rng.integers(0, max(C - 1, 2), 300)
    probabilities = rng.dirichlet(np.ones(C), 300)
    probabilities[np.arange(300), given] += rng.random(300)
    probabilities /= probabilities.sum(1, keepdims=True)
    assert contradicted(probabilities, given).tolist() == plain(probabilities, given)


def test_a_hand_made_case() -> None:
    """Thresholds 0.7 and 0.6: the third item is called 0 and counts as 1, so that one of three 0 is wrong; the last
    counts as nothing."""
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.39, 0.61], [0.35, 0.65], [0.45, 0.55]])
    assert contradicted(p, np.array([0, 0, 0, 1, 1])).tolist() == [False, False, True, False, False]
    assert contradicted(np.empty((0, 2)), np.empty(0, np.int64)).tolist() == []


def test_folds_hold_equally_many_of_each_class() -> None:
    given = np.repeat([0, 1, 2, 3], [50, 13, 5, 2])
    fold = folds_of(given, 5, seed=3)
    counts = np.array([np.bincount(fold[given == c], minlength=5) for c in range(4)])
    assert (counts.max(1) - counts.min(1) <= 1).all() and np.ptp(counts.sum(0)) == 0
    assert (fold == folds_of(given, 5, seed=3)).all() and (fold != folds_of(given, 5, seed=4)).any()


@pytest.mark.parametrize("classifier", [Logistic(), Dropout(max_epochs=20)], ids=["logistic", "dropout"])
def test_no_head_has_seen_the_item(digits_task, classifier) -> None:
    """Folds side by side are the folds one by one, and each is a head fitted without its items."""
    rows = torch.arange(60)
    targets = digits_task.labels[rows]
    together, judged = out_of_fold(digits_task.pool, rows, targets, 10, classifier, seed=1)
    fold = folds_of(targets.numpy(), 5, 1)
    assert judged.all() and np.allclose(together.sum(1), 1)
    other = targets.clone()
    other[torch.from_numpy(fold == 2)] = (other[torch.from_numpy(fold == 2)] + 1) % 10  # its own labels do not matter
    k = torch.from_numpy(fold != 2)
    alone = classifier.fit(digits_task.pool, rows[k][None], targets[k][None], 10, [integer(1, 2, "fold")])
    held = rows[~k]
    logits = alone.logits(digits_task.pool.vectors(alone.spaces[0]).rows(held), 0)
    assert np.allclose(together[fold == 2], torch.softmax(logits.double(), 1).numpy(), atol=1e-5)


def test_classes_with_fewer_labels_than_folds(digits_task) -> None:
    """One label: no head without it knows the class, so nobody disputes it. Two: one helps to judge the other."""
    labels = digits_task.labels
    rows = torch.cat([(labels == c).nonzero()[:n, 0] for c, n in [(0, 12), (1, 12), (2, 2), (3, 1)]])
    _, judged = out_of_fold(digits_task.pool, rows, labels[rows], 10, Logistic())
    assert judged[:26].all() and not judged[26]
    for few in ([0], [0, 0, 0], [0, 1]):  # one class, or none that is left without an item
        p, judged = out_of_fold(digits_task.pool, torch.arange(len(few)), torch.tensor(few), 2, Logistic())
        assert not judged.any() and p.shape == (len(few), 2)


def learner_of(cache, wrong: dict[int, int], n: int = 300) -> alfm.ActiveLearner:
    """The first n items are labelled, some wrongly."""
    learner = alfm.ActiveLearner(cache, query_strategy="margins", labels_in_cache="ignore")
    learner.tell(range(n), [str(wrong.get(row, int(label))) for row, label in enumerate(truth_of(cache)[:n])])
    return learner


def truth_of(cache) -> np.ndarray:
    with h5py.File(cache) as file:
        return file["train/labels"][:]


def test_planted_mistakes_are_found_first(digits_cache) -> None:
    """Ten of 300 labels are wrong: most of them are disputed, they stand first, and the suggestion is the truth."""
    truth = truth_of(digits_cache)
    planted = {row: (int(truth[row]) + 3) % 10 for row in range(5, 300, 30)}
    found = disputed(learner_of(digits_cache, planted))
    items = [int(one.item) for one in found]
    assert len(set(items) & set(planted)) >= 8 and len(set(items[:10]) & set(planted)) >= 7
    right = [one.suggestion == str(truth[int(one.item)]) for one in found if int(one.item) in planted]
    assert sum(right) >= 7 and all(one.suggestion != one.label for one in found)
    assert [one.probability for one in found] == sorted(one.probability for one in found)
    assert len(disputed(learner_of(digits_cache, {}))) < len(found)


def test_audit_labels_are_not_offered(digits_cache) -> None:
    """Corrected only where the model disagrees, they would flatter it."""
    learner = learner_of(digits_cache, {}, 100)
    learner.audit(50)
    learner.tell(items := learner.ask_audit(), ["0"] * 50)
    assert len(items) == 50 and not {item.id for item in items} & {one.item for one in disputed(learner)}


def test_nothing_is_disputed_before_there_is_something_to_say(digits_cache) -> None:
    assert disputed(learner_of(digits_cache, {}, 0)) == []
    assert disputed(learner_of(digits_cache, dict.fromkeys(range(20), 1), 20)) == []
