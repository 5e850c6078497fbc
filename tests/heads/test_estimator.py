"""A head by scikit-learn's rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from alfm.config.parts import from_config
from alfm.errors import UserError
from alfm.features.features import Features
from alfm.heads.adapter import Adapter
from alfm.heads.dropout import Dropout
from alfm.heads.estimator import NAMED, HeadClassifier
from alfm.heads.export import export, load_module
from alfm.heads.logistic import Logistic
from alfm.heads.propagation import Propagated

QUICK = {
    "logistic": Logistic(),
    "dropout": Dropout(max_epochs=60, p=0.25),
    "adapter": Adapter(max_epochs=60, p=0.25),
    "propagated": Propagated(Logistic(), k=5),
}


def data(n: int = 90) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    return rng.normal(size=(3, 8))[y] * 3 + rng.normal(size=(n, 8)), np.array(["b", "a", "ü"])[y]


@pytest.mark.parametrize("kind", ["logistic", *(pytest.param(k, marks=pytest.mark.slow) for k in list(QUICK)[1:])])
def test_it_passes_scikit_learns_checks(kind):
    done = check_estimator(HeadClassifier(QUICK[kind]), on_skip=None, on_fail=None)
    failed = {one["check_name"]: one["exception"] for one in done if one["status"] == "failed"}
    assert not failed, failed
    assert len(done) > 40


def test_every_name_of_a_config_is_the_same_recipe():
    for name, make in NAMED.items():
        assert vars(make()) == vars(from_config("classifier", name)) or name == "propagated"
    with pytest.raises(UserError, match="There is no classifier=logistik: did you mean logistic"):
        HeadClassifier("logistik").fit(*data())


@pytest.mark.parametrize("kind", QUICK)
def test_it_is_the_head_of_the_same_rows(kind):
    x, y = data()
    model = HeadClassifier(QUICK[kind], seed=4).fit(x, y)
    pool, codes = Features(x), torch.from_numpy(np.unique(y, return_inverse=True)[1])
    head = QUICK[kind].fit(pool, torch.arange(90)[None], codes[None], 3, [4])
    expected = head.forward(torch.from_numpy(x), 0)
    np.testing.assert_allclose(model.decision_function(x), expected, rtol=1e-9)
    np.testing.assert_allclose(model.predict_proba(x), torch.softmax(expected, 1), rtol=1e-9)
    assert model.classes_.tolist() == ["a", "b", "ü"] and model.n_features_in_ == 8
    assert (model.predict(x) == y).mean() > 0.9
    assert model.score(x, y) == (model.predict(x) == y).mean()


def test_two_classes_have_one_decision():
    x, y = data()
    model = HeadClassifier().fit(x[y != "ü"], y[y != "ü"])
    d, p = model.decision_function(x), model.predict_proba(x)
    assert d.shape == (90,)
    np.testing.assert_allclose(p[:, 1], 1 / (1 + np.exp(-d)), rtol=1e-9)


def test_it_works_where_estimators_do(tmp_path):
    x, y = data()
    grid = GridSearchCV(
        make_pipeline(StandardScaler(), HeadClassifier()),
        {"headclassifier__classifier": [Logistic(strength=0.1), "logistic"]},
        cv=3,
    ).fit(x, y)
    assert grid.best_score_ > 0.9
    assert (cross_val_predict(HeadClassifier(), x, y, cv=3) == y).mean() > 0.9
    model = clone(HeadClassifier(Logistic(strength=2.0))).fit(x.astype(np.float32), y)
    assert model.predict_proba(x).dtype == np.float32
    module, names = load_module(export(model.head_, tmp_path / "head.pt", model.classes_))
    with torch.no_grad():
        p = torch.softmax(module(torch.from_numpy(x.astype(np.float32))), 1)
    np.testing.assert_allclose(p, model.predict_proba(x), atol=1e-6)
    assert names == ["a", "b", "ü"]
