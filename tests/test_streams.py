from __future__ import annotations

import numpy as np
import pytest
import torch

from alfm.streams import integer, keep_mask, packed_mask, stream, unpack_mask


def test_streams_are_addressed():
    draw = stream(1, 2, "badge").random(5)
    assert np.array_equal(draw, stream(1, 2, "badge").random(5))
    for other in (stream(2, 2, "badge"), stream(1, 3, "badge"), stream(1, 2, "random")):
        assert not np.array_equal(draw, other.random(5))
    assert 0 <= integer(1, 2, "x") < 2**31


def test_masks_do_not_depend_on_blocks_or_neighbours():
    rows = torch.arange(1000)
    whole = keep_mask(7, rows, 37, 0.75)
    parts = torch.cat([keep_mask(7, rows[a : a + 13], 37, 0.75) for a in range(0, 1000, 13)])
    assert torch.equal(whole, parts)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(keep_mask(7, rows[order], 37, 0.75), whole[order])
    assert not torch.equal(whole, keep_mask(8, rows, 37, 0.75))


@pytest.mark.parametrize("drop, dim", [(0.75, 130), (0.5, 64), (0.3, 70)])
def test_masks_keep_the_stated_share_independently(drop: float, dim: int):
    mask = keep_mask(3, torch.arange(20000), dim, drop).float()
    share = 1 - round(drop * 256) / 256
    sd = (share * (1 - share)) ** 0.5
    assert abs(float(mask.mean()) - share) < 5 * sd / mask.numel() ** 0.5
    z = (mask.mean(0) - share) / (sd / 20000**0.5)
    assert float(z.abs().max()) < 5  # no feature is kept more often than chance allows
    centred = mask - mask.mean(0)
    correlation = (centred.T @ centred) / 20000 / sd**2
    correlation.fill_diagonal_(0)
    assert float(correlation.abs().max()) < 6 / 20000**0.5  # features are independent of one another
    shifted = ((mask[1:] - share) * (mask[:-1] - share)).mean() / sd**2
    assert abs(float(shifted)) < 5 / mask[1:].numel() ** 0.5  # and so are neighbouring rows
    counts = mask.sum(1)
    assert float(counts.var()) == pytest.approx(dim * sd**2, rel=0.06)  # more than pairwise: sums are binomial


@pytest.mark.parametrize("steps", [0, 1, 3, 64, 77, 128, 192, 200, 255])
def test_every_drop_probability_is_met_to_a_256th(steps: int):
    kept = keep_mask(11, torch.arange(20000), 64, steps / 256)
    share = 1 - steps / 256
    assert abs(float(kept.double().mean()) - share) <= 5 * (share * (1 - share) / kept.numel()) ** 0.5


def test_masks_of_many_keys_at_once_are_those_of_each_key():
    rows, keys = torch.tensor([5, 0, 900]), [4, 2**61, 7]
    packed = packed_mask(torch.tensor(keys)[:, None], rows, 70, 0.75)
    each = keep_mask(torch.tensor(keys), rows, 70, 0.75)
    for k, key in enumerate(keys):
        mask = keep_mask(key, rows, 70, 0.75)
        assert mask.shape == (3, 70)
        values = unpack_mask(torch.full((1, 2), -1), 70)
        assert torch.equal(unpack_mask(packed[k], 70), mask * values)
        assert bool((values > 0).all())
        assert torch.equal(each[k], mask[k])
