"""ProbCover: the radius, whole sequences, farthest items when everything is covered, graphs that fit their radius."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from reference.probcover import distances, probcover, purity, purity_delta
from strategies.factory import SITUATIONS, assert_replicates_independent, clusters, make_query, picks_in, seen

from alfm.geometry.kmeans import kmeans
from alfm.strategies import probcover as module
from alfm.strategies.ask import ask
from alfm.strategies.parts.sub_pool import Subsampled
from alfm.strategies.probcover import ProbCover
from alfm.strategies.query import Query
from alfm.streams import stream


def pseudo_classes(query: Query, count: int) -> np.ndarray:
    return kmeans(query.pool.unit.matrix, count, stream(0, 0, "pseudo-classes")).assignment.numpy()


@pytest.mark.parametrize("share", [0.95, 0.7, 1.0])
@pytest.mark.parametrize("classes", [None, 7])
def test_radius_is_the_largest_pure_enough(share: float, classes: int | None) -> None:
    query = make_query(N=90)
    h = query.pool.features.numpy()
    pseudo = pseudo_classes(query, classes or 4)
    delta = module.purity_delta(query, classes or 4, share)
    assert delta == pytest.approx(purity_delta(h, pseudo, share), abs=1e-12)
    assert purity(h, pseudo, delta - 1e-12) >= share > purity(h, pseudo, delta + 1e-9)


def test_hidden_labels_and_labelled_classes_do_not_matter() -> None:
    x, y = clusters(90, 8, 4)
    one = make_query(x=x, y=y, C=4, rows=[[0, 1, 2]])
    two = make_query(x=x, y=(y * 0 + 3) % 4, C=4, rows=[[0, 1, 2]])
    assert module.purity_delta(one, 4, 0.95) == module.purity_delta(two, 4, 0.95)
    assert ProbCover().select(one, 10).tolist() == ProbCover().select(two, 10).tolist()


@pytest.mark.parametrize("memory_cap", [2 << 30, 0])
@pytest.mark.parametrize("delta, budget", [(None, 20), (0.3, 40), (0.7, 30), (1.2, 108), (0.05, 30)])
def test_sequence(delta: float | None, budget: int, memory_cap: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """120 items are no multiple of a block of 50: the last rows' edges count too, with and without the stored graph."""
    monkeypatch.setattr("alfm.geometry.max_coverage.pair_block", lambda vectors: 50)
    query = make_query(block_rows=50)
    view = seen(query)
    h = query.pool.features.numpy()
    used = delta or purity_delta(h, pseudo_classes(query, 4))
    strategy = ProbCover(delta, memory_cap=memory_cap)
    assert strategy.select(query, budget)[0].tolist() == probcover(h, used, view.labelled, view.free, budget)


def test_when_everything_is_covered_the_farthest_follow_and_none_repeats() -> None:
    query = make_query()
    view = seen(query)
    h = query.pool.features.numpy()
    ball = distances(h) < 1.2
    picks = ProbCover(1.2).select(query, 108)[0].tolist()
    step = next(k for k in range(108) if ball[[*view.labelled, *picks[:k]]].any(0).all())
    assert step < 30  # so most of the batch comes after that
    assert sorted(picks) == np.flatnonzero(view.free).tolist()


def carried(query: Query, picks: list[int]) -> Query:
    later = make_query(rows=[query.labelled(0).tolist() + picks])
    later.pool, later.carry = query.pool, query.carry
    return later


def test_rounds_with_kept_state_equal_one_long_batch() -> None:
    query = make_query()
    view = seen(query)
    strategy = ProbCover(0.7)
    picks: list[int] = []
    for _ in range(4):
        picks += strategy.select(carried(query, picks), 10)[0].tolist()
    assert picks == probcover(query.pool.features.numpy(), 0.7, view.labelled, view.free, 40)


def test_a_state_belongs_to_its_radius() -> None:
    """A cold start with one radius and a query strategy with another, on one pool and one run."""
    query = make_query(rows=[[3]])
    first = ProbCover(1.2).select(query, 5)[0].tolist()
    later = carried(query, first)
    view = seen(later)
    expected = probcover(query.pool.features.numpy(), 0.5, view.labelled, view.free, 12)
    assert ProbCover(0.5).select(later, 12)[0].tolist() == expected


def test_more_pseudo_classes_than_items() -> None:
    x, y = clusters(20, 4, 3)
    query = make_query(x=x, y=y, C=3, n=4)
    assert ask(ProbCover(classes=500), query, 9)[1] == [0]


