"""What NumPy does in place and what torch does elsewhere are the same operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from alfm import devices, host_ops

X = torch.randint(0, 9, (40, 30), generator=torch.Generator().manual_seed(0)).float()  # small numbers: many ties
MASK, ROW = X > 4, X[:, 0].contiguous()


def grouped() -> Tensor:
    total = torch.ones(5, 30, dtype=torch.float64)
    rows = torch.arange(0, 40, 2)
    host_ops.add_to_groups(total, rows % 5, torch.where(rows > 20, -1.0, 2.0), X, rows)
    return total


def odd(dtype: torch.dtype) -> Tensor:
    """NaN, Inf and -Inf in three rows, and the largest finite number elsewhere."""
    x = torch.full((7, 3), torch.finfo(dtype).max, dtype=dtype)
    x[1, 0], x[3, 2], x[4, 1] = torch.nan, torch.inf, -torch.inf
    return x


def with_rows(total: Tensor, x: Tensor) -> Tensor:
    host_ops.add_rows(total, torch.arange(40) % 3, x)
    return total


OPERATIONS: dict[str, Callable[[], Tensor]] = {
    "log": lambda: host_ops.log(X[:, 1:] + 1, torch.empty(40, 29)),
    "argmax_rows": lambda: host_ops.argmax_rows(X),
    "argmax_last": lambda: host_ops.argmax_last(X.view(2, 20, 30)),
    "argmax_last by columns": lambda: host_ops.argmax_last(X.view(2, 30, 20).mT),
    "smallest": lambda: host_ops.smallest(X, 7),
    "below": lambda: host_ops.below(X, ROW),
    "finite_rows": lambda: torch.stack([host_ops.finite_rows(odd(kind)) for kind in (torch.float16, torch.float32)]),
    "at_most": lambda: host_ops.at_most(X, 7),
    "places": lambda: host_ops.places(MASK),
    "holds_any": lambda: torch.tensor([host_ops.holds_any(MASK), host_ops.holds_any(MASK[:0])]),
    "any_column": lambda: host_ops.any_column(MASK[:2]),
    "count_rows": lambda: host_ops.count_rows(MASK),
    "take scattered": lambda: host_ops.take(X, torch.tensor([4, 3, 9])),
    "take a range": lambda: host_ops.take(X, torch.arange(4, 9)),
    "take nothing": lambda: host_ops.take(X, torch.arange(0)),
    "add_to_groups": grouped,
    "add_rows": lambda: with_rows(torch.zeros(5, 30), X),
    "add_rows of numbers": lambda: with_rows(torch.ones(5), ROW),
    "running_sums": lambda: host_ops.running_sums(ROW),
    "running_sums of one": lambda: host_ops.running_sums(ROW[:1]),
    "running_sums of rows": lambda: host_ops.running_sums(X.repeat(1, 80)[None]),
    "means_of_groups": lambda: host_ops.means_of_groups(X, torch.arange(40) % 8, 8),
    "widened": lambda: host_ops.widened(X),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_both_ways_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = OPERATIONS[name]()
    other = replace(devices.of("cpu"), numpy_reads=False, has_float64=False)
    monkeypatch.setattr(devices, "of", lambda x: other)
    there = OPERATIONS[name]()
    assert here.dtype == there.dtype
    if name in ("log", "means_of_groups"):
        torch.testing.assert_close(here, there)
    else:
        assert torch.equal(here, there)


def test_a_group_that_does_not_occur_has_the_mean_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    group = 2 * (torch.arange(40) % 3) + 1
    here = host_ops.means_of_groups(X, group, 6)
    other = replace(devices.of("cpu"), numpy_reads=False)
    monkeypatch.setattr(devices, "of", lambda x: other)
    there = host_ops.means_of_groups(X, group, 6)
    torch.testing.assert_close(there, here[[0, 0, 0, 1, 0, 2]])


def test_a_range_of_rows_is_a_view() -> None:
    assert host_ops.take(X, torch.arange(4, 9)).data_ptr() == X[4:].data_ptr()


def test_an_accelerator_is_not_asked_whether_a_mask_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_ops.surely_empty(MASK[:0]) and host_ops.surely_empty(torch.zeros(3, dtype=torch.bool))
    assert not host_ops.surely_empty(MASK)
    monkeypatch.setattr(host_ops, "_on_host", lambda x: None)
    assert not host_ops.surely_empty(MASK[:0])
