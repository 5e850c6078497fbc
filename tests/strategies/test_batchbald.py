"""BatchBALD: whole sequences against every configuration listed, sampling beyond that, the candidates considered."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from reference.bald import bald
from reference.batchbald import batchbald, joint_information
from reference.uncertainty import ranked
from strategies.factory import SITUATIONS, assert_replicates_independent, make_query, picks_in, seen

from alfm import acquisition, host_ops
from alfm.errors import UserError
from alfm.posteriors import DropoutPosterior, Ensemble, Laplace
from alfm.strategies import batchbald as search
from alfm.strategies.batchbald import BatchBald
from alfm.strategies.query import Query

JOINT = [DropoutPosterior(passes=10, per_item=False), Laplace(passes=10), Ensemble(passes=5)]


def draws_of(query: Query, posterior) -> np.ndarray:
    """(M, N, C)."""
    logits = query.draws(posterior).logits(slice(0, query.pool.N), query.pool.features, 0)
    return torch.softmax(logits, 2).numpy()


@pytest.mark.parametrize("posterior", JOINT)
@pytest.mark.parametrize("oversample", [1000, 5])
def test_sequence(posterior, oversample: int) -> None:
    query = make_query(N=30, C=3, n=8, block_rows=20)
    p, view = draws_of(query, posterior), seen(query)
    candidates = ranked(bald(p), view.free, 4 * oversample)
    expected = batchbald(p, candidates, 4)
    assert BatchBald(posterior, oversample).select(query, 4)[0].tolist() == expected


def test_the_batch_knows_more_than_the_best_single_items() -> None:
    """Near copies: each is worth picking, both are not."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(12, 4)), 3, 0) + 1e-4 * rng.normal(size=(36, 4))
    query = make_query(x=x, y=np.arange(36) % 3, C=3, n=5)
    posterior = Laplace(passes=16, precision=0.02)  # draws far apart: one label tells much
    p = draws_of(query, posterior)
    picks = BatchBald(posterior).select(query, 4)[0].tolist()
    alone = ranked(bald(p), seen(query).free, 4)
    assert len({i // 3 for i in picks}) == 4 > len({i // 3 for i in alone})
    assert joint_information(p, picks) > joint_information(p, alone)


def test_sampled_configurations_choose_nearly_as_well() -> None:
    """From C^2 > max_samples on entropies are estimated: the information of the batch is close to the greedy's."""
    query = make_query(N=40, C=3, n=8)
    posterior = Laplace(passes=10)
    p = draws_of(query, posterior)
    exact = BatchBald(posterior, max_samples=10**5).select(query, 6)[0].tolist()
    sampled = BatchBald(posterior, max_samples=8).select(query, 6)[0].tolist()
    more = BatchBald(posterior, max_samples=81 * 8).select(query, 6)[0].tolist()
    assert exact[:2] == sampled[:2] and exact[:6] == more[:6]
    assert joint_information(p, sampled) > 0.9 * joint_information(p, exact)


def test_gains_never_exceed_the_score_alone() -> None:
    """Why candidates by BALD score lose little: I(batch + i) - I(batch) <= BALD(i)."""
    p = draws_of(make_query(N=20, C=3, n=8), Laplace(passes=10))
    batch = [0, 5, 9]
    before = joint_information(p, batch)
    for i in range(10, 20):
        assert joint_information(p, [*batch, i]) - before <= bald(p)[i] + 1e-12


def test_masks_per_item_are_refused() -> None:
    with pytest.raises(UserError, match="joint draws"):
        BatchBald(DropoutPosterior())


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    assert picks_in(BatchBald(JOINT[0], max_samples=100), situation)[1] == 0


def test_replicates_and_seeds() -> None:
    assert_replicates_independent(lambda: BatchBald(JOINT[0], max_samples=100), budget=5)
    one, two = (
        BatchBald(max_samples=100).select(make_query(seeds=(s,), rows=[list(range(12))]), 5)[0].tolist() for s in (1, 2)
    )
    assert one != two


# -- the search alone ------------------------------------------------------------------------------------------------


def softmax(z: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.from_numpy(z), -1).numpy()


def draws(m: int = 7, b: int = 30, c: int = 5, scale: float = 2.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return scale * (rng.normal(size=(1, b, c)) + 0.7 * rng.normal(size=(m, b, c)))


def information(p: np.ndarray, batch: list[int]) -> float:
    """I(y_batch; weights) by listing every configuration; p (M, n, C)."""
    M, _, C = p.shape
    total = 0.0
    for labels in itertools.product(range(C), repeat=len(batch)):
        q = np.mean([np.prod([p[m, i, c] for i, c in zip(batch, labels, strict=True)]) for m in range(M)])
        total -= q * np.log(q)
    return total - sum(-(p[:, i] * np.log(p[:, i])).sum(-1).mean() for i in batch)


def test_batchbald_exact_equals_plain_greedy() -> None:
    z = draws(5, 10, 3, scale=8.0, seed=4)
    z[:, 2] = z[:, 6] * 0.99  # nearly the best item again: its own score is high, what it adds is not
    p = softmax(z)
    expected: list[int] = []
    for _ in range(4):
        gains = [-np.inf if i in expected else information(p, [*expected, i]) for i in range(10)]
        expected.append(int(np.argmax(gains)))
    got = search.batchbald(torch.from_numpy(np.log(p)), 4, np.random.default_rng(0), max_samples=1000)
    assert got.tolist() == expected
    bald_order = acquisition.bald(torch.from_numpy(z)).argsort(descending=True)[:4].tolist()
    assert expected != bald_order  # the joint term matters on this input


def configurations(log_joint: torch.Tensor, p: torch.Tensor, listed: bool) -> search._Labels:
    batch = search._Labels(p.log()[None], p[None], [np.random.default_rng(0)], 0, 1)
    batch.log_joint, batch.source = log_joint[None], None if listed else torch.arange(len(log_joint)) % len(p)
    return batch


def gains(log_joint: torch.Tensor, p: torch.Tensor, listed: bool) -> torch.Tensor:
    """What each of the candidates p (M, n, C) adds to a batch with these configurations (K, M)."""
    within = -(p * p.log()).sum(-1).T[None]
    out = torch.full_like(within[..., 0], torch.inf)
    posterior, weight = configurations(log_joint, p, listed).in_doubt(lazy=True)
    scratch = torch.empty(2, out.numel() * p.shape[2] * len(log_joint), dtype=p.dtype)
    search._look(out, out.numel(), within, p.permute(1, 2, 0)[None], posterior, weight, scratch)
    return out[0]


def test_batchbald_gains_from_listed_and_from_sampled_configurations() -> None:
    p = torch.from_numpy(softmax(draws(5, 8, 3, seed=5)))
    log_p, batch = p.log(), [0, 1, 2]
    listed = torch.zeros(1, 5, dtype=torch.float64)
    for item in batch:
        listed = (listed[:, None] + log_p[:, item].T).reshape(-1, 5)
    exact = gains(listed, p, listed=True)
    expected = [information(p.numpy(), [*batch, i]) - information(p.numpy(), batch) for i in range(3, 8)]
    np.testing.assert_allclose(exact[3:].numpy(), expected, atol=1e-12)
    rng = np.random.default_rng(0)
    source = torch.arange(40_000) % 5
    sampled = torch.zeros(len(source), 5, dtype=torch.float64)
    for item in batch:
        u = torch.from_numpy(rng.random(len(source)))
        label = (p[:, item].cumsum(1)[source] < u[:, None]).sum(1)
        sampled += log_p[:, item].T[label]
    estimate = gains(sampled, p, listed=False)
    np.testing.assert_allclose(estimate.numpy(), exact.numpy(), atol=0.01)
    # A configuration's constant changes nothing: long batches are scaled.
    scaled = gains(sampled - sampled.amax(1, keepdim=True), p, listed=False)
    np.testing.assert_allclose(scaled.numpy(), estimate.numpy(), atol=1e-12)


@pytest.mark.parametrize("max_samples", [10**5, 50])
def test_batchbald_lazy_is_the_greedy(max_samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed (3^7 configurations): the same picks for fewer candidates looked at. Sampled: as good up to the noise."""
    z = draws(8, 60, 3, scale=3.0, seed=7)
    z[:, ::2] *= np.linspace(0.02, 0.3, 30)[:, None]  # half of the items say little
    log_p = torch.log_softmax(torch.from_numpy(z), -1)
    looked: list[int] = []
    real = host_ops.log
    monkeypatch.setattr(host_ops, "log", lambda q, out: (looked.append(q.shape[0] // 3), real(q, out))[1])

    def picks(block: int) -> list[int]:
        looked.clear()
        monkeypatch.setattr(search, "block_numbers", lambda p, block=block: block)
        return search.batchbald(log_p, 8, np.random.default_rng(0), max_samples).tolist()

    plain = picks(10**9)
    assert sum(looked) == sum(range(53, 61))
    lazy = picks(1)
    assert sum(looked) < 0.6 * sum(range(53, 61))
    if max_samples > 3**8:
        assert lazy == plain
    else:
        p = softmax(z)
        worth = [information(p, batch) for batch in (lazy, plain)]
        assert abs(worth[0] - worth[1]) < 0.05 * worth[1]


def test_batchbald_long_batches_are_distinct_seeded_and_do_not_underflow() -> None:
    log_p = torch.log_softmax(torch.from_numpy(draws(6, 120, 4, scale=30.0)).float(), -1)
    picks = search.batchbald(log_p, 100, np.random.default_rng(0), max_samples=64)
    assert len(set(picks.tolist())) == 100
    assert picks.tolist() == search.batchbald(log_p, 100, np.random.default_rng(0), max_samples=64).tolist()
    assert len(search.batchbald(log_p[:, :5], 9, np.random.default_rng(0))) == 5


def test_uniforms_are_those_that_draws_one_by_one_would_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "UNIFORMS", 25)  # two draws of ten, though six may come
    p = torch.full((3, 4, 2), 0.5)
    rngs = [np.random.default_rng(seed) for seed in (0, 1)]
    batch = search._Labels(p.log().expand(2, 3, 4, 2), p.expand(2, 3, 4, 2), rngs, 10, 6)
    alone = [np.random.default_rng(seed) for seed in (0, 1)]
    for _ in range(5):
        assert torch.equal(next(batch.uniforms), torch.from_numpy(np.stack([rng.random(10) for rng in alone])).float())


def test_batchbald_configurations_without_doubt_add_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    p = torch.from_numpy(softmax(draws(6, 12, 3, scale=8.0, seed=2)))
    rng = np.random.default_rng(1)
    sampled = torch.zeros(600, 6, dtype=torch.float64)
    for item in range(8):
        u = torch.from_numpy(rng.random(600))
        label = (p[:, item].cumsum(1)[torch.arange(600) % 6] < u[:, None]).sum(1).clamp_max(2)
        sampled += p.log()[:, item].T[label]
    posterior, _ = configurations(sampled, p, listed=False).in_doubt(lazy=True)
    assert 0 < posterior.shape[1] < 550  # many are left out
    some = gains(sampled, p, listed=False)
    monkeypatch.setattr(search, "RESOLVED", (0.0, 0.0))
    every = gains(sampled, p, listed=False)
    doubt = torch.distributions.Categorical(logits=sampled).entropy().mean()
    assert 0 <= float((every - some).min()) and float((every - some).max()) <= 1e-3 * float(doubt)


def test_batchbald_falls_back_on_the_candidates_order_once_the_draws_are_told_apart() -> None:
    log_p = torch.full((2, 6, 2), np.log(0.5), dtype=torch.float64)
    log_p[0, 3], log_p[1, 3] = (
        torch.tensor([0.0, -np.inf]),
        torch.tensor([-np.inf, 0.0]),
    )  # item 3 tells which draw it is
    log_p[0, 4], log_p[1, 4] = torch.log(torch.tensor([0.9, 0.1])), torch.log(torch.tensor([0.2, 0.8]))
    assert search.batchbald(log_p, 6, np.random.default_rng(0), 50).tolist() == [3, 0, 1, 2, 4, 5]
