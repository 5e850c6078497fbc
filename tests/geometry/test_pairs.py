"""What is asked of pairs: the smallest distance that is not nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.uherding import width
from strategies.factory import clusters

from alfm.geometry.pairs import smallest_distance


def test_width_is_the_smallest_positive_distance_between_labels() -> None:
    h = clusters(50, 5, 3)[0]
    h[7] = 3.0 * h[2]  # the same direction
    u = torch.from_numpy(h / np.linalg.norm(h, axis=1, keepdims=True))
    for rows in ([2, 7, 11, 30], list(range(50)), [2, 7], [4], []):
        assert smallest_distance(u[rows]) == pytest.approx(width(h, np.array(rows, int)), rel=1e-9)
    assert smallest_distance(u[[2, 7]]) == 1.0


def test_the_width_where_many_rows_are_equal_and_others_nearly() -> None:
    h = clusters(60, 5, 3)[0]
    h[10:50] = h[10]
    h[50] = h[10] * (1 + 1e-9)
    h[51] = h[10] + 1e-4
    u = torch.from_numpy(h / np.linalg.norm(h, axis=1, keepdims=True))
    expected = width(h, np.arange(60))
    assert smallest_distance(u) == pytest.approx(expected, rel=1e-6) and expected < 1e-3
    assert smallest_distance(u.float()) == pytest.approx(expected, rel=1e-2)
    assert smallest_distance(u[10:51]) == 1.0
    many = torch.nn.functional.normalize(torch.randn(2100, 4, generator=torch.Generator().manual_seed(0)).double())
    assert smallest_distance(many) == pytest.approx(float(torch.nn.functional.pdist(many).min()), rel=1e-9)
