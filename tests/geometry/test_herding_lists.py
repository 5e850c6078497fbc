"""Lists of pairs that can still gain: what is listed, gains by the definition, and what may not change a single bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from alfm.features.features import Features, Vectors
from alfm.geometry import herding_lists as closer
from alfm.geometry.herding import Herding
from alfm.geometry.herding_lists import ListHerding, Lists, make_lists
from alfm.geometry.kernels import RBF, Dot, Kernel, best_similarity
from alfm.strategies.parts.herding import herders
from alfm.strategies.query import Query

N = 260
KERNELS = [RBF(), RBF(0.3), Dot()]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks and chunks, the last ones not full."""
    monkeypatch.setattr(closer, "pair_block", lambda vectors: 64)
    monkeypatch.setattr(closer, "CHUNK", 500)


def unit(dtype: str = "float32", resident: bool = True, x: np.ndarray | None = None) -> Vectors:
    if x is None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(6, 10))[rng.integers(6, size=N)] + 0.7 * rng.normal(size=(N, 10))
    pool = Features(x.astype(dtype), block_rows=60)
    pool.resident = resident
    return pool.unit


def matrix(vectors: Vectors, kernel: Kernel) -> Tensor:
    u = vectors.rows(torch.arange(vectors.N)).double()
    if isinstance(kernel, RBF):
        return torch.exp(-(((u[:, None] - u[None]) ** 2).sum(-1)) / kernel.width**2)
    return (u[:, None] * u[None]).sum(-1)


def some(seed: int, count: int = 9, n: int = N) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).permutation(n)[:count])


def made(vectors: Vectors, kernel: Kernel, *added: Tensor) -> list[Lists]:
    out = [one for one in make_lists(vectors, kernel, added) if one is not None]
    assert len(out) == len(added)
    return out


def plain(k: Tensor, kappa: Tensor, weight: Tensor, allowed: Tensor, budget: int) -> list[int]:
    picks: list[int] = []
    kappa, allowed = kappa.clone(), allowed.clone()
    for _ in range(min(budget, int(allowed.sum()))):
        gain = ((k - kappa).clamp_min(0) * weight).mean(1)
        picks.append(int(torch.where(allowed, gain, -1.0).argmax()))
        allowed[picks[-1]] = False
        kappa = torch.maximum(kappa, k[picks[-1]])
    return picks


