"""One batch from arrays: what each strategy works from, and that nothing else is used without a word."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

import alfm
from alfm.config.parts import from_config
from alfm.config.paths import conf_dir
from alfm.errors import UserError
from alfm.features.features import Features
from alfm.features.spaces import RAW
from alfm.heads.estimator import HeadClassifier
from alfm.heads.linear import LinearHead
from alfm.heads.logistic import Logistic
from alfm.learner import Learner
from alfm.one_shot.select_batch import WOULD_DO, select_batch, strategy_of
from alfm.posteriors import Ensemble
from alfm.strategies.ask import ask
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query, stack_picks

N, D, C, M = 90, 6, 4, 12

TABLE = {  # what each works from, beside labels where it says so
    "random": "",
    "coreset": "features", "facility_location": "features", "graph_cut": "features", "log_det": "features",
    "maxherding": "features", "probcover": "features", "typiclust": "features",
    "vaal": "features labels",
    "entropy": "probabilities", "falcun": "probabilities", "margins": "probabilities",
    "powerentropy": "probabilities", "powermargins": "probabilities", "uncertainty": "probabilities",
    "cluster_margin": "features probabilities", "tcm": "features probabilities", "uherding": "features probabilities",
    "dcom": "features probabilities labels",
    "filtered": "features probabilities embedding", "switched": "features probabilities embedding labels",
    "pcoreset": "probabilities labels",
    "cog": "embedding",
    "badge": "embedding probabilities", "clue": "embedding probabilities", "vessal": "embedding probabilities",
    "bait": "embedding probabilities labels", "cal": "embedding probabilities labels",
    "bald": "draws", "batchbald": "draws", "dbal": "draws", "epig": "draws", "powerbald": "draws", "qbc": "draws",
    "alfamix": "head labels", "dropquery": "head", "parbals_epig": "head labels",
    "boss": "hidden labels",
}  # fmt: skip
SCORES = {
    "bald", "cal", "cog", "dbal", "entropy", "margins", "powerbald", "powerentropy", "powermargins", "qbc",
    "uncertainty", "vaal",
}  # fmt: skip
COLD = {name for name, needs in TABLE.items() if set(needs.split()) <= {"features"}} | {
    "filtered",
    "switched",
    "tcm",
    "uherding",
}
USABLE = [name for name in TABLE if name != "boss"]


@pytest.fixture(scope="module")
def data():
    """Features, classes, labels of which 14 are known, probabilities of M draws (M, N, C)."""
    rng = np.random.default_rng(1)
    y = np.concatenate([np.arange(C), np.arange(C), rng.integers(C, size=N - 2 * C)])
    x = (2 * rng.normal(size=(C, D))[y] + rng.normal(size=(N, D))).astype(np.float32)
    labels = np.where(np.isin(np.arange(N), [*range(8), *rng.choice(np.arange(8, N), 6, replace=False)]), y, -1)
    z = 2 * rng.normal(size=(N, C)) + rng.normal(size=(M, N, C))
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    return x, y, labels, p


@pytest.fixture
def no_head(monkeypatch):
    def fit(*args, **kwargs):
        raise AssertionError("a head of ours was fitted")

    monkeypatch.setattr(Logistic, "fit", fit)
    monkeypatch.setattr(Logistic, "fit_reweighted", fit)


def sound(picks: np.ndarray, labels: np.ndarray, n: int) -> None:
    assert picks.dtype == np.int64 and picks.shape == (n,) and len(set(picks.tolist())) == n
    assert (labels[picks] == -1).all()


TRIED: dict[object, set[str]] = defaultdict(set)


def would_do(error: UserError) -> list[str]:
    """The strategies that a refusal names."""
    return str(error).split("without, ")[1].removesuffix(" would do.").replace(" or ", ", ").split(", ")


def test_the_table_names_every_strategy():
    assert {*TABLE, "replay"} == {path.stem for path in (conf_dir() / "query_strategy").glob("*.yaml")}
    for name, words in TABLE.items():
        strategy = strategy_of(name)
        assert strategy.oracle == (words == "hidden labels")
        if not strategy.oracle:
            assert set(strategy.needs) == set(words.split()), name
        assert callable(getattr(strategy, "score", None)) == (name in SCORES), name


def test_options_change_what_a_strategy_works_from():
    def needs(name, **options):
        return set(from_config("query_strategy", name, **options).needs)

    assert needs("margins", cluster_features=True) == {"probabilities", "features"}
    assert needs("entropy", enable_dropout=True) == needs("dbal") == {"draws"}
    assert needs("bald", cluster_features=True) == {"draws", "features"}
    assert needs("coreset", space="head") == {"embedding"}
    assert needs("cog", per_class=True) == {"embedding", "probabilities"}
    assert strategy_of("centroid").needs == ("features",)


@pytest.mark.parametrize("name", USABLE)
def test_with_a_head_of_ours_picks_are_the_learners(name, data):
    x, y, labels, _ = data
    picks = select_batch(x, labels, 7, name, seed=3)
    learner = Learner(
        Features(x), seeds=[3], query_strategy=strategy_of(name), init_strategy=strategy_of("random"),
        classifier=from_config("classifier", "logistic"),
    )  # fmt: skip
    rows = np.flatnonzero(labels >= 0)
    learner.tell(rows[None], labels[rows][None])
    assert picks.tolist() == learner.ask(7)[0].tolist()
    sound(picks, labels, 7)


@pytest.mark.parametrize("name", USABLE)
def test_without_labels(name, data):
    x = data[0]
    if name in COLD:
        learner = Learner(
            Features(x), seeds=[2], query_strategy=strategy_of("margins"), init_strategy=strategy_of(name),
            classifier=Logistic(),
        )  # fmt: skip
        assert select_batch(x, None, 5, name, seed=2).tolist() == learner.ask(5)[0].tolist()
        return
    with pytest.raises(UserError, match=f"^{name} works from (predictions|labelled rows)") as said:
        select_batch(x, None, 5, name)
    if name == "margins":
        for alternative in would_do(said.value):
            assert len(select_batch(x, None, 5, alternative)) == 5


@pytest.mark.parametrize("given", ["(N, C)", "(M, N, C)", "scikit-learn"])
@pytest.mark.parametrize("name", USABLE)
def test_with_a_model_from_elsewhere(name, given, data, no_head):
    """No head of ours is fitted; what is missing is named; what would do does."""
    x, _, labels, p = data
    needs = set(TABLE[name].split())
    other = {"probabilities": p if given == "(M, N, C)" else p[0]}
    missing = {"head"} | (set() if given == "(M, N, C)" else {"draws"})
    if given == "scikit-learn":
        other, missing = {"classifier": LogisticRegression()}, {"head", "draws", "embedding"}
    lacking = needs & missing
    if lacking:
        with pytest.raises(UserError, match=f"^{name} works from .* would do.$") as said:
            select_batch(x, labels, 6, name, **other)
        for alternative in set(would_do(said.value)) - TRIED[given]:
            sound(select_batch(x, labels, 6, alternative, **other), labels, 6)
            TRIED[given].add(alternative)
        return
    picks = select_batch(x, labels, 6, name, **other)
    sound(picks, labels, 6)
    assert picks.tolist() == select_batch(x, labels, 6, name, **other).tolist()


@pytest.mark.parametrize("name", USABLE)
def test_without_features_or_without_labels_beside_probabilities(name, data, no_head):
    _, _, labels, p = data
    needs = set(TABLE[name].split())
    for x, given in ((None, labels), (data[0], None)):
        lacking = needs & ({"head"} | ({"features", "embedding"} if x is None else {"labels"}))
        if not lacking:
            sound(select_batch(x, given, 6, name, probabilities=p), labels if x is None else np.full(N, -1), 6)
            continue
        with pytest.raises(UserError, match=f"^{name} works from") as said:
            select_batch(x, given, 6, name, probabilities=p)
        for alternative in set(would_do(said.value)) - TRIED[x is None]:
            assert len(select_batch(x, given, 6, alternative, probabilities=p)) == 6
            TRIED[x is None].add(alternative)


@pytest.mark.parametrize("name", [n for n in USABLE if set(TABLE[n].split()) & {"probabilities", "embedding"}])
def test_probabilities_of_a_linear_head_give_that_heads_picks(name, data):
    """What a real head on the embedding would have been asked, in float64; and that of M draws the mean counts."""
    x, _, labels, _ = data
    x = x.astype(np.float64)
    rng = np.random.default_rng(5)
    weight, bias = torch.from_numpy(rng.normal(size=(1, C, D))), torch.from_numpy(rng.normal(size=(1, C)))
    pool, rows = Features(x), torch.from_numpy(np.flatnonzero(labels >= 0))[None]
    head = LinearHead([RAW], weight, bias)
    p = torch.softmax(head.forward(pool.features, 0), 1)
    query = Query(pool, rows, torch.from_numpy(labels)[rows], torch.from_numpy(labels < 0)[None], C, [3], 2, head, None)
    expected = ask(strategy_of(name), query, 6)[0][0].tolist()
    assert select_batch(x, labels, 6, name, probabilities=p, seed=3).tolist() == expected
    step = 0.5 * p.amin(1, keepdim=True) * torch.tensor([1.0, -1.0, 0.0, 0.0])
    draws = torch.stack([p + step, p - step])
    assert select_batch(x, labels, 6, name, probabilities=draws, seed=3).tolist() == expected


@pytest.mark.parametrize("name", ["bald", "batchbald", "epig", "qbc", "powerbald", "dbal"])
def test_draws_of_an_ensemble_give_the_ensembles_picks(name, data):
    """The draws of a posterior of ours, handed over as probabilities, stand for it."""
    x, _, labels, _ = data
    x = x.astype(np.float64)
    rows = torch.from_numpy(np.flatnonzero(labels >= 0))[None]
    targets, pool = torch.from_numpy(labels)[rows], Features(x)
    head = Logistic().fit(pool, rows, targets, C, [3], 1)
    draws = Ensemble(passes=M).bind(pool, head, Logistic(), rows, targets, [3], 2)
    p = torch.softmax(draws.logits(slice(0, N), pool.features, 0), 2)
    strategy = strategy_of(name).varied(posterior=Ensemble(passes=M))
    expected = select_batch(x, labels, 6, strategy, seed=3)
    assert select_batch(None, labels, 6, name, probabilities=p, seed=3).tolist() == expected.tolist()


def test_margins_against_plain_numpy(data):
    _, _, labels, p = data
    top = np.sort(p[0], 1)
    margin = np.where(labels == -1, top[:, -1] - top[:, -2], np.inf)
    picks, scores = select_batch(None, labels, 9, "margins", probabilities=p[0], return_scores=True)
    assert picks.tolist() == np.argsort(margin, kind="stable")[:9].tolist()
    np.testing.assert_allclose(scores, np.where(labels == -1, 1 - margin, np.nan), rtol=1e-9)
    mean = np.sort(p.mean(0), 1)
    expected = np.argsort(np.where(labels == -1, mean[:, -1] - mean[:, -2], np.inf), kind="stable")[:9]
    assert select_batch(None, labels, 9, "margins", probabilities=p).tolist() == expected.tolist()


@pytest.mark.parametrize("name", USABLE)
def test_scores_are_given_where_a_strategy_is_one(name, data):
    x, _, labels, _ = data
    if name not in SCORES:
        with pytest.raises(UserError, match=f"^{name} gives items no score"):
            select_batch(x, labels, 4, name, return_scores=True)
        return
    mask = np.arange(N) % 2 == 0
    picks, scores = select_batch(x, labels, 8, name, return_scores=True, candidates=mask)
    assert scores.shape == (N,) and (np.isnan(scores) == ((labels >= 0) | ~mask)).all()
    best = np.sort(scores[~np.isnan(scores)])[::-1][:8]
    np.testing.assert_array_equal(scores[picks], best)  # best first
    assert picks.tolist() == select_batch(x, labels, 8, name, candidates=np.flatnonzero(mask)).tolist()


@pytest.mark.parametrize("name", USABLE)
def test_candidates_limit_what_is_picked(name, data):
    x, _, labels, _ = data
    some = np.flatnonzero(labels == -1)[5:17]
    picks = select_batch(x, labels, 30, name, candidates=some)
    assert sorted(picks.tolist()) == sorted(some.tolist())  # all that there is
    four = select_batch(x, labels, 4, name, candidates=some)
    assert len(four) == 4 and set(four.tolist()) <= set(some.tolist())


def forms(labels: np.ndarray, names: list[str]) -> dict[str, object]:
    """The same labels in every way people write them."""
    known = [None if c == -1 else names[c] for c in labels]
    numbers = [None if c == -1 else int(c) for c in labels]
    return {
        "ints": labels,
        "list": labels.tolist(),
        "float with NaN": np.where(labels == -1, np.nan, labels),
        "float list": [float("nan") if c == -1 else float(c) for c in labels],
        "None": numbers,
        "object, mixed": np.array([[None, float("nan"), -1, pd.NA, ""][i % 5] if c is None else c
                                   for i, c in enumerate(numbers)], object),
        "tensor": torch.from_numpy(labels),
        "series": pd.Series(numbers, dtype="Int64"),
        "names": known,
        "names, mixed": [[None, float("nan"), -1, pd.NA, ""][i % 5] if c is None else c for i, c in enumerate(known)],
        "names as NumPy spells them": np.array([-1 if c is None else c for c in known]),
        "names with NaN as NumPy spells them": np.array([np.nan if c is None else c for c in known]),
        "categories": pd.Series(known, dtype="category"),
    }  # fmt: skip


def test_labels_as_people_write_them(data):
    x, _, labels, _ = data
    expected = select_batch(x, labels, 6, "margins").tolist()
    for form, given in forms(labels, ["ant", "bee", "cat", "dog"]).items():
        assert select_batch(x, given, 6, "margins").tolist() == expected, form
        p = select_batch(x, given, 6, "margins", classifier=LogisticRegression()).tolist()
        assert p == select_batch(x, labels, 6, "margins", classifier=LogisticRegression()).tolist(), form


def test_features_as_people_hold_them(data):
    x, _, labels, _ = data
    expected = select_batch(x, labels, 6, "typiclust").tolist()
    read_only = x.copy()
    read_only.setflags(write=False)
    given = [torch.from_numpy(x), torch.from_numpy(x).requires_grad_(), pd.DataFrame(x), Features(x), read_only]
    for one in given:
        assert select_batch(one, labels, 6, "typiclust").tolist() == expected
    assert len(select_batch(x.tolist(), labels, 6, "typiclust")) == 6  # float64
    assert len(select_batch((10 * x).astype(int), labels, 6, "margins")) == 6
    assert len(select_batch(x.astype(np.float16), labels, 6, "badge")) == 6


def test_probabilities_as_people_hold_them(data):
    _, _, labels, p = data
    expected = select_batch(None, labels, 6, "margins", probabilities=p[0]).tolist()
    for one in (torch.from_numpy(p[0]), p[0].tolist(), pd.DataFrame(p[0]), torch.from_numpy(p[0]).requires_grad_()):
        assert select_batch(None, labels, 6, "margins", probabilities=one).tolist() == expected
    hard = np.eye(C)[np.arange(N) % C]  # zeros and ones: no NaN comes first
    for name in ("entropy", "bald", "cal", "badge", "bait", "vessal", "clue", "uherding", "dcom"):
        draws = np.stack([hard, np.roll(hard, 1, 1)]) if name == "bald" else hard
        sound(select_batch(data[0], labels, 6, name, probabilities=draws), labels, 6)
    half = torch.from_numpy(p[0]).to(torch.float16)
    assert len(select_batch(None, labels, 6, "margins", probabilities=half)) == 6


def test_names_and_columns(data):
    x, y, labels, p = data
    names = ["dog", "ant", "cat", "bee"]
    written = [None if c == -1 else names[c] for c in labels]
    picks = select_batch(x, written, 6, "dcom", probabilities=p[0], classes=names)
    assert picks.tolist() == select_batch(x, labels, 6, "dcom", probabilities=p[0]).tolist()
    few = [one if one in ("dog", "ant") else None for one in written]
    with pytest.raises(UserError, match="4 columns, but there are 2 classes: say what each column is by classes"):
        select_batch(x, few, 6, "dcom", probabilities=p[0])
    with pytest.raises(UserError, match="label 'bee' of row .* is not among the classes"):
        select_batch(x, written, 6, "dcom", probabilities=p[0], classes=["dog", "ant", "cat", "cow"])
    wide = select_batch(x, labels, 6, "margins", num_classes=9)
    learner = Learner(
        Features(x), seeds=[0], query_strategy=strategy_of("margins"), init_strategy=strategy_of("random"),
        classifier=Logistic(), num_classes=9,
    )  # fmt: skip
    rows = np.flatnonzero(labels >= 0)
    learner.tell(rows[None], labels[rows][None])
    assert wide.tolist() == learner.ask(6)[0].tolist()


def test_a_scikit_learn_classifier_is_cloned_fitted_and_its_classes_mapped(data):
    x, _, labels, _ = data
    names = np.array(["z", "a", "m", "b"])
    written = np.where(labels >= 0, names[labels], "")
    model = LogisticRegression(class_weight={"z": 3.0, "a": 1.0, "m": 1.0, "b": 1.0})
    picks, scores = select_batch(x, written, 6, "entropy", classifier=model, return_scores=True)
    assert not hasattr(model, "coef_")
    p = model.fit(x[labels >= 0], written[labels >= 0]).predict_proba(x)
    expected = np.where(labels == -1, -(p * np.log(p)).sum(1), np.nan)
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    # one class of which nothing is labelled has no column
    few = np.where(labels == 1, -1, labels)
    sound(select_batch(x, few, 5, "margins", classifier=LogisticRegression(), num_classes=C), few, 5)
    sound(select_batch(x, labels, 5, "margins", classifier=CalibratedClassifierCV(LinearSVC(), cv=2)), labels, 5)
    ours = select_batch(x, labels, 5, "badge", classifier=HeadClassifier("dropout"))
    assert ours.tolist() == select_batch(x, labels, 5, "badge", classifier="dropout").tolist()
    assert (
        ours.tolist() == select_batch(x, labels, 5, "badge", classifier=from_config("classifier", "dropout")).tolist()
    )


class Broken(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        raise RuntimeError("no licence\nnor anything")

    def predict_proba(self, X):
        return X


class Silent(Strategy):
    """A user's own, which does not say what it works from."""

    def select(self, query, budget):
        return stack_picks([query.available[0].nonzero()[:, 0][:budget]], budget, query.pool.device)


