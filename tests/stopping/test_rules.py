"""Every rule on a history written by hand: in which round it stops, and what it cannot be told."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score

from alfm import stopping
from alfm.config.paths import conf_dir
from alfm.errors import UserError
from alfm.stopping.agreement import change_of_f, kappa
from alfm.stopping.base import Rule, entropy

RULES = {name: getattr(stopping, name) for name in stopping.__all__ if inspect.isclass(getattr(stopping, name))}
RULES = {name: kind for name, kind in RULES.items() if issubclass(kind, Rule) and kind is not Rule}


def stops(rule: Rule, **history) -> list[int]:
    """The rounds, from 1 on, in which the rule says stop; histories: one entry a round, None for a round without."""
    rounds = max(map(len, history.values()))
    found = []
    for t in range(rounds):
        if rule.update(**{name: values[t] for name, values in history.items()}) is not None:
            found.append(t + 1)
    return found


def sure(*confidences: float) -> list[np.ndarray]:
    """For each round one item of two classes with this largest probability."""
    return [np.array([[c, 1 - c]]) for c in confidences]


# five items; models 2 and 3 change one, the others none
A, B, C = [0, 0, 1, 1, 2], [0, 1, 1, 1, 2], [0, 1, 1, 2, 2]
MODELS = [A, B, C, C, C, C, C]
# kappa(A, B): 4 of 5 agree; chance (2*1 + 2*3 + 1*1) / 25 = 0.36 -> (0.8 - 0.36) / 0.64 = 0.6875
# kappa(B, C): 4 of 5 agree; chance (1*1 + 3*2 + 1*2) / 25 = 0.36 -> 0.6875
# kappa(A, C): 3 of 5 agree; chance (2*1 + 2*2 + 1*2) / 25 = 0.32 -> 0.28 / 0.68


def test_kappa():
    assert kappa(np.array(A), np.array(B)) == pytest.approx(0.6875) == cohen_kappa_score(A, B)
    assert kappa(np.array(A), np.array(C)) == pytest.approx(0.28 / 0.68) == cohen_kappa_score(A, C)
    assert kappa(np.array([3, 3]), np.array([3, 3])) == 1.0  # 0 / 0 by the formula
    assert kappa(np.array([3, 3]), np.array([1, 1])) == 0.0


def test_kappa_average():
    """Kappas 0.6875, 0.6875, 1, 1, 1, 1 from round 2 on; three of them from round 4 on."""
    assert stops(stopping.KappaAverage(), predictions=MODELS) == [6, 7]
    assert stops(stopping.KappaAverage(threshold=0.79), predictions=MODELS) == [4, 5, 6, 7]  # mean (0.6875 * 2 + 1) / 3
    assert stops(stopping.KappaAverage(threshold=0.80), predictions=MODELS) == [5, 6, 7]
    assert stops(stopping.KappaAverage(window=1), predictions=MODELS) == [4, 5, 6, 7]


def test_kappa_pairs():
    """All pairs of the last three: round 3: 0.6875, 0.6875, 0.4118; round 4: 0.6875, 0.6875, 1; round 5: all 1."""
    assert stops(stopping.KappaPairs(), predictions=MODELS) == [5, 6, 7]
    assert stops(stopping.KappaPairs(threshold=0.59), predictions=MODELS) == [3, 4, 5, 6, 7]  # mean 0.5956
    assert stops(stopping.KappaPairs(threshold=0.6), predictions=MODELS) == [4, 5, 6, 7]
    assert stops(stopping.KappaPairs(window=2), predictions=MODELS) == [4, 5, 6, 7]


def test_classification_change():
    assert stops(stopping.ClassificationChange(), predictions=MODELS) == [4, 5, 6, 7]
    assert stops(stopping.ClassificationChange(threshold=0.2), predictions=MODELS) == [2, 3, 4, 5, 6, 7]  # 1 of 5
    assert stops(stopping.ClassificationChange(threshold=0.19), predictions=MODELS) == [4, 5, 6, 7]


def test_delta_f():
    """A to B, by class: 1 - 2/3, 1 - 4/5, 1 - 2/2, so 0.1778; B to C: 0, 1 - 4/5, 1 - 2/3, the same."""
    a, b = np.array(A), np.array(B)
    assert change_of_f(a, b) == pytest.approx((1 / 3 + 1 / 5 + 0) / 3) == 1 - f1_score(A, B, average="macro")
    assert change_of_f(a, b, positive=1) == pytest.approx(0.2)
    assert change_of_f(a, b, positive=7) == 0.0  # predicted by neither
    assert change_of_f(np.array([0, 4]), np.array([0, 4])) == 0.0  # classes 1 to 3 do not count
    assert stops(stopping.DeltaF(), predictions=MODELS) == [6, 7]
    assert stops(stopping.DeltaF(threshold=0.178), predictions=MODELS) == [4, 5, 6, 7]
    assert stops(stopping.DeltaF(positive=0, threshold=0.1), predictions=MODELS) == [5, 6, 7]  # 1/3, 0, 0, 0, ...


def test_items_that_were_labelled_meanwhile_are_left_out():
    """Item 2 changes in every round until it is labelled; then nothing does."""
    rounds = [[0, 1, 0], [0, 1, 1], [0, 1, -1], [0, 1, -1]]
    assert stops(stopping.ClassificationChange(), predictions=rounds) == [3, 4]
    assert stops(stopping.KappaPairs(), predictions=rounds) == [3, 4]  # all three models on the two items left
    assert stops(stopping.KappaAverage(window=2), predictions=rounds) == [4]  # round 2's kappa was of three items
    assert stops(stopping.ClassificationChange(), predictions=[[-1], [-1]]) == []  # nothing left: nothing said
    assert stops(stopping.KappaPairs(), predictions=[[-1]] * 5) == []
    empty = [np.empty((0, 2))] * 5
    for kind in ("OverallUncertainty", "ChangingConfidence", "MinExpectedError", "PerformanceConvergence"):
        assert stops(RULES[kind](), probabilities=empty) == []


def test_overall_uncertainty():
    """H(0.9, 0.1) / log 2 = 0.4690, of 0.99 0.0808, of 0.995 0.0454."""
    history = sure(0.9, 0.99, 0.995)
    assert entropy(history[0])[0] / np.log(2) == pytest.approx(0.4690, abs=1e-4)
    assert stops(stopping.OverallUncertainty(), probabilities=history) == [3]
    assert stops(stopping.OverallUncertainty(threshold=0.1), probabilities=history) == [2, 3]
    certain = [np.array([[1.0, 0.0, 0.0]])]
    assert stops(stopping.OverallUncertainty(), probabilities=certain) == [1]


def test_changing_confidence():
    history = sure(0.6, 0.9, 0.8, 0.7, 0.85, 0.85, 0.85, 0.85, 0.85)
    # D: rounds 3, 4, 5 are below round 2; later windows are not all below the one before them
    assert stops(stopping.ChangingConfidence(), probabilities=history) == [5]
    # N: the same, and the plateau: rounds 6, 7, 8 are not above round 5
    assert stops(stopping.ChangingConfidence(mode="N"), probabilities=history) == [5, 8, 9]
    assert stops(stopping.ChangingConfidence(window=1), probabilities=history) == [3, 4]


def test_max_confidence():
    """The largest entropy of the batch, not its mean."""
    unsure = np.array([[1.0, 0.0], [0.9999, 0.0001]])  # 0.00102
    surer = np.array([[1.0, 0.0], [0.99992, 0.00008]])  # 0.00083
    history = [None, unsure, surer]
    assert stops(stopping.MaxConfidence(), batch=history) == [3]
    assert stops(stopping.MaxConfidence(threshold=0.01), batch=history) == [2, 3]


def test_min_expected_error():
    assert stops(stopping.MinExpectedError(), probabilities=sure(0.9, 0.999, 0.9995)) == [3]
    assert stops(stopping.MinExpectedError(threshold=0.2), probabilities=sure(0.7, 0.9)) == [2]


def test_selected_accuracy():
    """Nine of ten is not more than 0.9; what the model before predicted counts, so the first round says nothing."""
    batch = np.tile([0.8, 0.2], (10, 1))
    nine, ten = [0] * 9 + [1], [0] * 10
    history = {"batch": [None, batch, batch, batch], "answers": [ten, nine, ten, nine]}
    assert stops(stopping.SelectedAccuracy(), **history) == [3]
    assert stops(stopping.SelectedAccuracy(threshold=0.89), **history) == [2, 3, 4]


def test_performance_convergence():
    """Windows of two: the mean rises by half of what the last value is above the one two before it."""
    history = sure(0.5, 0.6, 0.69, 0.6901, 0.69012, 0.69012, 0.7)
    # rises: 0.095, 0.04505, 0.00006, 0.00001 (no new maximum), 0.00494
    assert stops(stopping.PerformanceConvergence(window=2), probabilities=history) == []
    assert stops(stopping.PerformanceConvergence(window=2, threshold=1e-4), probabilities=history) == [5]
    assert stops(stopping.PerformanceConvergence(window=2, threshold=0.01), probabilities=history) == [5, 7]
    assert stops(stopping.PerformanceConvergence(), probabilities=sure(*np.linspace(0.6, 0.6004, 11))) == [11]  # 4e-5


def test_uncertainty_convergence():
    """Median over three of each batch's smallest entropy, from the second round on."""

    def batches(*smallest):
        probabilities = [1 - s for s in smallest]
        return [None, *(np.array([[p, 1 - p], [0.5, 0.5]]) for p in probabilities)]

    history = batches(0.10, 0.20, 0.3, 0.29, 0.301)
    # smallest entropies 0.3251, 0.5004, 0.6109, 0.6022, 0.6118; medians from round 4 on: 0.5004, 0.6022, 0.6109
    assert stops(stopping.UncertaintyConvergence(window=3), batch=history) == []
    assert stops(stopping.UncertaintyConvergence(window=3, threshold=0.01), batch=history) == [6]
    assert stops(stopping.UncertaintyConvergence(window=3, threshold=0.5), batch=history) == [6]  # round 5: no maximum