def same(one: Lists, other: Lists) -> bool:
    fields = ("offsets", "targets", "values", "kappa")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in fields)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_pair_that_can_gain_is_listed_once(kernel: Kernel, resident: bool, dtype: str) -> None:
    vectors, added = unit(dtype, resident), some(1)
    (lists,) = made(vectors, kernel, added)
    k = matrix(vectors, kernel)
    broad = (
        matrix(vectors, RBF()) if isinstance(kernel, RBF) else k
    )  # which pairs are left does not depend on the width
    gains = (broad > broad[added].amax(0).clamp_min(0) + 1e-5).numpy()
    items = np.repeat(np.arange(N), np.diff(lists.offsets))
    count = np.zeros((N, N), dtype=int)
    np.add.at(count, (items, lists.targets), 1)
    assert count.max() == 1
    assert not (gains & (count == 0)).any()
    assert count.sum() <= gains.sum() + 2 * N  # and little else: the added items' own pairs
    at = kernel.similarity(lists.values)
    np.testing.assert_allclose(at, k.numpy()[items, lists.targets], atol=1e-5)
    np.testing.assert_allclose(kernel.similarity(lists.kappa), k[added].amax(0).clamp_min(0), atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("weighted", [False, True])
def test_gains_are_the_definition_before_and_after_picks_and_pruning(kernel: Kernel, weighted: bool) -> None:
    vectors, added = unit("float64"), some(2)
    k = matrix(vectors, kernel)
    weight = torch.rand(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64) if weighted else None
    w = torch.ones(N, dtype=torch.float64) if weight is None else weight
    (lists,) = made(vectors, kernel, added)
    state = lists.at(kernel, weight)
    chosen = added.tolist()
    for more in ([], [3, 70], some(3, 60).tolist()):
        state.add(torch.tensor(more, dtype=torch.int64))
        chosen += more
        expected = ((k - k[chosen].amax(0).clamp_min(0)).clamp_min(0) * w).sum(1)
        before = len(state.values)
        for _ in range(2):
            gains = torch.from_numpy(state.gains()).double()
            ratio = float(gains.max() / expected.max())
            torch.testing.assert_close(gains / ratio, expected, rtol=1e-9, atol=1e-12)
            assert np.log2(ratio) == pytest.approx(round(np.log2(ratio)), abs=1e-9)  # steps of a power of two
            state.prune(1.0)
        assert len(state.values) < before or not more


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("patience", [0, 1, 64])
def test_picks_are_plain_greedy(kernel: Kernel, weighted: bool, patience: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closer, "PATIENCE", patience)
    vectors, added = unit("float64"), some(4, 5)
    k = matrix(vectors, kernel)
    weight = torch.rand(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64) if weighted else None
    allowed = torch.rand(N, generator=torch.Generator().manual_seed(2)) < 0.8
    allowed[added] = False
    state = made(vectors, kernel, added)[0].at(kernel, weight)
    first = state.select(allowed, 15)
    after = allowed.clone()
    after[first] = False
    found = [*first.tolist(), *state.select(after, 10).tolist()]
    w = torch.ones(N, dtype=torch.float64) if weight is None else weight
    assert found == plain(k, k[added].amax(0).clamp_min(0), w, allowed, 25)
    assert (state.bounds >= state.gains()).all()
    assert state.added.tolist() == added.tolist() + found


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_run_and_a_resumed_run_agree_to_the_last_bit(kernel: Kernel) -> None:
    vectors, added, allowed = unit(), some(5), torch.ones(N, dtype=torch.bool)
    allowed[added] = False
    run = made(vectors, kernel, added)[0].at(kernel)
    pruned = made(vectors, kernel, added)[0].at(kernel)
    for _ in range(3):
        picks = run.select(allowed, 20)
        pruned.prune(1.0)
        assert torch.equal(pruned.select(allowed, 20), picks)
        allowed[picks] = False
        resumed = made(vectors, kernel, run.added.flip(0))[0].at(kernel)
        assert len(resumed.values) < len(run.values)
        assert np.array_equal(resumed.kappa, run.kappa)
        assert np.array_equal(resumed.bounds, run.gains()) and np.array_equal(run.gains(), pruned.gains())


def test_replicates_together_are_each_alone() -> None:
    vectors = unit()
    added = [some(6), some(7, 30), some(8, 3), some(6)]
    together = made(vectors, RBF(), *added)
    for one, rows in zip(together, added, strict=True):
        assert same(one, made(vectors, RBF(), rows)[0])
    assert len(together[2].values) > 2 * len(together[1].values)


def test_lists_that_are_too_long_are_left_out_whoever_runs_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, added = unit(), [some(7, 30), some(8, 3), some(9, 90)]
    whole = made(vectors, RBF(), *added)
    first, _, last = (len(one.values) for one in whole)
    assert last < 0.6 * first
    monkeypatch.setattr(closer, "PAIRS", first)
    monkeypatch.setattr(closer, "SAMPLE", N)
    # beforehand there is a margin, for a sample may be wrong: the first is just too long, the second by far
    assert [one is None for one in make_lists(vectors, RBF(), added)] == [True, True, False]
    # what a sample did not foresee is found on the way
    monkeypatch.setattr(closer, "_expected", lambda vectors, kernel, least: [0] * len(least))
    one, none, other = make_lists(vectors, RBF(), added)
    assert none is None and one is not None and other is not None
    assert same(one, whole[0]) and same(other, whole[2])
    assert make_lists(vectors, RBF(), added[1:2]) == [None]


def test_without_anything_added_nothing_is_listed() -> None:
    assert make_lists(unit(), RBF(), [some(1, 0)]) == [None]


def test_equals_of_what_is_added_gain_nothing_and_ties_go_to_the_lower_index() -> None:
    x = np.random.default_rng(0).normal(size=(5, 7))
    vectors = unit(x=np.tile(x, (40, 1)))  # 200 rows, five different ones, in blocks of 64
    state = made(vectors, RBF(), torch.tensor([0, 131, 12]))[0].at(RBF())  # three of the five
    gains = state.gains()
    assert set(np.flatnonzero(gains) % 5) == {3, 4}
    allowed = torch.ones(200, dtype=torch.bool)
    allowed[[0, 131, 12]] = False
    picks = state.select(allowed, 300).tolist()
    assert sorted(picks[:2]) == [3, 4]
    assert picks[2:] == [i for i in range(200) if i not in (0, 131, 12, 3, 4)]


def test_zero_vectors() -> None:
    x = np.random.default_rng(0).normal(size=(N, 10))
    x[20:60] = 0.0
    vectors, added = unit("float64", x=x), some(1)
    allowed = torch.ones(N, dtype=torch.bool)
    for kernel in KERNELS:
        k = matrix(vectors, kernel)
        found = made(vectors, kernel, added)[0].at(kernel).select(allowed, 12).tolist()
        assert found == plain(k, k[added].amax(0).clamp_min(0), torch.ones(N), allowed, 12)
    nothing = unit(x=np.zeros((30, 3)))
    for kernel in KERNELS:
        state = made(nothing, kernel, torch.tensor([4]))[0].at(kernel)
        assert state.select(torch.ones(30, dtype=torch.bool), 30).tolist() == list(range(30))


def test_weights_of_any_size_pick_alike() -> None:
    """Contributions are rounded to steps of the largest weight, so confident heads lose nothing."""
    vectors, added = unit(), some(1)
    weight = torch.rand(N, generator=torch.Generator().manual_seed(0))
    allowed = torch.ones(N, dtype=torch.bool)
    expected = made(vectors, RBF(), added)[0].at(RBF(), weight).select(allowed, 20)
    for power in (-10, -30):
        scaled = made(vectors, RBF(), added)[0].at(RBF(), weight * 2.0**power).select(allowed, 20)
        assert torch.equal(scaled, expected)
    nothing = made(vectors, RBF(), added)[0].at(RBF(), weight * 0).select(allowed, 4)
    assert nothing.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_similarity_never_falls_where_the_closeness_rises(kernel: Kernel) -> None:
    rng = np.random.default_rng(0)
    base = -(10.0 ** rng.uniform(-9, 0.6, 1 << 16)).astype(np.float32)
    close = np.sort(np.concatenate([base, np.nextafter(base, np.float32(0)), np.float32([0, -np.inf])]))
    value = kernel.similarity(close)
    assert value.dtype == np.float32 and (value[1:] >= value[:-1]).all()


def states(vectors: Vectors, kernel: Kernel, added: list[Tensor], carry: dict | None = None) -> list:
    """As a strategy asks for them, with what is kept from its last round."""
    rows = torch.nn.utils.rnn.pad_sequence(added, batch_first=True, padding_value=-1)
    free = torch.ones(len(added), vectors.N, dtype=torch.bool)
    carry = {} if carry is None else carry
    query = Query(vectors.pool, rows, rows, free, 2, list(range(len(added))), 2, carry=carry)
    return list(herders(query, "herding", vectors, kernel, range(len(added))).values())


def test_states_go_on_where_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, carry = unit(), {}
    passes: list[int] = []
    pairs = closer.block_pairs

    def counting(*args: object) -> object:
        passes.append(1)
        return pairs(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(closer, "block_pairs", counting)
    first, second = some(1), some(2)
    old = states(vectors, RBF(), [first, second], carry)
    assert passes == [1]  # for both
    grown = [torch.cat([first, second]), torch.cat([second, first[:2]])]
    new = states(vectors, RBF(), grown, carry)
    assert new[0] is old[0] and new[1] is old[1] and passes == [1]
    for one, rows in zip(new, grown, strict=True):
        assert isinstance(one, ListHerding) and torch.equal(one.added, rows)
        (fresh,) = states(vectors, RBF(), [rows])
        assert isinstance(fresh, ListHerding) and np.array_equal(one.gains(), fresh.gains())
    passes.clear()
    other = states(vectors, RBF(), [second, grown[1]], carry)  # the first does not begin with what was held
    assert other[0] is not new[0] and other[1] is new[1] and passes == [1]
    wider = states(vectors, RBF(2.0), [second, grown[1]], carry)
    assert all(a is not b for a, b in zip(wider, other, strict=True))


def test_states_without_lists_go_on_too_until_lists_are_short_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, added, carry = unit(), some(1), {}
    monkeypatch.setattr(closer, "PAIRS", 0)
    (old,) = states(vectors, RBF(), [added], carry)
    assert isinstance(old, Herding)
    grown = torch.cat([added, some(2)])
    (new,) = states(vectors, RBF(), [grown], carry)
    assert new is old and torch.equal(old.kappa, best_similarity(vectors, RBF(), grown))
    assert states(vectors, RBF(), [grown.flip(0)], {"herding": {0: old}})[0] is not old
    monkeypatch.setattr(closer, "PAIRS", 1 << 24)
    (with_lists,) = states(vectors, RBF(), [grown], carry)
    assert isinstance(with_lists, ListHerding) and not carry["herding"]
    allowed = torch.ones(N, dtype=torch.bool)
    assert torch.equal(with_lists.select(allowed, 20), old.select(allowed, 20))
