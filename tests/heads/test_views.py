from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

import alfm
from alfm.config.parts import from_config
from alfm.config.paths import conf_dir
from alfm.features.features import Features
from alfm.heads.logistic import Logistic
from alfm.heads.views import on_all_views
from alfm.posteriors import Ensemble
from alfm.simulation.budgets import budgets_of
from alfm.simulation.cached_task import fits_heads
from alfm.simulation.replicates import run_replicates
from alfm.strategies.bald import Bald
from alfm.strategies.boss import Boss
from alfm.strategies.margins import Margins
from alfm.strategies.parts.sub_pool import Subsampled
from alfm.strategies.uherding import UHerding

RANDOM = from_config("init_strategy", "random")
STRATEGIES = sorted(path.stem for path in (conf_dir() / "query_strategy").glob("*.yaml") if path.stem != "replay")


class Watched:
    """A classifier that remembers how often each item of a fit is in it, as plain item and as its views."""

    def __init__(self, inner) -> None:
        self.inner, self.seen = inner, []

    def fit(self, pool, rows, targets, num_classes, seeds=(), round=0, weight=None, previous=None):
        own = rows[0][rows[0] >= 0]
        self.seen.append([int(((own // pool.N) == v).sum()) for v in range(3)])
        return self.inner.fit(pool, rows, targets, num_classes, seeds, round, weight, previous)


class WatchedReweighted(Watched):
    def fit_reweighted(self, pool, rows, targets, num_classes, weight, start):
        self.seen.append([int((rows[0] // pool.N == v).sum()) for v in range(3)])
        return self.inner.fit_reweighted(pool, rows, targets, num_classes, weight, start)


def fits_of(task, strategy, classifier, rounds: int = 4) -> list[list[int]]:
    """How the fits of a short run saw plain items and the two views: the rounds' own and the strategy's."""
    list(run_replicates(task, classifier, RANDOM, strategy, budgets_of(task.num_classes, rounds, 5, 1), [1]))
    return classifier.seen


@pytest.fixture
def cache(tmp_path, digits_arrays):
    """400 digits with two shifted copies of each image as views."""
    return made(tmp_path, digits_arrays, 400)


def made(tmp_path, digits_arrays, count):
    x, y, test_x, test_y = digits_arrays
    x, y = x[:count], y[:count]
    images = x.reshape(-1, 8, 8)
    views = np.stack([images, np.roll(images, 1, 2), np.roll(images, -1, 2)], 1).reshape(len(x), 3, 64)
    path = tmp_path / "digits" / "views.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["train/features"], file["train/labels"] = views, y
        file["test/features"], file["test/labels"] = test_x, test_y
    return path


@pytest.mark.parametrize("classifier", ["logistic", "dropout"])
def test_heads_train_on_views_and_everything_else_sees_plain_items(cache, classifier):
    frames = {
        on: alfm.simulate(
            alfm.Simulation(cache, "cpu", train_views=on), "random", classifier=classifier, seeds=[1], rounds=3
        )
        for on in (True, False)
    }
    assert not np.allclose(frames[True].accuracy, frames[False].accuracy)
    plain = alfm.Simulation(cache, "cpu", train_views=False)
    assert alfm.Simulation(cache, "cpu").pool.features.shape == plain.pool.features.shape


def test_propagation_refuses_views(cache):
    with pytest.raises(alfm.UserError, match="train_views=false"):
        alfm.simulate(alfm.Simulation(cache, "cpu"), "random", classifier="propagated", seeds=[1], rounds=1)


REFITTING = {
    "qbc": lambda: from_config("query_strategy", "qbc"),
    "bald of an ensemble": lambda: Bald(posterior=Ensemble(2)),
    "uherding": UHerding,
    "uherding on samples": lambda: UHerding(exact_up_to=10, sample=300),
    "boss": lambda: Boss(batches=2, sub_pool=50),
    "boss whose members refit": lambda: Boss(batches=1, sub_pool=200, strategies=[UHerding()]),
}


@pytest.mark.parametrize("kind", [Watched, WatchedReweighted])
@pytest.mark.parametrize("name", REFITTING)
def test_heads_inside_strategies_train_on_views_as_the_rounds_head_does(cache, name, kind):
    strategy = REFITTING[name]()
    seen = fits_of(alfm.Simulation(cache, "cpu"), strategy, kind(Logistic()), 3)
    assert len(seen) > 3, "nothing was refitted"
    assert all(plain == first == second > 0 for plain, first, second in seen)
    plain = fits_of(alfm.Simulation(cache, "cpu", train_views=False), strategy, kind(Logistic()), 3)
    assert all(first == second == 0 for _, first, second in plain)


def test_members_of_an_ensemble_are_fitted_on_the_views_of_their_resamples(cache):
    pool = alfm.Simulation(cache, "cpu").pool
    rows, targets = torch.arange(60)[None], torch.arange(60)[None] % 10
    exact = Logistic(tolerance=1e-12)

    class Plain:  # only knows `fit`
        fit = staticmethod(exact.fit)

    head = on_all_views(exact, pool).fit(pool, rows, targets, 10, [1])
    by_weight, by_rows = (
        Ensemble(3).bind(pool, head, on_all_views(one, pool), rows, targets, [1], 2).members for one in (exact, Plain())
    )
    torch.testing.assert_close(by_weight.weight, by_rows.weight, atol=1e-3, rtol=1e-3)
    without = Ensemble(3).bind(pool, head, exact, rows, targets, [1], 2).members
    assert not torch.allclose(by_weight.weight, without.weight, atol=1e-2)


def test_the_rows_of_a_fit_with_its_weights_and_soft_labels(cache):
    pool = alfm.Simulation(cache, "cpu").pool
    rows, soft = torch.tensor([[4, 7, -1]]), torch.rand(1, 3, 10)
    every, targets, weight = pool.training_rows(rows, soft, torch.tensor([[3.0, 6.0, 0.0]]))
    assert every.tolist() == [[4, 7, -1, 4 + pool.N, 7 + pool.N, -1, 4 + 2 * pool.N, 7 + 2 * pool.N, -1]]
    assert targets.shape == (1, 9, 10) and torch.equal(targets[:, 3:6], soft)
    assert weight.tolist() == [[1.0, 2.0, 0.0] * 3]


def test_a_part_of_a_pool_has_the_views_of_its_items(cache):
    pool = alfm.Simulation(cache, "cpu").pool
    items = torch.tensor([3, 50, 300])
    part = Features(pool.gather(items), views=pool.views_of(items))
    inner = Features(part.gather(torch.tensor([2, 0])), views=part.views_of(torch.tensor([2, 0])))
    assert torch.equal(part.gather(torch.tensor([1 + 2 * 3, 1])), pool.gather(torch.tensor([50 + 2 * pool.N, 50])))
    assert torch.equal(inner.gather(torch.tensor([0 + 2])), pool.gather(torch.tensor([300 + pool.N])))
    assert Features(pool.gather(items)).views_of(items) is None


def test_strategies_say_whether_they_fit_heads_and_only_those_get_a_behaviour(tmp_path, digits_arrays):
    cache = made(tmp_path, digits_arrays, 150)
    views, plain = (alfm.Simulation(cache, "cpu", train_views=on) for on in (True, False))
    for name in STRATEGIES:
        small = {"boss": {"batches": 2, "sub_pool": 40}, "vaal": {"steps": 1}, "switched": {"after": {"per_class": 99}}}
        strategy = from_config("query_strategy", name, **small.get(name, {}))
        refitted = len(fits_of(plain, strategy, Watched(Logistic()), 2)) > 2
        assert fits_heads(strategy) == refitted, name
        assert views.behaviour(strategy, RANDOM) == ({"refits_on_views": 1} if refitted else {}), name
        assert plain.behaviour(strategy, RANDOM) == {}


def test_a_strategy_that_asks_another_fits_heads_where_that_one_does(cache):
    views = alfm.Simulation(cache, "cpu")
    for inner in (from_config("query_strategy", "qbc"), UHerding(), Margins()):
        strategy = Subsampled(Subsampled(inner))
        assert fits_heads(strategy) == fits_heads(inner)
        assert views.behaviour(strategy, RANDOM) == views.behaviour(inner, RANDOM)
    assert fits_heads(Subsampled(from_config("query_strategy", "qbc")))