def test_variance():
    """Variances of 1 - the largest probability of two items: a quarter of the squared difference."""

    def batch(gap):
        return np.array([[0.9, 0.1], [0.9 - gap, 0.1 + gap]])

    history = [None, batch(0.3), batch(0.2), batch(0.25), batch(0.2), batch(0.1), batch(0.09)]
    # from round 2 on: 0.0225, 0.01, 0.0156, 0.01, 0.0025, 0.0020
    assert stops(stopping.Variance(), batch=history) == [6]
    assert stops(stopping.Variance(threshold=0.0), batch=history) == [6, 7]
    assert stops(stopping.Variance(falls=1), batch=history) == [3, 5, 6]


def test_coverage_gain():
    history = [[0.5, 0.1, 0.04], 0.01, 0.0006, 0.00049]
    assert stops(stopping.CoverageGain(), gains=history) == [4]
    assert stops(stopping.CoverageGain(threshold=0.05), gains=history) == [2, 3, 4]
    assert stops(stopping.CoverageGain(), gains=[0.0]) == [1]  # nothing to cover


def test_counts_and_time():
    answers = [[0, 1], [0, 1], [0, 1]]
    assert stops(stopping.MaxRounds(rounds=2), answers=answers) == [2, 3]
    assert stops(stopping.LabellingBudget(labels=4), answers=answers) == [2, 3]
    assert stops(stopping.LabellingBudget(labels=4), answers=answers, paid=[4, 5, 6]) == [1, 2, 3]
    assert stops(stopping.TimeLimit(seconds=5), seconds=[2.0, 2.0, 1.0]) == [3]
    assert stops(stopping.TimeLimit(seconds=1e6), answers=answers) == []  # by the clock