def test_without_a_head_or_a_label() -> None:
    query = make_query(rows=[[0]])
    query.rows, query.targets, query.head = query.rows[:, :0], query.targets[:, :0], None
    query.available[:] = True
    expected = probcover(query.pool.features.numpy(), 0.7, np.array([], int), np.ones(120, bool), 12)
    assert ProbCover(0.7).select(query, 12)[0].tolist() == expected


def large(delta: float | None = 0.7, **options: int) -> ProbCover:
    """As on a pool above `exact_up_to`, which has 44 cells."""
    return ProbCover(delta, exact_up_to=100, **options)


@pytest.mark.parametrize("delta", [None, 0.4, 0.8, 1.2])
@pytest.mark.parametrize("resident", [True, False])
def test_a_large_pool_with_all_cells_looked_at_is_picked_from_as_exactly(delta: float | None, resident: bool) -> None:
    queries = [make_query(seeds=(1, 2)) for _ in range(2)]
    queries[1].pool.resident = resident
    assert large(delta, probe=44).select(queries[1], 40).tolist() == ProbCover(delta).select(queries[0], 40).tolist()


@pytest.mark.parametrize("delta", [None, 0.7])
def test_a_large_pool_after_a_resume(delta: float | None) -> None:
    query = make_query()
    picks: list[int] = []
    for _ in range(3):
        later = carried(query, picks)
        some = large(delta, probe=2).select(later, 7)[0].tolist()
        resumed = make_query(rows=[later.labelled(0).tolist()])  # its pool, carry and graph are made anew
        assert large(delta, probe=2).select(resumed, 7)[0].tolist() == some
        picks += some
    assert picks != ProbCover(delta).select(make_query(), 21)[0].tolist()  # so that cells decide something here


def test_a_large_pool_is_cut_into_cells_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    cells = module.Cells
    monkeypatch.setattr(module, "Cells", lambda *words: made.append(1) or cells(*words))
    query = make_query(seeds=(1, 2, 3))
    first = large(None, probe=3).select(query, 5)
    query.carry.clear()
    assert torch.equal(large(None, probe=3).select(query, 5), first) and made == [1]
    assert_replicates_independent(lambda: large(None, probe=3))


@pytest.mark.parametrize("delta", [None, 10.0])
def test_a_large_pool_whose_lists_do_not_fit_is_picked_from_in_part(delta: float | None) -> None:
    query = make_query(N=400, n=6)
    picks, filled = ask(large(delta, memory_cap=12 * 400 + 16 * 400, sample=150), query, 7)
    assert filled == [0]
    assert set(picks[0].tolist()) <= set(query.carry["probcover on a part"][0].items.tolist())


@pytest.mark.parametrize("cap", [2 << 30, 20_000])
@pytest.mark.parametrize("delta", [None, 0.7])
def test_of_a_very_large_pool_a_part_is_picked_from_by_the_radius_of_the_whole(
    delta: float | None, cap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONG", 4)
    query = make_query(N=400, n=6)
    strategy = ProbCover(delta, exact_up_to=100, sample=50, memory_cap=cap, probe=10**6)
    with pytest.warns(UserWarning, match="random ones"):
        picks = strategy.select(query, 7)
    part = query.carry["probcover on a part"][0]
    assert part.size == 200 if cap > 20_000 else 50 <= part.size < 200
    assert set(picks[0].tolist()) <= set(part.items.tolist())
    radius = module.purity_delta(query, query.num_classes, 0.95) if delta is None else delta
    query.carry.clear()
    exact = ProbCover(radius, exact_up_to=10**6)
    if cap > 20_000:
        assert torch.equal(Subsampled(exact, 200).select(query, 7), picks)
    query.carry.clear()
    assert torch.equal(strategy.select(query, 7), picks)
    with warnings.catch_warnings(action="ignore"):
        assert_replicates_independent(lambda: strategy, N=400, n=6)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations_of_a_large_pool(situation: str) -> None:
    assert picks_in(ProbCover(exact_up_to=0, probe=2), situation)[1] == 0


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("delta", [None, 0.7, 0.0])
def test_hard_situations(situation: str, delta: float | None) -> None:
    assert picks_in(ProbCover(delta), situation)[1] == 0


def test_replicates() -> None:
    assert_replicates_independent(ProbCover)
    assert torch.equal(*(ProbCover().select(make_query(seeds=(s,), rows=[[0, 1]]), 9) for s in (1, 2)))
