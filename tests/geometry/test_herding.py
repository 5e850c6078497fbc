"""Herding: gains against the definition, lazy against plain greedy, replicates alone and together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from alfm.features.features import Features, Vectors
from alfm.geometry import greedy, herding
from alfm.geometry.herding import Herding, first_gains
from alfm.geometry.kernels import RBF, Dot, Kernel, best_similarity, similarities


def unit(n: int = 260, dim: int = 10, seed: int = 0, dtype: str = "float64", resident: bool = True) -> Vectors:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(6, dim))[rng.integers(6, size=n)] + 0.7 * rng.normal(size=(n, dim))
    pool = Features(x.astype(dtype), block_rows=60)
    pool.resident = resident
    return pool.unit


def matrix(vectors: Vectors, kernel: Kernel) -> Tensor:
    u = vectors.rows(torch.arange(vectors.N))
    if isinstance(kernel, RBF):
        return torch.exp(-(((u[:, None] - u[None]) ** 2).sum(-1)) / kernel.width**2)
    return (u[:, None] * u[None]).sum(-1)


def plain(k: Tensor, kappa: Tensor, weight: Tensor, allowed: Tensor, budget: int) -> tuple[list[int], Tensor]:
    """Greedy by the definition; rows of k are candidates, columns targets."""
    picks: list[int] = []
    kappa, allowed = kappa.clone(), allowed.clone()
    for _ in range(min(budget, int(allowed.sum()))):
        gain = ((k - kappa).clamp_min(0) * weight).mean(1)
        best = int(torch.where(allowed, gain, -1.0).argmax())
        picks.append(best)
        allowed[best] = False
        kappa = torch.maximum(kappa, k[best])
    return picks, kappa


@pytest.mark.parametrize("kernel", [RBF(), RBF(0.3), Dot()])
@pytest.mark.parametrize("resident", [True, False])
def test_first_gains_are_the_definition(kernel: Kernel, resident: bool) -> None:
    vectors = unit(resident=resident)
    k = matrix(vectors, kernel)
    rng = torch.Generator().manual_seed(0)
    kappa = torch.rand(3, 260, generator=rng, dtype=torch.float64)
    weight = torch.rand(3, 260, generator=rng, dtype=torch.float64)
    weight[1, 30:] = 0
    cap = torch.rand(3, 260, generator=rng, dtype=torch.float64)
    rest = (k[None] - kappa[:, None]).clamp_min(0)
    capped = (torch.minimum(k[None], cap[:, None]) - kappa[:, None]).clamp_min(0)

    def check(found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)

    for block in (64, 300):
        check(first_gains(vectors, kernel, kappa, block=block), rest.mean(2))
        check(first_gains(vectors, kernel, kappa, weight, block=block), (rest * weight[:, None]).mean(2))
        check(first_gains(vectors, kernel, kappa, weight, cap=cap, block=block), (capped * weight[:, None]).mean(2))
    targets = torch.randperm(260, generator=rng)[:70]
    check(first_gains(vectors, kernel, kappa[:, targets], targets=targets), rest[:, :, targets].mean(2))
    # Targets that weigh nothing can be left out: the mean over 30 instead of 260 is all that changes.
    some = torch.arange(30)
    few = first_gains(vectors, kernel, kappa[1:2, :30], weight[1:2, :30], some)
    check(few[0] * 30 / 260, (rest[1] * weight[1]).mean(1))


def test_gain_uses_the_targets_coverage() -> None:
    """What counts is how well a target is covered already, not how well the candidate is."""
    vectors = unit(4, 2)
    k = matrix(vectors, RBF())
    kappa = torch.tensor([[0.0, 1.0, 0.0, 1.0]], dtype=torch.float64)
    found = first_gains(vectors, RBF(), kappa)[0]
    torch.testing.assert_close(found, (k[:, 0] + k[:, 2]) / 4)


def test_kernels_differ_between_replicates_and_nobody_sees_the_others() -> None:
    vectors = unit(dtype="float32")
    rng = torch.Generator().manual_seed(1)
    kappa, weight = torch.rand(4, 260, generator=rng), torch.rand(4, 260, generator=rng)
    kernels = [RBF(0.5), RBF(1.0), RBF(0.5), Dot()]
    together = first_gains(vectors, kernels, kappa, weight, block=64)
    for r, kernel in enumerate(kernels):
        alone = first_gains(vectors, kernel, kappa[r : r + 1], weight[r : r + 1], block=64)
        assert torch.equal(alone[0], together[r])


@pytest.mark.parametrize("kernel", [RBF(), RBF(0.3), Dot()])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("column_bytes", [0, 1 << 20])
def test_lazy_is_plain_greedy(kernel: Kernel, weighted: bool, column_bytes: int) -> None:
    vectors = unit()
    k = matrix(vectors, kernel)
    rng = torch.Generator().manual_seed(2)
    labelled = torch.randperm(260, generator=rng)[:7]
    weight = torch.rand(260, generator=rng, dtype=torch.float64) if weighted else None
    kappa = best_similarity(vectors, kernel, labelled)
    torch.testing.assert_close(kappa, k[labelled].amax(0).clamp_min(0))
    allowed = torch.rand(260, generator=rng) < 0.8
    allowed[labelled] = False
    gains = first_gains(vectors, kernel, kappa[None], None if weight is None else weight[None])[0]
    state = Herding(vectors, kernel, kappa, gains, weight, column_bytes=column_bytes)
    rounds = [state.select(allowed, 15, batch=8)]
    after = allowed.clone()
    after[rounds[0]] = False
    rounds.append(state.select(after, 10, batch=8))  # bounds carried from the first round
    ones = torch.ones(260, dtype=torch.float64)
    expected, reached = plain(k, kappa, ones if weight is None else weight, allowed, 25)
    assert torch.cat(rounds).tolist() == expected
    torch.testing.assert_close(state.kappa, reached)
    assert bool((state.bounds + 1e-12 >= state.gains(torch.arange(260))).all())


def test_a_subset_of_targets_and_a_bonus() -> None:
    vectors = unit()
    k = matrix(vectors, Dot())
    targets = torch.tensor([3, 50, 51, 200])
    bonus = torch.rand(260, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    zero = torch.zeros(4, dtype=torch.float64)
    gains = first_gains(vectors, Dot(), zero[None], targets=targets)[0]
    state = Herding(vectors, Dot(), zero, gains, targets=targets, bonus=bonus)
    picks = state.select(torch.ones(260, dtype=torch.bool), 6)
    chosen: list[int] = []
    for pick in picks.tolist():
        kappa = k[chosen][:, targets].amax(0).clamp_min(0) if chosen else zero
        gain = (k[:, targets] - kappa).clamp_min(0).mean(1) + bonus
        gain[chosen] = -1
        assert pick == int(gain.argmax())
        chosen.append(pick)


def test_all_picks_are_distinct_and_allowed_even_when_nothing_is_gained() -> None:
    vectors = Features(np.ones((20, 3), dtype=np.float32)).unit
    allowed = torch.ones(20, dtype=torch.bool)
    allowed[0] = False
    gains = first_gains(vectors, RBF(), torch.zeros(1, 20))[0]
    state = Herding(vectors, RBF(), torch.zeros(20), gains)
    assert state.select(allowed, 50).tolist() == list(range(1, 20))  # equal items: ties to the lower index


def test_state_is_to_the_last_bit_a_function_of_what_was_added() -> None:
    """Resume and replay add in one call what the run added pick by pick."""
    vectors = unit(dtype="float32")
    zero = torch.zeros(260)
    gains = first_gains(vectors, RBF(), zero[None])[0]
    run = Herding(vectors, RBF(), zero, gains)
    allowed = torch.ones(260, dtype=torch.bool)
    first = run.select(allowed, 40)
    kappa = best_similarity(vectors, RBF(), first.flip(0))
    assert torch.equal(kappa, run.kappa)
    resumed = Herding(vectors, RBF(), kappa, first_gains(vectors, RBF(), kappa[None])[0])
    allowed[first] = False
    assert torch.equal(run.select(allowed, 20), resumed.select(allowed, 20))


def test_lazy_greedy_refreshes_few_and_similarities_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(2000, 16)
    labelled = torch.arange(0, 2000, 10)
    kappa = best_similarity(vectors, RBF(), labelled)
    gains = first_gains(vectors, RBF(), kappa[None])[0]
    made: list[int] = []
    rooms: set[int] = set()

    def counting(v: Vectors, kernel: Kernel, items: Tensor, targets: Tensor | None, out: Tensor) -> Tensor:
        made.extend(items.tolist())
        rooms.add(out.data_ptr())
        return similarities(v, kernel, items, targets, out)

    monkeypatch.setattr(herding, "similarities", counting)
    Herding(vectors, RBF(), kappa, gains).select(torch.ones(2000, dtype=torch.bool), 20)
    assert len(made) == len(set(made)) < 700
    assert len(rooms) == 1  # threads would keep what they make and give back for every refresh


def test_bounds_are_renewed_when_stale_ones_no_longer_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """From nothing gains fall fast: without a new pass over the pool every item would be visited again and again."""
    vectors = unit(1000, 16)
    zero = torch.zeros(1000, dtype=torch.float64)
    weight = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gains = first_gains(vectors, RBF(), zero[None], weight[None])[0]
    passes: list[int] = []

    def counting(*args: object) -> Tensor:
        passes.append(1)
        return first_gains(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(herding, "first_gains", counting)
    allowed = torch.ones(1000, dtype=torch.bool)
    picks = Herding(vectors, RBF(), zero, gains, weight).select(allowed, 30)
    assert 1 <= len(passes) <= 10
    assert picks.tolist() == plain(matrix(vectors, RBF()), zero, weight, allowed, 30)[0]


def test_lazy_greedy_with_no_budget_or_nothing_allowed() -> None:
    vectors = unit(20)
    state = Herding(vectors, RBF(), vectors.sq_norms * 0, vectors.sq_norms)
    assert greedy.lazy(state, state.bounds, torch.zeros(20, dtype=torch.bool), 3).tolist() == []
    assert state.select(torch.ones(20, dtype=torch.bool), 0).tolist() == []