# ---- what cannot be told ---------------------------------------------------------------------------------------------


def test_options_go_by_name_and_the_wrong_one_is_refused():
    """A mode that got the threshold, and a rule that never fires for it, is what positions make possible."""
    with pytest.raises(TypeError):
        stopping.ChangingConfidence(0.99, 3)
    with pytest.raises(UserError, match="ChangingConfidence mode=0.99: D or N"):
        stopping.ChangingConfidence(mode=0.99)
    for kind in RULES.values():
        names = [name for name in inspect.signature(kind).parameters]
        assert all(p.kind is p.KEYWORD_ONLY for p in inspect.signature(kind).parameters.values())
        for name in names:
            for wrong in ("D N", -1, float("nan"), 1e300, [0.9]):
                with pytest.raises(UserError, match=f"{kind.__name__} {name}="):
                    kind(**{name: wrong})


@pytest.mark.parametrize(
    ("rule", "told", "sentence"),
    [
        ("KappaPairs", {}, "KappaPairs.update needs predictions= in every round"),
        ("KappaPairs", {"predictions": np.eye(3)}, "an array of class numbers"),
        ("KappaPairs", {"predictions": [0.5, 1.0]}, "an array of class numbers"),
        ("OverallUncertainty", {"probabilities": [0, 1, 1]}, "probabilities .m, C. of two classes"),
        ("OverallUncertainty", {"probabilities": [[3.0, -1.0]]}, "sum to 1; take the softmax"),
        ("OverallUncertainty", {"probabilities": [[0.2, 0.2]]}, "sum to 1"),
        ("OverallUncertainty", {"probabilities": [[np.nan, 1.0]]}, "sum to 1"),
        ("SelectedAccuracy", {"batch": [[0.5, 0.5]]}, "needs answers="),
        ("SelectedAccuracy", {"batch": [[0.5, 0.5]], "answers": [0, 1]}, "1 items and answers= 2"),
        ("LabellingBudget", {}, "needs answers="),
        ("CoverageGain", {}, "needs gains="),
        ("Forecast", {"answers": [0], "audit": [0.7]}, "1 for an item predicted rightly"),
    ],
)
def test_what_cannot_be_what_its_name_says_is_refused(rule, told, sentence):
    with pytest.raises(UserError, match=sentence):
        RULES[rule]().update(**told)


@pytest.mark.parametrize("rule", ["MaxConfidence", "SelectedAccuracy", "UncertaintyConvergence", "Variance"])
def test_a_rule_that_looks_at_batches_must_be_told_them_from_the_second_round_on(rule):
    made = RULES[rule]()
    assert made.update(answers=[0]) is None
    with pytest.raises(UserError, match=f"{rule}.update needs batch="):
        made.update(answers=[0])


def test_the_stop_set_stays_the_same():
    rule = stopping.DeltaF()
    rule.update(predictions=[0, 1, 2])
    with pytest.raises(UserError, match="has 2 items and had 3"):
        rule.update(predictions=[0, 1])


def test_every_rule_has_a_config_and_every_config_a_rule():
    targets = [
        path.read_text().partition("_target_: ")[2].split()[0] for path in (conf_dir() / "stopping").glob("*.yaml")
    ]
    assert sorted(target.rpartition(".")[2] for target in targets) == sorted(RULES)
