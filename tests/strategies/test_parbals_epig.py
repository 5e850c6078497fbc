"""ParBaLS-EPIG: sequences on the same draws, targets and pseudo-labels; what is left out; who may be drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.epig import epig
from reference.parbals_epig import parbals_epig, second_order
from strategies.factory import SITUATIONS, assert_replicates_independent, make_query, picks_in, seen

from alfm.errors import UserError
from alfm.posteriors import Ensemble, Laplace
from alfm.strategies.parbals_epig import ParbalsEpig
from alfm.strategies.query import Query


def expected(strategy: ParbalsEpig, query: Query, budget: int, rows: np.ndarray | None = None) -> list[int]:
    view, draws = seen(query), query.draws(strategy.posterior)
    assert query.head is not None
    target = strategy._drawn(query, 0, "epig targets", strategy.num_targets).numpy()
    if rows is None:
        rows = strategy._drawn(query, 0, "epig candidates", strategy.candidates).numpy()
    factor = draws.factors[0].double().numpy()  # type: ignore[attr-defined]
    weights = draws.weights[0].double().numpy()  # type: ignore[attr-defined]
    covariance = np.linalg.inv(factor @ factor.T)
    bias = query.head.bias[0].double().numpy()
    return parbals_epig(
        view.phi, bias, view.weight, weights, covariance, rows, target, budget, strategy.labellings, strategy.exact
    )


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_sequence(exact: bool, classes: int) -> None:
    query = make_query(N=70, C=classes, n=8)
    posterior = Laplace(passes=6, precision=0.5)
    strategy = ParbalsEpig(posterior, labellings=3, num_targets=11, oversample=None, exact=exact)
    picks = strategy.select(query, 7)[0].tolist()
    assert picks == expected(strategy, query, 7)
    plain = strategy.varied(labellings=1).select(query, 7)[0].tolist()
    assert plain[0] == picks[0] and plain != picks  # the first pick knows no pseudo-label yet


def test_few_candidates_after_the_first_pick_are_those_of_most_information() -> None:
    query = make_query(N=70, C=3, n=8)
    strategy = ParbalsEpig(Laplace(passes=6), labellings=2, num_targets=11, oversample=2)
    draws, free = query.draws(strategy.posterior), np.flatnonzero(seen(query).free)
    p = torch.softmax(draws.logits(slice(0, 70), query.pool.features, 0), 2).numpy()  # type: ignore[arg-type]
    target = strategy._drawn(query, 0, "epig targets", 11).numpy()
    score = second_order(p[:, free], p[:, target])
    rows = np.sort(free[np.argsort(-score, kind="stable")[:8]])
    assert strategy.select(query, 4)[0].tolist() == expected(strategy, query, 4, rows)


def test_second_order_is_near_where_labels_hardly_depend_on_each_other() -> None:
    rng = np.random.default_rng(0)
    z, base = 0.3 * rng.normal(size=(12, 9, 3)), rng.normal(size=(9, 3))
    p = np.exp(base + z) / np.exp(base + z).sum(2, keepdims=True)
    near, whole = second_order(p[:, :5], p[:, 5:]), epig(p[:, :5], p[:, 5:])
    np.testing.assert_allclose(near, whole, rtol=0.1)


def test_candidates_and_targets_are_unlabelled_distinct_and_the_seeds_own() -> None:
    query = make_query(seeds=(1, 2), rows=[list(range(12))] * 2)
    one, two = (ParbalsEpig()._drawn(query, r, "epig targets", 40).tolist() for r in (0, 1))
    assert len(set(one)) == 40 and min(one) >= 12 and one == sorted(one) and one != two
    assert ParbalsEpig()._drawn(query, 0, "epig targets", 500).tolist() == list(range(12, 120))
    few = ParbalsEpig(candidates=20)
    assert set(few.select(query, 5)[0].tolist()) <= set(few._drawn(query, 0, "epig candidates", 20).tolist())
    assert len(set(few.select(query, 30)[0].tolist())) == 30  # never fewer candidates than places


def test_the_batch_is_spread_where_equal_items_would_tell_the_same() -> None:
    """Copies of the most informative item: top scores would take them all, pseudo-labels tell that one is enough."""
    query = make_query(N=60, C=3, n=8)
    first = int(ParbalsEpig().select(query, 1)[0, 0])
    assert isinstance(query.pool.features, torch.Tensor)
    x = query.pool.features.numpy().copy()
    copies = [i for i in range(60) if i not in query.labelled(0).tolist()][:10]
    x[copies] = x[first]
    y = np.zeros(60, dtype=np.int64)
    y[query.labelled(0).numpy()] = query.labels_of(0).numpy()
    again = make_query(x=x, y=y, C=3, rows=[query.labelled(0).tolist()])
    taken = set(ParbalsEpig().select(again, 8)[0].tolist())
    assert len(taken & {*copies, first}) < 8


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(UserError, match="posterior=laplace"):
        ParbalsEpig(Ensemble())
    with pytest.raises(UserError, match="passes to 30 or more"):
        ParbalsEpig(labellings=30)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    assert picks_in(ParbalsEpig(num_targets=10), situation)[1] == 0


def test_replicates_and_seeds() -> None:
    assert_replicates_independent(lambda: ParbalsEpig(num_targets=10))
    one, two = (ParbalsEpig().select(make_query(seeds=(s,), rows=[list(range(12))]), 10)[0].tolist() for s in (1, 2))
    assert one != two
