"""The walk shows every item once to every replicate, one by one or joined, and says the same either way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from alfm import devices
from alfm.acquisition import bald, entropy, least_confidence, margin_uncertainty, variation_ratio
from alfm.features.features import Features
from alfm.features.spaces import RAW, Scaled
from alfm.heads.linear import LinearHead
from alfm.heads.passes import Seen, logits_of, together, walk, walk_draws
from alfm.strategies.parts.gradients import prediction_error

N, D, C, R = 533, 12, 4, 3


@pytest.fixture
def pool() -> Features:
    return Features(np.random.default_rng(0).normal(2, 3, (N, D)).astype(np.float32), block_rows=64)


def heads(pool: Features, shared: bool) -> LinearHead:
    g = torch.Generator().manual_seed(0)
    own = [Scaled(pool.moments[0] + r, pool.moments[1], unit=True, shared=False) for r in range(R)]
    spaces = [RAW] * R if shared else own
    return LinearHead(spaces, torch.randn(R, C, D, generator=g), torch.randn(R, C, generator=g))


@pytest.fixture
def joining(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host as a device on which joined products cost less."""
    there = replace(devices.of("cpu"), joins_replicates=True)
    monkeypatch.setattr(devices, "of", lambda x: there)


def scores(seen: Seen) -> tuple[Tensor, Tensor]:
    error = prediction_error(seen.logits)
    length = torch.linalg.vecdot(error, error) * torch.linalg.vecdot(seen.phi, seen.phi)
    return torch.stack([length, margin_uncertainty(seen.logits), entropy(seen.logits)], -1), seen.logits.argmax(-1)


@pytest.mark.parametrize("shared", [True, False])
def test_each_replicate_is_seen_alone_on_cpu_with_the_bits_it_has_alone(pool: Features, shared: bool) -> None:
    head, shapes = heads(pool, shared), set()

    def fn(seen: Seen) -> tuple[Tensor, Tensor]:
        shapes.add(seen.logits.shape[::2])
        return scores(seen)

    value, label = walk(pool, head, fn)
    assert shapes == {(1, C)} and value.shape == (R, N, 3) and label.dtype == torch.int64
    for r in range(R):
        alone = walk(pool, head.part(slice(r, r + 1)), scores)
        assert torch.equal(alone[0][0], value[r]) and torch.equal(alone[1][0], label[r])


@pytest.mark.parametrize("shared", [True, False])
def test_joined_replicates_are_seen_together_and_agree(pool: Features, shared: bool, joining: None) -> None:
    head, seen_together = heads(pool, shared), set()

    def fn(seen: Seen) -> tuple[Tensor, Tensor]:
        seen_together.add((seen.replicates.start, seen.replicates.stop, len(seen.logits)))
        return scores(seen)

    value, label = walk(pool, head, fn)
    assert seen_together == {(0, R, R)}
    expected = walk(pool, head, scores, joined=False)
    torch.testing.assert_close(value, expected[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(label, expected[1])


def test_as_many_replicates_are_joined_as_fit_into_half_of_the_memory(
    pool: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = replace(devices.of("cpu"), joins_replicates=True)
    monkeypatch.setattr(devices, "of", lambda x: there)
    monkeypatch.setattr(devices, "SURELY_FREE", 0)
    monkeypatch.setattr(devices.Device, "free_bytes", lambda self: 2 * 2 * 4 * devices.COPIES * 64 * C)
    sizes = []

    def fn(seen: Seen) -> Tensor:
        sizes.append(len(seen.logits))
        return seen.logits[..., 0]

    head = heads(pool, True)
    torch.testing.assert_close(walk(pool, head, fn), torch.stack([logits_of(pool, head, r)[:, 0] for r in range(R)]))
    assert set(sizes[: 2 * -(-N // 64)]) == {2, 1}
    assert together(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]


@pytest.mark.parametrize("shared", [True, False])
def test_functions_of_one_replicate_get_its_numbers_only(pool: Features, shared: bool, joining: None) -> None:
    shapes = set()

    def fn(phi: Tensor, logits: Tensor, rows: slice, r: int) -> Tensor:
        shapes.add((phi.ndim, logits.ndim))
        return torch.full_like(logits[:, 0], r)

    assert torch.equal(pool.map(fn, heads(pool, shared)), torch.arange(R).float()[:, None].expand(R, N))
    assert shapes == {(2, 2)}


def test_coordinates_at_hand_are_not_made_again(pool: Features) -> None:
    head = heads(pool, False)
    for r in range(R):
        vectors = pool.vectors(head.spaces[r])
        vectors.matrix = pool.materialise(vectors.space)
        assert torch.equal(logits_of(vectors, head, r), logits_of(pool, head, r))


def test_a_heads_forms_agree(pool: Features) -> None:
    x = pool.raw.rows(torch.arange(50))
    for shared in (True, False):
        head = heads(pool, shared)
        phi = x if shared else head.embed(x)
        every = head.logits(phi)
        assert every.shape == (R, 50, C)
        for r in range(R):
            own = head.part(slice(r, r + 1))
            assert torch.equal(head.forward(x, r), own.logits(own.embed(x))[0])
            torch.testing.assert_close(every[r], head.forward(x, r))


def test_draws_are_shown_replicate_by_replicate(pool: Features) -> None:
    class Both:
        passes, joint, R, C = 2, True, R, C

        def logits(self, rows: slice | Tensor, x: Tensor, r: int) -> Tensor:
            return torch.stack([x[:, :C] * (r + 1), x[:, C : 2 * C]])

    shown = walk_draws(pool, Both(), lambda seen: bald(seen.logits))
    assert shown.shape == (R, N)
    for r in range(R):
        torch.testing.assert_close(shown[r], bald(Both().logits(slice(0, N), pool.features, r)))


@pytest.mark.parametrize("fn", [entropy, least_confidence, margin_uncertainty, prediction_error])
def test_scores_of_logits_take_replicates_ahead(fn) -> None:
    z = torch.randn(R, 20, C, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(fn(z), torch.stack([fn(own) for own in z]), rtol=0, atol=0)


@pytest.mark.parametrize("fn", [bald, variation_ratio])
def test_scores_of_draws_take_replicates_ahead(fn) -> None:
    z = torch.randn(R, 5, 20, C, generator=torch.Generator().manual_seed(1))
    for some in (z, z[:1]):
        assert torch.equal(fn(some), torch.stack([fn(own) for own in some]))


def test_a_part_of_heads_that_share_nothing_keeps_nothing(pool: Features) -> None:
    """Spaces of which each could be shared, but not by all: round after round there are new ones, and none is held."""

    def ask() -> int:
        own = [Scaled(pool.moments[0] + r, pool.moments[1], unit=True) for r in range(R)]
        head = LinearHead(own, torch.randn(R, C, D), torch.randn(R, C))
        assert not head.shared and not head.part(slice(1, 2)).shared
        for r in range(R):
            logits_of(pool, head, r)
        return len(pool.kept._made)

    assert ask() == ask() == ask()
