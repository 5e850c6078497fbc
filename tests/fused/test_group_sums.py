"""Sums by group: the text in torch's operations, and the kernel in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from fused.on_card import compiled, interpreted, there
from torch import Tensor

from alfm.fused import group_sums as module
from alfm.fused.group_sums import group_sums

SHAPES = [(1, 40, 5, 7), (3, 100, 4, 130), (2, 33, 1, 1), (2, 50, 60, 16)]


def made(R: int, n: int, G: int, D: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Rows of 2 n, groups of which some are empty and some items are in none, and weights."""
    draw = torch.Generator().manual_seed(n)
    x = torch.randn(2 * n, D, generator=draw, dtype=dtype)
    rows = torch.randint(0, 2 * n, (R, n), generator=draw)
    group = torch.randint(0, G + 1, (R, n), generator=draw).sort(dim=1).values
    edges = torch.searchsorted(group, torch.arange(G + 1).expand(R, -1).contiguous())
    return x, rows, edges, torch.rand(R, n, generator=draw, dtype=dtype)


def plain(x: Tensor, rows: Tensor, edges: Tensor, weight: Tensor | None) -> Tensor:
    total = torch.zeros(len(rows), edges.shape[1] - 1, x.shape[1], dtype=torch.float64)
    for r, own in enumerate(edges.tolist()):
        for g in range(len(own) - 1):
            for i in range(own[g], own[g + 1]):
                total[r, g] += (x[rows[r, i]] * (1 if weight is None else weight[r, i])).double()
    return total


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("numbers", [1 << 25, 1])
def test_sums_of_groups(shape, dtype: torch.dtype, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NUMBERS", numbers)
    x, rows, edges, weight = made(*shape, dtype)
    for own in (None, weight):
        torch.testing.assert_close(group_sums(x, rows, edges, own), plain(x, rows, edges, own), rtol=1e-12, atol=1e-12)


def test_pieces_of_the_text_are_one_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    x, rows, edges, weight = made(2, 1000, 3, 5, torch.float64)
    whole = group_sums(x, rows, edges, weight)
    monkeypatch.setattr(module, "_NUMBERS", 1)  # 256 rows at a time
    torch.testing.assert_close(group_sums(x, rows, edges, weight), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole, plain(x, rows, edges, weight), rtol=1e-12, atol=1e-12)


def test_the_kernel_makes_the_same_sums() -> None:
    assert interpreted("fused.test_group_sums") == ["equal"] * 4 * len(SHAPES)


def compare() -> None:
    from alfm.fused.kernels.group_sums import group_sums as kernel

    by_kernel = there(kernel)
    for dtype in (torch.float32, torch.float64):
        for shape in SHAPES:
            *given, weight = made(*shape, dtype)
            for own in (None, weight):
                torch.testing.assert_close(by_kernel(*given, own), group_sums(*given, own), rtol=1e-12, atol=1e-12)
                print("equal")


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_the_kernel_compiles(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from alfm.fused.kernels.group_sums import _group_sums as kernel

    types = {"x": f"*{kind}", "weights": f"*{kind}", "rows": "*i64", "edges": "*i64", "total": "*fp64"}
    for weighted in (False, True):
        compiled(kernel, types, {"WEIGHTED": weighted, "ROWS": 16, "COLUMNS": 128})
