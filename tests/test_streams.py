from __future__ import annotations

import numpy as np
import torch

from alfm.streams import integer, keep_mask, stream


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


def test_masks_keep_the_stated_share_independently():
    mask = keep_mask(3, torch.arange(20000), 64, 0.75).float()
    sd = (0.25 * 0.75) ** 0.5
    assert abs(float(mask.mean()) - 0.25) < 5 * sd / mask.numel() ** 0.5
    z = (mask.mean(0) - 0.25) / (sd / 20000**0.5)
    assert float(z.abs().max()) < 5  # no feature is kept more often than chance allows
    centred = mask - mask.mean(0)
    correlation = (centred.T @ centred) / 20000 / sd**2
    correlation.fill_diagonal_(0)
    assert float(correlation.abs().max()) < 6 / 20000**0.5  # features are independent of one another
    shifted = ((mask[1:] - 0.25) * (mask[:-1] - 0.25)).mean() / sd**2
    assert abs(float(shifted)) < 5 / mask[1:].numel() ** 0.5  # and so are neighbouring rows
