"""The rejection sampler draws from the plain sequential D^2 distribution."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from alfm import devices
from alfm.geometry.d2_sampling import D2Samplers, d2_sample, d2_sample_each


def rank_one(seed: int, n: int, c: int = 4, d: int = 5) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    left = rng.standard_normal((n, c)) * rng.random((n, 1)) * 2
    return torch.from_numpy(left), torch.from_numpy(rng.standard_normal((n, d)) + 0.5)


def setting(parts: tuple[Tensor, ...]):
    sq = torch.ones(len(parts[0]), dtype=parts[0].dtype)
    for p in parts:
        sq = sq * p.square().sum(1)
    return sq, lambda rows: tuple(p[rows] for p in parts)


def explicit(parts: tuple[Tensor, ...]) -> np.ndarray:
    g = parts[0]
    for p in parts[1:]:
        g = (g[:, :, None] * p[:, None, :]).flatten(1)
    return (g[:, None] - g[None]).square().sum(2).numpy()


@pytest.mark.parametrize(
    ("kind", "start"),
    [("plain", "exact"), ("rank one", "norms"), ("weighted", "norms"), ("first drawn", "exact")],
)
def test_distribution(kind: str, start: str) -> None:
    n, draws = 6, 1500
    parts = rank_one(0, n)
    if kind == "plain":
        parts = parts[1:]
    sq, factors = setting(parts)
    allowed = torch.ones(n, dtype=torch.bool)
    allowed[4] = False
    weight = torch.linspace(0.2, 3, n, dtype=torch.float64) if kind == "weighted" else None
    first = None if kind == "first drawn" else "largest"
    factor = allowed.numpy() * (np.ones(n) if weight is None else weight.numpy())
    distance = explicit(parts)
    heads = {int(np.where(allowed, sq, -1).argmax()): 1.0}
    if first is None:
        heads = {i: p for i, p in enumerate(factor / factor.sum()) if p > 0}
    expected = {}
    for a, pa in heads.items():
        two = factor * distance[a]
        for b in np.flatnonzero(two):
            three = factor * np.minimum(distance[a], distance[b])
            for c in np.flatnonzero(three):
                expected[a, int(b), int(c)] = pa * two[b] / two.sum() * three[c] / three.sum()
    assert sum(expected.values()) == pytest.approx(1)
    rng = np.random.default_rng(17)
    seen = Counter(tuple(d2_sample(sq, factors, allowed, 3, rng, first, weight, start).tolist()) for _ in range(draws))
    assert set(seen) <= set(expected)
    # Rare outcomes are pooled, so that every cell expects at least 5.
    cells = [(seen[o], p * draws) for o, p in expected.items() if p * draws >= 5]
    rare = [(seen[o], p * draws) for o, p in expected.items() if p * draws < 5]
    cells.append((sum(s for s, _ in rare), max(sum(e for _, e in rare), 1e-9)))
    cells = [c for c in cells if c[1] >= 5]
    statistic = sum((s - e) ** 2 / e for s, e in cells)
    assert len(cells) > 5
    assert statistic < chi2.ppf(1 - 1e-4, len(cells) - 1)


def test_bounds_are_never_below_the_truth() -> None:
    parts = rank_one(1, 400)
    sq, factors = setting(parts)
    distance = explicit(parts)
    samplers = D2Samplers([sq], factors, [torch.ones(400, dtype=torch.bool)], [60], [np.random.default_rng(0)])
    samplers.begin("largest", "norms")
    [sampler] = samplers.each
    while samplers.draw():
        truth = distance[:, sampler.picks[: sampler.count]].min(1)
        assert (sampler.bound >= truth * (1 - 1e-12)).all()
        met = sampler.met == sampler.count
        np.testing.assert_allclose(sampler.bound[met], truth[met], atol=1e-9)
        np.testing.assert_allclose(sampler.sums, sampler.mass.sum(1))
    assert sampler.count == 60


def test_little_is_evaluated() -> None:
    rng = np.random.default_rng(5)
    x = torch.from_numpy(rng.standard_normal((20000, 32)).astype(np.float32))
    sq, factors = setting((x,))
    samplers = D2Samplers([sq], factors, [torch.ones(20000, dtype=torch.bool)], [100], [rng])
    samplers.begin("largest", "norms")
    while samplers.draw():
        pass
    [sampler] = samplers.each
    assert len(set(sampler.picks.tolist())) == 100
    assert sampler.evaluated < 0.02 * 20000 * 100


@pytest.mark.parametrize("start", ["norms", "exact"])
def test_stops_when_everything_is_a_centre(start: str) -> None:
    rng = np.random.default_rng(2)
    base = torch.from_numpy(rng.standard_normal((5, 6)).astype(np.float32)) * 31 + 9
    x = base[torch.arange(3000) % 5]
    sq, factors = setting((x,))
    picks = d2_sample(sq, factors, torch.ones(3000, dtype=torch.bool), 50, rng, start=start)
    assert sorted((picks % 5).tolist()) == [0, 1, 2, 3, 4]


def test_far_too_loose_bounds_end_in_a_refresh() -> None:
    # Tight clusters far from the origin: |a| + |b| says nothing about |a - b|.
    rng = np.random.default_rng(3)
    x = torch.from_numpy(1000 + rng.standard_normal((4000, 3)))
    sq, factors = setting((x,))
    picks = d2_sample(sq, factors, torch.ones(4000, dtype=torch.bool), 40, rng)
    assert len(set(picks.tolist())) == 40


def test_first_is_the_largest_allowed_norm_lowest_index() -> None:
    x = torch.tensor([[1.0], [-3.0], [3.0], [4.0]])
    sq, factors = setting((x,))
    allowed = torch.tensor([True, True, True, False])
    for seed in range(5):
        picks = d2_sample(sq, factors, allowed, 3, np.random.default_rng(seed))
        assert picks[0] == 1
        assert sorted(picks.tolist()) == [0, 1, 2]


def test_nothing_to_draw() -> None:
    x = torch.ones(4, 2)
    sq, factors = setting((x,))
    nobody = torch.zeros(4, dtype=torch.bool)
    everybody = ~nobody
    rng = np.random.default_rng(0)
    assert d2_sample(sq, factors, nobody, 3, rng).tolist() == []
    assert d2_sample(sq, factors, everybody, 0, rng).tolist() == []
    assert d2_sample(sq, factors, everybody, 3, rng, None, torch.zeros(4)).tolist() == []
    assert d2_sample(sq, factors, everybody, 3, rng).tolist() == [0]
    with pytest.raises(ValueError, match="negative"):
        d2_sample(sq, factors, everybody, 3, rng, weight=-torch.ones(4))


def test_the_device_is_asked_once_per_batch_not_per_draw() -> None:
    # Every transfer goes through `factors`' rows: count the calls.
    x = torch.from_numpy(np.random.default_rng(8).standard_normal((5000, 16)))
    sq, plain = setting((x,))
    calls = []

    def factors(rows: Tensor) -> tuple[Tensor, ...]:
        calls.append(len(rows))
        return plain(rows)

    assert len(d2_sample(sq, factors, torch.ones(5000, dtype=torch.bool), 200, np.random.default_rng(1))) == 200
    assert len(calls) < 200 / 4


@pytest.mark.parametrize("start", ["norms", "exact"])
@pytest.mark.parametrize("first", ["largest", None])
def test_several_problems_together_are_each_alone(first: Any, start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where replicates are joined: of different sizes and budgets, one without a candidate, with refreshes."""
    parts = [rank_one(seed, n) for seed, n in ((0, 300), (1, 5000), (2, 40))]
    parts[1][1][:] += 1000  # far from the origin, where norms bound nothing
    sq = [setting(own)[0] for own in parts]
    allowed = [torch.rand(len(own), generator=torch.Generator().manual_seed(3)) < 0.8 for own in sq]
    allowed[2][:] = False
    weight = [torch.linspace(0, 2, len(own)).double() for own in sq]

    def factors(which: slice) -> Any:
        some = parts[which]
        if len(some) == 1:
            return setting(some[0])[1]
        return lambda rows: tuple(torch.stack([p[f][own] for p, own in zip(some, rows, strict=True)]) for f in (0, 1))

    def drawn() -> list[list[int]]:
        rngs = [np.random.default_rng(s) for s in (5, 6, 7)]
        return [p.tolist() for p in d2_sample_each(sq, factors, allowed, [60, 90, 5], rngs, first, weight, start)]

    alone = drawn()
    other = replace(devices.of("cpu"), joins_replicates=True)
    monkeypatch.setattr(devices, "of", lambda x: other)
    assert drawn() == alone
    assert list(map(len, alone)) == [60, 90, 0]


def test_centres_that_wait_to_be_sent_outlive_a_batch_without_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding may point every proposal past the end of its group; what was accepted before is a centre still."""
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 3)))
    samplers = D2Samplers(
        [x.square().sum(1)], lambda rows: (x[rows],), None, [50], [np.random.default_rng(1)]
    )  # fmt: skip
    samplers.begin("largest", "norms")
    assert samplers.draw()
    waiting = samplers.centres.added[0]
    assert len(waiting[1])
    monkeypatch.setattr(samplers.each[0], "propose", lambda: np.zeros(0, np.int64))
    assert samplers.draw() and samplers.centres.added[0] is waiting