MISTAKES = {
    "n=0: ask for a whole number": dict(n=0),
    "n=2.5: ask for a whole": dict(n=2.5),
    "seed=-1: give a whole number from 0 on": dict(seed=-1),
    "round=0: give a whole number from 1 on": dict(round=0),
    "boss looks at hidden labels": dict(query_strategy="boss"),
    "balanced looks at hidden labels": dict(query_strategy="balanced"),
    "There is no query_strategy=marginz: did you mean margins": dict(query_strategy="marginz"),
    "must be a name or a Strategy, not int": dict(query_strategy=3),
    "two models: give one": dict(probabilities=np.full((N, C), 0.25), classifier=LogisticRegression()),
    "must be a matrix of numbers": dict(features=[["a"], ["b"]]),
    "Features must be a matrix": dict(features=np.zeros(N, np.float32)),
    "one for each of 90 items": dict(labels=[1, 2]),
    "labels must be a list or an array": dict(labels=3),
    r"names beside numbers \(rows 0 and 1\)": dict(labels=["a", 1] + [None] * 88),
    "The label 70000 of row 1": dict(labels=[0, 70000] + [-1] * 88),
    "The label -2 of row 0": dict(labels=[-2, 1] + [-1] * 88),
    "The label 1.5 of row 0 is neither": dict(labels=[1.5, 1] + [-1] * 88),
    r"probabilities must be \(90, C\)": dict(probabilities=np.full((N - 1, C), 0.25)),
    "of row 2 are negative or do not sum": dict(probabilities=np.where(np.arange(N)[:, None] == 2, np.nan, 0.25)
                                                * np.ones((N, C))),
    "of row 0 are negative or do not sum": dict(probabilities=np.full((N, C), 1.0)),
    "beyond the 3 columns": dict(probabilities=np.full((N, 3), 1 / 3)),
    "probabilities have 4 columns: leave num_classes out": dict(probabilities=np.full((N, C), 0.25), num_classes=5),
    "candidates names row 90": dict(candidates=[3, 90]),
    "candidates must be row numbers or a mask": dict(candidates=[0.5]),
    "Nothing is left to pick": dict(candidates=[]),
    "LinearSVC has no predict_proba": dict(classifier=LinearSVC()),
    "Broken could not be fitted on 14 labelled rows: no licence$": dict(classifier=Broken()),
    "not set": dict(classifier=set()),
    "LogisticRegression is fitted on labelled rows, and there are none": dict(labels=None, query_strategy="margins",
                                                                              classifier=LogisticRegression()),
    "silent does not say what it works from": dict(query_strategy=Silent(), probabilities=np.full((N, C), 0.25)),
    "margins works from features or from predictions": dict(features=None),
    "neither features nor probabilities nor labels": dict(features=None, labels=None),
    "classes must be different": dict(classes=[0, 1, 2, 2]),
}  # fmt: skip


@pytest.mark.parametrize("sentence", MISTAKES)
def test_mistakes_are_answered_in_one_sentence(sentence, data):
    given = dict(features=data[0], labels=data[2], n=5, query_strategy="margins") | MISTAKES[sentence]
    with pytest.raises(UserError, match=sentence) as said:
        select_batch(given.pop("features"), given.pop("labels"), **given)
    assert "\n" not in str(said.value)


def test_what_would_do_is_a_strategy():
    for words in WOULD_DO.values():
        assert {one for one in words.replace(" or ", ", ").split(", ")} <= set(TABLE)


def test_the_name_stands_in_the_packages_face(data):
    x, _, labels, _ = data
    assert alfm.select_batch is select_batch
    assert len(alfm.select_batch(x, labels, 3, Silent())) == 3  # a user's own, with a head of ours
    assert len(alfm.select_batch(x, None, 3)) == 3  # uherding without labels is maxherding
    assert len(alfm.select_batch(None, data[2], 3, "random")) == 3
    p = np.full((N, C), 0.25)
    before = select_batch(x, labels, 5, "tcm", probabilities=p, round=2)
    assert before.tolist() != select_batch(x, labels, 5, "tcm", probabilities=p, round=9).tolist()  # margins by then
