"""Every rule from scikit-learn alone: a loop of one's own, and nothing of this package but the rules."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel

from alfm import stopping
from alfm.stopping.base import Rule

RULES = [one for name in stopping.__all__ if inspect.isclass(one := getattr(stopping, name)) and issubclass(one, Rule)]
RULES.remove(Rule)


@pytest.fixture(scope="module")
def rounds(digits_arrays):
    """Ten rounds of margin sampling on digits, as keyword arguments of `update`."""
    x, y, _, _ = digits_arrays
    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))
    audit, stop_set, left = order[:60], order[60:460], order[60:]
    labelled = np.concatenate([np.flatnonzero(y == c)[:2] for c in range(10)])
    new, model, told = labelled, None, []
    kernel = rbf_kernel(x[stop_set], gamma=0.1)
    nearest, gains = np.zeros(len(stop_set)), [kernel.mean(0).max()]
    for _ in range(10):
        batch = None if model is None else model.predict_proba(x[new])
        model = LogisticRegression(tol=1e-2).fit(x[labelled], y[labelled])
        free = ~np.isin(stop_set, labelled)
        nearest = np.maximum(nearest, rbf_kernel(x[new], x[stop_set], gamma=0.1).max(0))
        gains.append(np.clip(kernel - nearest, 0, None).mean(1)[free].max())
        told.append(
            {
                "predictions": np.where(free, model.predict(x[stop_set]), -1),
                "probabilities": model.predict_proba(x[stop_set[free]]),
                "batch": batch,
                "answers": y[new],
                "gains": gains,
                "audit": np.where(np.isin(audit, labelled), np.nan, model.predict(x[audit]) == y[audit]),
            }
        )
        left, gains = left[~np.isin(left, labelled)], []
        margins = np.sort(model.predict_proba(x[left]), 1)
        new = left[np.argsort(margins[:, -1] - margins[:, -2])[:20]]
        labelled = np.concatenate([labelled, new])
    return told


@pytest.mark.parametrize("kind", RULES, ids=lambda one: one.__name__)
def test_a_rule_watches_a_loop_of_scikit_learn(kind, rounds):
    """As it comes, and so lenient that it must fire."""
    rule, lenient, other = kind(), *(kind(**LENIENT[kind.__name__]) for _ in range(2))
    for shown in rounds:
        assert isinstance(rule.update(**shown), str | None)
    back = [rounds[0], *reversed(rounds[1:])]  # confidence falls, the batches' uncertainty rises
    assert any(rule.update(**shown) for rule, order in ((lenient, rounds), (other, back)) for shown in order)


LENIENT = {
    "ChangingConfidence": {"window": 1, "mode": "N"},
    "ClassificationChange": {"threshold": 0.05},
    "CoverageGain": {"threshold": 0.05},
    "DeltaF": {"threshold": 0.1},
    "Forecast": {"gain": 0.05, "ahead": 2.0, "draws": 20},
    "KappaAverage": {"threshold": 0.93},
    "KappaPairs": {"threshold": 0.93},
    "LabellingBudget": {"labels": 200},
    "MaxConfidence": {"threshold": 2.0},
    "MaxRounds": {"rounds": 10},
    "MinExpectedError": {"threshold": 0.25},
    "OverallUncertainty": {"threshold": 0.9},
    "PerformanceConvergence": {"window": 3, "threshold": 0.05},
    "SelectedAccuracy": {"threshold": 0.6},
    "TimeLimit": {"seconds": 1e-9},
    "UncertaintyConvergence": {"window": 2, "threshold": 1.0},
    "Variance": {"falls": 1, "threshold": 0.0},
}


def test_nothing_else_of_this_package_is_loaded():
    code = (
        "import sys; from alfm import stopping; stopping.KappaPairs().update(predictions=[0, 1]);"
        "print(sorted(m for m in sys.modules if m == 'torch' or m.startswith('alfm.') and 'stopping' not in m))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['alfm.errors', 'alfm.lazy', 'alfm.moved', 'alfm.options', 'alfm.version']"
