"""Every function's greedy sequence against its formula evaluated set by set in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from alfm.features.features import Features, Vectors
from alfm.geometry.kernels import RBF, Dot, Kernel, best_similarity
from alfm.geometry.submodular import (
    Cut,
    Volume,
    cut_information,
    determinant_information,
    location_information,
    query_location,
    total_similarity,
)

N = 70
LABELLED = torch.tensor([4, 60, 33])
QUERY = torch.tensor([8, 21, 55])


def unit(dtype: str = "float64", n: int = N) -> Vectors:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 8))[rng.integers(4, size=n)] + 0.6 * rng.normal(size=(n, 8))
    return Features(x.astype(dtype), block_rows=30).unit


def similarity(vectors: Vectors, kernel: Kernel, clamp: bool = True) -> Tensor:
    u = vectors.rows(torch.arange(vectors.N))
    if isinstance(kernel, RBF):
        return torch.exp(-(((u[:, None] - u[None]) ** 2).sum(-1)) / kernel.width**2)
    s = (u[:, None] * u[None]).sum(-1)
    return s.clamp_min(0) if clamp else s


def greedy(value: Callable[[list[int]], Tensor], allowed: Tensor, budget: int, start: list[int]) -> list[int]:
    picks: list[int] = []
    for _ in range(budget):
        gain = [
            float(value([*start, *picks, x])) if allowed[x] and x not in picks else -np.inf for x in range(len(allowed))
        ]
        picks.append(int(np.argmax(gain)))
    return picks


@pytest.fixture
def allowed() -> Tensor:
    open_ = torch.rand(N, generator=torch.Generator().manual_seed(3)) < 0.8
    open_[LABELLED] = False
    open_[QUERY] = False
    return open_


KERNELS = [RBF(0.8), Dot()]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_flvmi(kernel: Kernel, eta: float, allowed: Tensor) -> None:
    vectors = unit()
    s = similarity(vectors, kernel)
    cap = eta * s[:, QUERY].amax(1)
    none = torch.zeros(0, dtype=torch.int64)
    states = location_information(vectors, kernel, [LABELLED, none], [QUERY, QUERY], eta)
    for state, start in zip(states, [LABELLED.tolist(), []], strict=True):
        expected = greedy(lambda a: torch.minimum(s[:, a].amax(1), cap).mean(), allowed, 8, start)
        assert state.select(allowed, 8).tolist() == expected


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("start", [LABELLED, LABELLED[:0]])
def test_flqmi(kernel: Kernel, start: Tensor, allowed: Tensor) -> None:
    vectors = unit()
    s = similarity(vectors, kernel)

    def value(a: list[int]) -> Tensor:
        return s[QUERY][:, a].amax(1).sum() + 0.7 * s[a][:, QUERY].amax(1).sum()

    state = query_location(vectors, kernel, start, QUERY, eta=0.7)
    assert state.select(allowed, 8).tolist() == greedy(value, allowed, 8, start.tolist())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("trade", [0.3, 5.0])
def test_graph_cut(kernel: Kernel, trade: float, allowed: Tensor) -> None:
    vectors = unit()
    s = similarity(vectors, kernel)

    def value(a: list[int]) -> Tensor:
        return s[:, a].sum() - trade * s[a][:, a].sum()

    state = Cut(vectors, kernel, total_similarity(vectors, kernel), trade)
    state.add(LABELLED)
    expected = greedy(value, allowed, 12, LABELLED.tolist())
    first = state.select(allowed, 7)
    rest = allowed.clone()
    rest[first] = False
    assert [*first.tolist(), *state.select(rest, 5).tolist()] == expected
    with pytest.raises(ValueError, match="lambda"):
        Cut(vectors, kernel, state.total, -1.0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gcmi_is_the_sum_of_similarities_to_the_query(kernel: Kernel) -> None:
    vectors = unit()
    torch.testing.assert_close(cut_information(vectors, kernel, QUERY), similarity(vectors, kernel)[:, QUERY].sum(1))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("start", [LABELLED, LABELLED[:0]])
def test_log_det(kernel: Kernel, start: Tensor, allowed: Tensor) -> None:
    vectors = unit()
    s = similarity(vectors, kernel, clamp=False) + 0.01 * torch.eye(N, dtype=torch.float64)
    # Without anything labelled all items of a unit-length pool tie, up to rounding: start from the first pick made.
    state = Volume(vectors, kernel, ridge=0.01)
    state.add(start)
    first = state.select(allowed, 7)
    rest = allowed.clone()
    rest[first] = False
    found = [*first.tolist(), *state.select(rest, 5).tolist()]
    known = [] if len(start) else found[:1]
    expected = greedy(
        lambda a: torch.logdet(s[a][:, a]), rest_of(allowed, known), 12 - len(known), [*start.tolist(), *known]
    )
    assert [*known, *expected] == found
    everything = [*start.tolist(), *found]
    torch.testing.assert_close(state._factor @ state._factor.T, s[everything][:, everything])
    assert bool((state.bounds + 1e-9 >= state.gains(torch.arange(N))).all())


def rest_of(allowed: Tensor, taken: list[int]) -> Tensor:
    rest = allowed.clone()
    rest[taken] = False
    return rest


def test_log_det_does_not_break_on_duplicates() -> None:
    vectors = Features(np.repeat(np.eye(3, dtype=np.float32), 20, axis=0)).unit
    picks = Volume(vectors, Dot(), ridge=1e-2).select(torch.ones(60, dtype=torch.bool), 60)
    assert sorted(picks.tolist()) == list(range(60))
    assert len({int(p) // 20 for p in picks[:3]}) == 3
    with pytest.raises(ValueError, match="ridge"):
        Volume(vectors, Dot(), ridge=0.0)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("eta", [1.0, 0.6])
def test_log_det_information(kernel: Kernel, eta: float, allowed: Tensor) -> None:
    vectors = unit()
    bare = similarity(vectors, kernel, clamp=False)
    s = bare + 0.01 * torch.eye(N, dtype=torch.float64)
    given = eta**2 * bare[:, QUERY] @ torch.linalg.inv(s[QUERY][:, QUERY]) @ bare[QUERY]

    def value(a: list[int]) -> Tensor:
        return torch.logdet(s[a][:, a]) - torch.logdet((s - given)[a][:, a])

    found = determinant_information(vectors, kernel, QUERY, allowed, 9, eta, ridge=0.01)
    assert found.tolist() == greedy(value, allowed, 9, [])
    everything = determinant_information(vectors, kernel, QUERY, allowed, N, eta, ridge=0.01)
    assert sorted(everything.tolist()) == allowed.nonzero()[:, 0].tolist()
    with pytest.raises(ValueError, match="eta"):
        determinant_information(vectors, kernel, QUERY, allowed, 9, eta=2.0)


def test_query_similarity_is_the_best_over_the_query() -> None:
    vectors = unit("float32")
    torch.testing.assert_close(
        best_similarity(vectors, Dot(), QUERY), similarity(vectors, Dot())[:, QUERY].amax(1), rtol=1e-5, atol=1e-6
    )
