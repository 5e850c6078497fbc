"""Options of a head, chosen in each round from the labels that there are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from alfm.errors import UserError
from alfm.features.features import Features
from alfm.heads.dropout import Dropout
from alfm.heads.logistic import Logistic
from alfm.heads.propagation import Propagated
from alfm.heads.trials import Trials
from alfm.heads.tuned import Choice, Tried, Tuned, _Fold, choose, default_of, judged, scored, stratified, with_options
from alfm.learner import Learner
from alfm.strategies.random import Random
from alfm.streams import stream

C, N, D = 3, 90, 8
CHOICE = Choice(0, 0, {}, 0.5, 0.5, "given")


@pytest.fixture(scope="module")
def pool() -> tuple[Features, torch.Tensor]:
    rng = np.random.default_rng(0)
    labels = np.arange(N) % C
    x = rng.normal(size=(C, D))[labels] + rng.normal(size=(N, D))
    return Features(x.astype(np.float32), torch.device("cpu")), torch.from_numpy(labels)


def folds_of(labels: torch.Tensor, n: int, folds: int = 3) -> list[_Fold]:
    fold = torch.from_numpy(stratified(labels[:n].numpy(), folds, stream(1, 1, "tuning folds")))
    rows = torch.arange(n)
    return [_Fold(rows[fold != k], labels[:n][fold != k], rows[fold == k], labels[:n][fold == k]) for k in range(folds)]


def test_a_path_gives_what_its_fits_give_alone(pool) -> None:
    features, labels = pool
    rows = torch.stack([torch.arange(0, 40), torch.arange(20, 60)])
    strengths = [0.01, 1.0, 100.0]
    head = Logistic(tolerance=1e-9)
    for c, found in zip(strengths, head.along_strengths(features, rows, labels[rows], C, strengths), strict=True):
        alone = replace(head, strength=c).fit(features, rows, labels[rows], C)
        torch.testing.assert_close(found.weight, alone.weight, rtol=2e-2, atol=2e-3 * float(alone.weight.abs().max()))


def test_batched_folds_judge_as_fits_one_by_one(pool) -> None:
    features, labels = pool
    folds = folds_of(labels, 45)
    candidates = [{"strength": c} for c in (10.0, 0.1, 1.0)]
    tried = judged(Logistic(tolerance=1e-8), features, folds, C, 1, 1, candidates)
    for s, one in enumerate(candidates):
        hits = []
        for fold in folds:
            head = with_options(Logistic(tolerance=1e-8), one).fit(features, fold.rows[None], fold.targets[None], C)
            hits.append(head.forward(features.gather(fold.asked), 0).argmax(1) == fold.answers)
        assert (tried.hits[s] == torch.cat(hits).numpy()).mean() > 0.95


def test_folds_hold_each_class_alike() -> None:
    labels = np.repeat([0, 1, 2], [10, 7, 1])
    fold = stratified(labels, 5, stream(1, 2, "tuning folds"))
    for c in range(3):
        counts = np.bincount(fold[labels == c], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.bincount(fold).max() - np.bincount(fold).min() <= 1
    assert (fold == stratified(labels, 5, stream(1, 2, "tuning folds"))).all()
    assert (fold != stratified(labels, 5, stream(1, 3, "tuning folds"))).any()


def test_losses_do_not_look_at_the_scale_of_logits() -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(1, 60, 4)))
    answers = logits[0].argmax(1).where(torch.arange(60) % 3 > 0, torch.arange(60) % 4)
    tried = scored(torch.cat([logits, 0.01 * logits, 30 * logits]), answers)
    np.testing.assert_allclose(tried.losses[1:].mean(1), tried.losses[0].mean(), rtol=1e-4)
    best = min(
        float(-(t * logits[0]).log_softmax(1)[torch.arange(60), answers].mean()) for t in np.logspace(-2, 2, 400)
    )
    assert tried.losses[0].mean() == pytest.approx(best, rel=1e-3)


def test_the_default_is_left_for_what_is_better_than_chance() -> None:
    rng = np.random.default_rng(0)
    losses, hits = rng.normal(1, 0.3, (3, 40)), np.ones((3, 40))
    losses[1] = losses[0] - 0.01 * rng.normal(size=40)
    losses[2] = losses[0] + 0.1
    assert choose(Tried(losses, hits))[0] == 0
    losses[1] = losses[0] - 0.1 + 0.1 * rng.normal(size=40)
    assert choose(Tried(losses, hits)) == (1, "chosen")
    hits[1, :10] = 0
    assert choose(Tried(losses, hits))[0] == 0, "less accurate"


def test_below_three_labels_per_class_the_default_stays(pool) -> None:
    features, labels = pool
    rows = torch.arange(8)[None]
    tuned = Tuned(Logistic(strength=1000.0))
    head = tuned.fit(features, rows, labels[rows], C, [5], 1)
    choice = tuned.choices[5, 1]
    assert choice.options == {"strength": 1.0} and choice.reason.startswith(
        "kept: 8 labels for 3 classes, fewer than 3"
    )
    assert np.isnan(choice.score) and torch.equal(head.weight, Logistic().fit(features, rows, labels[rows], C).weight)


@pytest.mark.parametrize(
    "classifier",
    [Logistic(), Dropout(max_epochs=4), Propagated(Logistic(), k=5, most=10)],
    ids=["logistic", "dropout", "propagated"],
)
def test_a_replicate_chooses_and_fits_as_it_does_alone(pool, classifier) -> None:
    features, labels = pool
    rows = torch.stack([torch.arange(0, 30), torch.arange(30, 60)])
    both, alone = Tuned(classifier, folds=3), Tuned(classifier, folds=3)
    head = both.fit(features, rows, labels[rows], C, [1, 2], 4)
    other = alone.fit(features, rows[1:], labels[rows[1:]], C, [2], 4)
    assert both.choices[2, 4] == alone.choices[2, 4] and torch.equal(head.weight[1], other.weight[0])
    assert np.isfinite(both.choices[1, 4].score)


def test_strategies_are_given_the_head_as_it_was_fitted(pool) -> None:
    features, labels = pool
    seen = []

    class Asked(Random):
        needs_head = True

        def select(self, query, budget):
            seen.append((list(query.seeds), query.classifier.strength))
            return super().select(query, budget)

    tuned = Tuned(Logistic(), known=lambda seed, round: None)
    tuned.known = lambda seed, round: replace(CHOICE, options={"strength": float(seed)})
    learner = Learner(
        features, seeds=[1, 2, 3], query_strategy=Asked(), init_strategy=Random(), classifier=tuned, num_classes=C
    )
    rows = learner.ask(9)
    learner.tell(rows, labels[rows])
    learner.ask(1)
    assert sorted(seen) == [([1], 1.0), ([2], 2.0), ([3], 3.0)]


def test_a_validation_set_is_what_candidates_are_judged_on(pool) -> None:
    features, labels = pool
    rows, held = torch.arange(6)[None], torch.arange(60, 90)
    tuned = Tuned(Logistic())
    tuned.judge_on(1, held, labels[held])
    tuned.fit(features, rows, labels[rows], C, [1], 1)
    assert np.isfinite(tuned.choices[1, 1].score), "enough labels to judge on, however few to train on"
    fixed = Tuned(Logistic(), held_out=(features.gather(held), labels[held]))
    fixed.fit(features, rows, labels[rows], C, [1], 1)
    assert fixed.choices == tuned.choices


def test_trials_are_found_again_after_a_kill(pool, tmp_path) -> None:
    pytest.importorskip("optuna")
    features, labels = pool
    rows = torch.arange(30)[None]

    def chosen(search: Trials):
        tuned = Tuned(Logistic(), search, folds=3)
        tuned.fit(features, rows, labels[rows], C, [1], 4)
        return tuned.choices[1, 4]

    whole = chosen(Trials(15))
    assert chosen(Trials(15, tmp_path / "tuning.journal")) == whole
    lines = (tmp_path / "tuning.journal").read_bytes()
    (tmp_path / "cut.journal").write_bytes(lines[: int(0.7 * len(lines))])  # in the middle of a line
    assert chosen(Trials(15, tmp_path / "cut.journal")) == whole
    assert chosen(Trials(15, tmp_path / "cut.journal")) == whole

    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(tmp_path / "cut.journal")))
    study = optuna.load_study(study_name="seed 1, round 4", storage=storage)
    assert sorted(trial.user_attrs["number"] for trial in study.trials) == list(range(15))
    assert len({trial.params["strength"] for trial in study.trials}) == 15


@pytest.mark.parametrize(
    ("space", "said"),
    [({"depth": [1, 2]}, "has no option depth"), ({"class_weight": [1, 2]}, "is no number")],
)
def test_a_wrong_space_is_refused(space, said) -> None:
    with pytest.raises(UserError, match=said):
        default_of(Logistic(), *space, C)


def test_a_classifier_that_names_nothing_is_refused(pool) -> None:
    features, labels = pool

    class Mine:
        fit = Logistic.fit

    with pytest.raises(UserError, match="Mine does not say which of its options"):
        Tuned(Mine()).fit(features, torch.arange(9)[None], labels[None, :9], C, [1])


def test_options_of_a_classifier_inside_another() -> None:
    inner = with_options(Propagated(Logistic()), {"classifier.strength": 3.0, "k": 7})
    assert inner.classifier == Logistic(strength=3.0) and inner.k == 7
    assert list(Propagated(Logistic()).tuning_space(10)) == ["classifier.strength"]


def test_nothing_is_chosen_by_a_single_label() -> None:
    for m in (0, 1):
        tried = Tried(np.array([[1.0] * m, [0.1] * m]), np.array([[0.0] * m, [1.0] * m]))
        assert choose(tried) == (0, "kept: fewer than two labels to judge on")
