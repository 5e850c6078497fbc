"""BoSS: the batch of smallest test loss among its candidates, each refitted here alone; sub-pools; who may see what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.boss import boss, zero_one_loss
from strategies.factory import clusters, make_query

from alfm.features.features import Features
from alfm.features.spaces import RAW, UNIT
from alfm.heads.adapter import Adapter
from alfm.heads.logistic import Logistic
from alfm.simulation.task import Task
from alfm.strategies.ask import ask
from alfm.strategies.base import Strategy
from alfm.strategies.boss import Boss, _SubPool, errors
from alfm.strategies.margins import Margins
from alfm.strategies.query import Query
from alfm.strategies.random import Random


def with_oracle(n: int = 8, **options) -> Query:
    """A hard task, so that candidates differ in their loss; the test split is another draw."""
    x, y = clusters(140, 6, 4, spread=3.0)
    # solved so far that the start of a fit, which is not the reference's, decides no prediction
    exact = Logistic(tolerance=1e-12, max_iterations=1000)
    query = make_query(x=x[:80], y=y[:80], C=4, n=n, classifier=exact, **options)
    test = Features(torch.from_numpy(x[80:]).to(query.pool.dtype))
    query.oracle = Task(query.pool, torch.from_numpy(y[:80]), test, torch.from_numpy(y[80:]), 4)
    return query


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Filled with the candidates in their order, whatever order they are made in."""
    kept: list[list[int]] = []
    real = Boss._best

    def spy(self, query, r, candidates):
        kept.extend(candidates.tolist())
        return real(self, query, r, candidates)

    monkeypatch.setattr(Boss, "_best", spy)
    return kept


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("budget", [1, 6])
def test_the_lowest_test_loss_wins(budget: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = recorded(monkeypatch)
    query = with_oracle(seeds=(seed,))
    picks = Boss(batches=12, sub_pool=50).select(query, budget)[0].tolist()
    assert len(candidates) == 12
    labels, losses = query.oracle.labels, []
    for batch in candidates:
        rows = torch.tensor([query.labelled(0).tolist() + batch])
        head = query.classifier.fit(query.pool, rows, labels[rows], 4, [seed], query.round)
        phi = query.oracle.test.materialise(head.spaces[0]).numpy()
        loss = zero_one_loss(head.weight[0].numpy(), head.bias[0].numpy(), phi, query.oracle.test_labels.numpy())
        losses.append(loss)
    assert len(set(losses)) > 1
    assert picks == candidates[boss(losses)]


def test_candidates_come_from_the_strategies_in_turn_on_sub_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, np.ndarray, int]] = []

    class Spy(Strategy):
        def __init__(self, inner: Strategy) -> None:
            self.inner = inner

        def select(self, query: Query, budget: int) -> torch.Tensor:
            sub = query.pool.features.numpy()
            asked.append((self.inner.name, sub[query.available[0].numpy()], query.oracle is None))
            np.testing.assert_array_equal(sub[query.labelled(0)], whole.pool.features.numpy()[whole.labelled(0)])
            assert query.labels_of(0).tolist() == whole.labels_of(0).tolist()
            return self.inner.select(query, budget)

    whole = with_oracle()
    Boss(batches=4, sub_pool=30, strategies=[Spy(Random()), Spy(Margins())]).select(whole, 5)
    assert sorted(name for name, _, _ in asked) == ["margins", "margins", "random", "random"]
    assert all(len(rows) == 30 for _, rows, _ in asked)
    assert len({rows.tobytes() for _, rows, _ in asked}) == 4
    assert all(hidden for _, _, hidden in asked)  # the members see no hidden label


@pytest.mark.parametrize("keep", [True, False])
def test_a_sub_pool_has_the_coordinates_of_its_features(keep: bool) -> None:
    whole = Features(torch.from_numpy(clusters(90, 6, 4)[0]).float())
    whole.resident = keep
    space = Logistic().space(whole)
    rows = torch.randperm(90, generator=torch.Generator().manual_seed(0))[:40]
    sub, plain = _SubPool(whole, rows), Features(whole.features[rows])
    for one in (RAW, UNIT, space):
        assert torch.equal(sub.vectors(one).matrix, plain.vectors(one).matrix)
        assert (whole.vectors(one).matrix is not None) == keep


@pytest.mark.parametrize("block_rows", [7, None])
def test_errors_are_those_of_each_head_alone(block_rows: int | None) -> None:
    query = with_oracle()
    query.oracle.test = Features(query.oracle.test.features, block_rows=block_rows)
    rows = torch.stack([torch.randperm(80, generator=torch.Generator().manual_seed(i))[:9] for i in range(5)])
    for classifier in (Logistic(), Adapter()):
        heads = classifier.fit(query.pool, rows, query.oracle.labels[rows], 4, [0] * 5, 1)
        expected = [
            zero_one_loss(
                heads.weight[r].numpy(),
                heads.bias[r].numpy(),
                query.oracle.test.materialise(heads.spaces[r]).numpy(),
                query.oracle.test_labels.numpy(),
            )
            for r in range(5)
        ]
        found = errors(query.oracle, heads)
        assert len(set(found)) > 1
        np.testing.assert_allclose(np.array(found) / query.oracle.test.N, expected)


def test_a_batch_larger_than_the_sub_pool() -> None:
    picks, filled = ask(Boss(batches=6, sub_pool=3), with_oracle(), 72)
    assert filled == [0] and len(set(picks[0].tolist())) == 72


def test_it_is_an_oracle_and_others_are_not() -> None:
    assert Boss.oracle and Boss.stochastic and not Random.oracle


def test_replicates_and_seeds() -> None:
    alone = [Boss(batches=6, sub_pool=40).select(with_oracle(seeds=(s,), dtype=torch.float32), 4)[0] for s in (1, 2)]
    together = Boss(batches=6, sub_pool=40).select(with_oracle(seeds=(1, 2), dtype=torch.float32), 4)
    assert torch.equal(together, torch.stack(alone))
    assert not torch.equal(alone[0], alone[1])
