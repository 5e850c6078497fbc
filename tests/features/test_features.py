from __future__ import annotations

import numpy as np
import pytest
import torch
from strategies.factory import Rows

from alfm.errors import UserError
from alfm.features.features import Features
from alfm.features.spaces import RAW, UNIT, Scaled
from alfm.heads.linear import LinearHead


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(2, 3, (533, 12)).astype(np.float16)


@pytest.mark.parametrize("memory", ["auto", "device", "host", "file"])
def test_every_memory_setting_shows_the_same_items(features, memory):
    pool = Features(Rows(features) if memory == "file" else features, memory=memory, block_rows=100)
    index = torch.tensor([532, 0, 7, 7, 99, 100])
    wanted = torch.from_numpy(features.astype(np.float32))
    unit = wanted / wanted.norm(dim=1, keepdim=True)
    for vectors, truth in ((pool.raw, wanted), (pool.unit, unit)):
        assert (vectors.matrix is None) == (memory in ("host", "file"))
        assert torch.allclose(torch.cat([x for _, x in vectors.blocks()]), truth, atol=1e-6)
        assert torch.allclose(vectors.rows(index), truth[index], atol=1e-6)
        assert torch.allclose(vectors.sq_norms, truth.square().sum(1), rtol=1e-5)
    mean, sd = pool.moments
    assert np.allclose(mean, features.astype(float).mean(0), atol=1e-5)
    assert np.allclose(sd, features.astype(float).std(0), atol=1e-5)


def test_map_gives_each_replicate_its_logits(features):
    pool = Features(features, block_rows=64)
    generator = torch.Generator().manual_seed(0)
    W, b = torch.randn(3, 4, 12, generator=generator), torch.randn(3, 4, generator=generator)
    shared = Scaled(*pool.moments, unit=True)
    own = [Scaled(*pool.moments, unit=True, shared=False) for _ in range(3)]
    phi = shared(torch.from_numpy(features.astype(np.float32)))
    for spaces in ([shared] * 3, own):
        head = LinearHead(spaces, W, b)
        logits, rows = pool.map(lambda phi, z, rows, r: (z, torch.arange(rows.start, rows.stop)), head)
        assert torch.allclose(logits, torch.einsum("nd,rcd->rnc", phi, W) + b[:, None], atol=1e-5)
        assert torch.equal(rows, torch.arange(533).expand(3, -1))


def test_shared_spaces_are_made_once_and_others_are_not_kept(features):
    pool = Features(features)
    assert pool.vectors(UNIT) is pool.unit and pool.vectors(RAW) is pool.raw
    own = Scaled(*pool.moments, shared=False)
    assert pool.vectors(own) is not pool.vectors(own)
    made = []
    for _ in range(2):
        pool.once("a", lambda: made.append(1))
    assert made == [1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_with_their_row(features, value):
    features[17, 3] = value
    with pytest.raises(UserError, match="first row 17"):
        Features(features)


def test_a_reader_that_checks_what_it_reads_is_not_walked_first(features, monkeypatch):
    class Checked(Rows):
        checked = True

    features[17, 3] = np.nan
    with pytest.raises(UserError, match="first row 17"):
        Features(Rows(features))
    monkeypatch.setattr(Checked, "read", lambda *_: pytest.fail("the pool was walked"))
    assert Features(Checked(features)).N == 533


def test_moments_do_not_depend_on_how_blocks_are_cut_or_who_makes_them():
    x = np.random.default_rng(0).normal(2, 3, (533, 130)).astype(np.float16)
    mean, sd = Features(x, block_rows=100).moments
    wide = torch.from_numpy(x).double()
    parts = [part.sum(0) for part in wide.split(100)]
    whole = sum(parts[1:], parts[0]) / 533
    assert torch.equal(mean, whole.float())
    squares = [(part - whole).square().sum(0) for part in wide.split(100)]
    assert torch.equal(sd, (sum(squares[1:], squares[0]) / 533).sqrt().float())


def test_large_finite_features_are_not_taken_for_infinite():
    pool = Features(np.full((3, 5), 3e38, dtype=np.float32))
    assert pool.N == 3


@pytest.mark.parametrize("bad", [np.zeros((3,), np.float32), np.zeros((0, 4), np.float32), np.zeros((2, 2), np.int64)])
def test_what_is_no_float_matrix_is_refused(bad):
    with pytest.raises(UserError):
        Features(bad)


def test_zero_rows_stay_zero_on_the_sphere():
    pool = Features(np.zeros((2, 3), np.float32))
    assert torch.equal(pool.unit.rows(torch.tensor([0, 1])), torch.zeros(2, 3))


def test_views_are_rows_beyond_the_pool(features):
    extra = np.stack([features + 1, features - 2], 1)
    pool, plain = Features(features, views=extra), Features(features)
    rows = torch.tensor([[4, 532, -1]])
    every, targets, weight = pool.training_rows(rows, torch.tensor([[2, 3, -1]]))
    assert every.tolist() == [[4, 532, -1, 537, 1065, -1, 1070, 1598, -1]] and targets[0].tolist() == [2, 3, -1] * 3
    assert weight is not None and torch.allclose(weight.sum(), torch.tensor(3.0))
    wanted = torch.from_numpy(np.stack([features[532], extra[4, 0], extra[532, 1]]).astype(np.float32))
    assert torch.equal(pool.raw.rows(torch.tensor([532, 537, 1598])), wanted)
    assert torch.equal(pool.raw.matrix, plain.raw.matrix)  # passes see the plain items only
    assert plain.training_rows(rows, rows)[2] is None


def test_a_large_pool_keeps_the_first_copy_alone(features, monkeypatch):
    """And says so; what it shows is the same."""
    monkeypatch.setattr("alfm.features.features.LARGE", 1000)
    monkeypatch.setattr("alfm.features.features._MANY", 1 << 60)
    pool, plain = Features(features, block_rows=64), Features(features, memory="host")
    assert pool.large and pool.resident
    space = Scaled(*pool.moments)
    assert pool.vectors(space).matrix is not None
    assert pool.unit.matrix is None and pool.raw.matrix is None
    assert torch.equal(torch.cat([x for _, x in pool.unit.blocks()]), torch.cat([x for _, x in plain.unit.blocks()]))
    assert "533 x 12 features lie on the device as float16; one copy in float32 is kept" in pool.held
    wide = Features(features.astype(np.float32))
    assert wide.vectors(space).matrix is not None and wide.raw.matrix is wide.features  # that is no copy
    assert "no copy is kept" in Features(Rows(features), memory="file").held
