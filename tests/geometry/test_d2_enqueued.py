"""D^2 sampling as it goes on a GPU draws what it draws on a CPU, and leaves generators where that does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from alfm import devices
from alfm.geometry import d2_enqueued, d2_sampling
from alfm.geometry.d2_enqueued import Enqueued
from alfm.geometry.d2_sampling import d2_sample_each

FLOOR = 32 * torch.finfo(torch.float64).eps


def rank_one(n: int, far: float = 0.5) -> tuple[Tensor, ...]:
    rng = np.random.default_rng(n)
    left = rng.standard_normal((n, 4)) * rng.random((n, 1)) * 2
    return torch.from_numpy(left), torch.from_numpy(rng.standard_normal((n, 5)) + far)


def some_of(parts: list[tuple[Tensor, ...]]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(3)
    return [torch.rand(len(own[0]), generator=draw) < 0.8 for own in parts]


def rising(parts: list[tuple[Tensor, ...]]) -> list[Tensor]:
    return [torch.linspace(0, 2, len(own[0])).double() for own in parts]


def problems(name: str) -> tuple[Any, ...]:
    """Factors of each problem, which rows are allowed, weights, budgets."""
    parts = [rank_one(300), rank_one(2000), rank_one(40)]
    if name == "one":
        return parts[1:2], None, None, [200]
    if name == "weighted":
        return parts, None, rising(parts), [60, 90, 5]
    if name == "alike, all at once":
        return [rank_one(700)] * 2, None, None, [0, 900]
    if name == "one without a candidate, one far from the origin":
        allowed = some_of(parts)
        allowed[2][:] = False
        return [parts[0], rank_one(2000, 1000), parts[2]], allowed, rising(parts), [60, 90, 5]
    if name == "few that are distinct":
        base = torch.from_numpy(np.random.default_rng(2).standard_normal((5, 6))) * 31 + 9
        return [(base[torch.arange(3000) % 5],)] * 2, None, None, [50, 2]
    assert name == "little to draw"
    return parts, some_of(parts), None, [0, 1, 400]


NAMES = [
    "one", "weighted", "alike, all at once", "one without a candidate, one far from the origin",
    "few that are distinct", "little to draw",
]  # fmt: skip


def drawn(name: str, first: Any, start: Any, enqueued: bool) -> tuple[list[list[int]], list[float]]:
    """Picks, and the generators' next numbers."""
    parts, allowed, weight, budget = problems(name)
    sq = [torch.stack([p.square().sum(1) for p in own]).prod(0) for own in parts]
    rngs = [np.random.default_rng(5 + r) for r in range(len(parts))]

    def factors(which: slice) -> Any:
        some = parts[which]
        if len(some) == 1:
            return lambda rows: tuple(p[rows] for p in some[0])
        every = range(len(some[0]))
        return lambda rows: tuple(torch.stack([p[f][own] for p, own in zip(some, rows, strict=True)]) for f in every)

    if enqueued:
        picks = Enqueued(sq, factors(slice(None)), allowed, budget, rngs, weight, FLOOR).picks(first, start)
    else:
        picks = d2_sample_each(sq, factors, allowed, budget, rngs, first, weight, start)
    return [own.tolist() for own in picks], [g.random() for g in rngs]


@pytest.mark.parametrize("start", ["norms", "exact"])
@pytest.mark.parametrize("first", ["largest", None])
@pytest.mark.parametrize("name", NAMES)
def test_draws_are_those_of_the_host(name: str, first: Any, start: Any) -> None:
    assert drawn(name, first, start, True) == drawn(name, first, start, False)


def test_numbers_are_sent_as_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, sent = drawn("weighted", None, "norms", False), []
    numbers = Enqueued._numbers
    monkeypatch.setattr(Enqueued, "_numbers", lambda self: sent.append(1) or numbers(self))
    monkeypatch.setattr(d2_enqueued, "_NUMBERS", -20)
    assert drawn("weighted", None, "norms", True) == expected and len(sent) > 1


@pytest.mark.parametrize("name", ["weighted", "few that are distinct"])
def test_a_pass_in_chunks_is_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of them has rows of the one before."""
    expected = drawn(name, None, "exact", False)
    small = replace(devices.of("cpu"), block_numbers=1)
    monkeypatch.setattr(devices, "of", lambda x: small)
    assert drawn(name, None, "exact", True) == expected


def test_negative_weights_are_refused() -> None:
    x = torch.ones(4, 2)
    rng = [np.random.default_rng(0)]
    with pytest.raises(ValueError, match="negative"):
        Enqueued([x.square().sum(1)], lambda rows: (x[rows],), None, [3], rng, [-torch.ones(4)], 1e-6).picks(
            "largest", "norms"
        )
    assert rng[0].random() == np.random.default_rng(0).random()


def test_where_picks_are_enqueued_these_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless factors ask the host, or Triton does not run."""
    made: list[int] = []
    monkeypatch.setattr(d2_sampling, "Enqueued", lambda *given: made.append(1) or Enqueued(*given))
    x, other = torch.eye(4), replace(devices.of("cpu"), enqueues_picks=True)
    monkeypatch.setattr(devices, "of", lambda x: other)
    for resident, triton in ((False, True), (True, False), (True, True)):
        monkeypatch.setattr("alfm.fused.operation.runs", lambda device, triton=triton: triton)
        rng = [np.random.default_rng(0)]
        given = [x.square().sum(1)], lambda which: lambda rows: (x[rows],), None, [3], rng
        assert len(d2_sample_each(*given, resident=resident)[0]) == 3 and len(made) == (resident and triton)
