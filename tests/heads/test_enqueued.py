"""Fits whose steps the host only enqueues, as on a GPU, end where those end that it looks at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from alfm import devices
from alfm.features.features import Features
from alfm.heads import enqueued as course
from alfm.heads import logistic, solver
from alfm.heads.enqueued import LOOK, Enqueued
from alfm.heads.linear import LinearHead
from alfm.heads.logistic import Logistic
from alfm.heads.objective import Problem

C = 7


@pytest.fixture(scope="module")
def pool() -> Features:
    rng = np.random.default_rng(0)
    return Features((rng.normal(size=(C, 24)).repeat(60, 0) + rng.normal(size=(C * 60, 24))).astype(np.float32))


def rows_of(n: int, R: int = 3) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(n)
    rows = torch.from_numpy(np.stack([rng.choice(C * 60, n, replace=False) for _ in range(R)]))
    rows[-1, n - 4 :] = -1  # a replicate with fewer labels
    return rows, torch.where(rows >= 0, rows // 60, -1)


@pytest.fixture
def enqueued(pool: Features, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As on a GPU, but for its graphs; the steps that were made."""
    of, steps, own = devices.of, [], Enqueued._step
    monkeypatch.setattr(pool, "joins_replicates", True)
    monkeypatch.setattr(devices, "of", lambda x: replace(of(x), looks_are_free=False, joins_replicates=True))
    monkeypatch.setattr(Enqueued, "_step", lambda self: (steps.append(1), own(self))[1])
    return steps


def difference(one: LinearHead, other: LinearHead) -> float:
    """Of their probabilities at most, over the columns' common shift."""
    return max(
        float((a - b).abs().max()) / float(b.abs().max())
        for a, b in ((one.weight, other.weight), (one.bias, other.bias))
    )


@pytest.mark.parametrize("n", [9, 200])
def test_they_reach_the_same_heads(n: int, pool: Features, request: pytest.FixtureRequest) -> None:
    head = Logistic(tolerance=1e-6)
    rows, targets = rows_of(n)
    strengths = [0.01, 1.0, 100.0]
    wanted = head.fit(pool, rows, targets, C)
    path = list(head.along_strengths(pool, rows[:2], targets[:2], C, strengths))
    steps = request.getfixturevalue("enqueued")
    assert difference(head.fit(pool, rows, targets, C), wanted) < 2e-2
    assert len(steps) % LOOK == 0 and len(steps) < 100
    assert difference(head.fit(pool, rows, targets, C, previous=wanted), wanted) < 2e-2
    for one, other in zip(head.along_strengths(pool, rows[:2], targets[:2], C, strengths), path, strict=True):
        assert difference(one, other) < 2e-2


def test_about_as_many_steps_are_made(pool: Features, enqueued: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    looked, own = [], Problem.derivatives
    monkeypatch.setattr(Problem, "derivatives", lambda self, at: (looked.append(1), own(self, at))[1])
    rows, targets = rows_of(200)
    Logistic().fit(pool, rows, targets, C)
    there = replace(devices.of("cpu"), looks_are_free=True)
    monkeypatch.setattr(solver.devices, "of", lambda x: there)
    del looked[:]
    Logistic().fit(pool, rows, targets, C)
    assert len(looked) <= len(enqueued) <= len(looked) + 2 * LOOK


def test_a_replicate_does_not_depend_on_its_company(pool: Features, enqueued: list[int]) -> None:
    """To rounding: products of other shapes may round otherwise."""
    rows, targets = rows_of(50)
    together = Logistic().fit(pool, rows, targets, C)
    for r in range(2):
        alone = Logistic().fit(pool, rows[r : r + 1], targets[r : r + 1], C)
        assert torch.allclose(alone.weight[0], together.weight[r], atol=1e-5)


def test_a_step_that_was_too_long_is_made_again(pool: Features, enqueued: list[int], monkeypatch) -> None:
    rows, targets = rows_of(60)
    wanted = Logistic(tolerance=1e-6).fit(pool, rows, targets, C)
    begun, own = [], course.line_attempts

    def attempts(slopes, line, l2, t, running, *given):
        tried, reached, loss = own(slopes, line, l2, t, running, *given)
        if bool(running.any()):
            begun.append(t.clone())
            loss[1:] += 1e9 * (len(begun) == 1)  # as if all but replicate 0 had gone too far
        return tried, reached, loss

    monkeypatch.setattr(course, "line_attempts", attempts)
    assert difference(Logistic(tolerance=1e-6).fit(pool, rows, targets, C), wanted) < 2e-2
    assert float(begun[1][0]) == 1 and not bool((begun[1][1:] == 1).any())  # the others go on from where they were


def test_few_steps_end_a_fit(pool: Features, enqueued: list[int]) -> None:
    rows, targets = rows_of(60)
    Logistic(max_iterations=3).fit(pool, rows, targets, C)
    assert len(enqueued) == 3


def test_no_batch_of_matrices_is_decomposed(pool: Features, enqueued: list[int], monkeypatch) -> None:
    rows, targets = rows_of(8)
    Logistic().prepare(pool)
    monkeypatch.setattr(torch.linalg, "eigh", lambda *args: pytest.fail("an eigendecomposition"))
    Logistic().fit(pool, rows, targets, C)


def test_fits_that_memory_does_not_hold_together_are_made_in_parts(
    pool: Features, enqueued: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, targets = rows_of(60)
    wanted = Logistic().fit(pool, rows, targets, C)
    sizes, own = [], solver.solve
    monkeypatch.setattr(devices.Device, "at_once", lambda self, replicates, numbers, most: 2)
    monkeypatch.setattr(logistic, "solve", lambda *args: (sizes.append(len(args[2])), own(*args))[1])
    found = Logistic().fit(pool, rows, targets, C)
    assert sorted(sizes) == [1, 2] and torch.allclose(found.weight, wanted.weight, atol=1e-4)
