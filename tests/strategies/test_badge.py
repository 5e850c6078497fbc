"""BADGE: the first pick, the probabilities of the others, no item twice, nothing of size N C D."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.badge import badge, gradients
from scipy.stats import chisquare
from strategies.factory import (
    SITUATIONS,
    assert_replicates_independent,
    clusters,
    make_query,
    picks_in,
    raw_head,
    seen,
)
from torch.overrides import TorchFunctionMode

from alfm.features.spaces import RAW
from alfm.geometry.d2_sampling import d2_sample
from alfm.strategies.badge import Badge
from alfm.strategies.parts.gradients import prediction_error


def test_norms_and_distances_are_those_of_the_written_out_gradients() -> None:
    """<g_i, g_j> = <d_i, d_j> <phi_i, phi_j>, from which everything else follows."""
    query = make_query(N=40)
    view = seen(query)
    g = gradients(view.phi, view.p)
    d = prediction_error(torch.from_numpy(view.logits)).numpy()
    np.testing.assert_allclose((d @ d.T) * (view.phi @ view.phi.T), g @ g.T, atol=1e-12)


def test_prediction_error_of_certain_items_is_exact() -> None:
    d = prediction_error(torch.tensor([[40.0, 0.0], [1e4, -1e4], [-30.0, 0.0]], dtype=torch.float64))
    np.testing.assert_allclose(d.numpy(), [[-np.exp(-40), np.exp(-40)], [0, 0], [np.exp(-30), -np.exp(-30)]], rtol=1e-9)


def test_the_draws_have_the_probabilities_of_the_paper() -> None:
    """Second and third pick over many seeds against D^2 / sum D^2; the first is the largest gradient."""
    seeds = range(700)
    x, y = clusters(11, 3, 3)
    one = make_query(x=x, y=y, C=3, rows=[[0, 1, 2, 3]])
    assert one.head is not None
    head = raw_head(one.head.weight.expand(len(seeds), -1, -1) * 0.1)
    query = make_query(x=x, y=y, C=3, rows=[[0, 1, 2, 3]] * len(seeds), seeds=seeds, head=head)
    picks = Badge().select(query, 3).numpy()
    view = seen(query)
    assert head.spaces[0] is RAW
    assert set(picks[:, 0]) == {badge(view.phi, view.p, view.free, []).argmax()}
    first = int(picks[0, 0])
    pairs = np.zeros((11, 11))
    for j, chance in enumerate(badge(view.phi, view.p, view.free, [first])):
        if chance > 0:
            pairs[j] = chance * badge(view.phi, view.p, view.free, [first, j])
    found = np.zeros((11, 11))
    np.add.at(found, (picks[:, 1], picks[:, 2]), 1)
    assert not found[pairs == 0].any()
    expected = pairs * len(seeds)
    common = expected >= 5  # rare pairs are counted together
    assert common.sum() > 15
    observed = [*found[common], found[~common].sum()]
    assert chisquare(observed, [*expected[common], expected[~common].sum()]).pvalue > 1e-3
    # the same counts do not fit uniform pairs: the test can tell
    other = np.full(len(observed), len(seeds) / len(observed))
    assert chisquare(observed, other).pvalue < 1e-9


def test_no_item_twice_where_rounding_makes_distances_to_oneself_positive() -> None:
    """Large features, tiny differences: |g|^2 + |g|^2 - 2 <g, g> is far from 0 in float32."""
    x, y = clusters(60, 8, 4)
    query = make_query(x=1e3 + 1e-2 * x, y=y, C=4, dtype=torch.float32, head=raw_head(1e-3 * torch.randn(1, 4, 8)))
    picks = Badge().select(query, 40)[0]
    own = picks[picks >= 0].tolist()
    assert len(own) == len(set(own)) > 0


def test_more_than_two_to_the_24_items() -> None:
    """torch.multinomial ends there; and float32 no longer counts rows."""
    N = (1 << 24) + 50
    x = torch.zeros(N, 1)
    x[-40:, 0] = torch.arange(1, 41)
    allowed = torch.zeros(N, dtype=torch.bool)
    allowed[-40:] = True
    picks = d2_sample(x[:, 0] ** 2, lambda rows: (x[rows],), allowed, 40, np.random.default_rng(0))
    assert sorted(picks.tolist()) == list(range(N - 40, N))


def test_gradient_embeddings_are_never_made() -> None:
    class Largest(TorchFunctionMode):
        numbers = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.numbers = max(self.numbers, out.numel())
            return out

    N, D, C = 600, 64, 50
    x, y = clusters(N, D, C)
    query = make_query(x=x, y=y, C=C, n=100, dtype=torch.float32, head=raw_head(torch.randn(1, C, D)))
    with Largest() as largest:
        Badge().select(query, 6)
        assert largest.numbers <= N * max(C, D) < N * C * D / 40
        prediction_error(torch.zeros(N, C))[:, :, None] * torch.zeros(N, 1, D)
    assert largest.numbers == N * C * D  # it would have been seen


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    # where all that is left are copies of what is picked, D^2 is 0 everywhere and the caller completes the batch
    # (one dimension, scaled to length 1, leaves two gradients)
    copies = {"duplicate rows", "zero vectors", "nothing but zeros", "extreme logits", "one dimension"}
    filled = picks_in(Badge(), situation)[1]
    assert situation in copies or filled == 0


def test_replicates_and_seeds() -> None:
    assert_replicates_independent(Badge)
    one, two = (Badge().select(make_query(seeds=(s,), rows=[list(range(12))]), 10)[0].tolist() for s in (1, 2))
    assert one != two and one[0] == two[0]
