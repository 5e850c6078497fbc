"""The most typical items of groups: the text in torch's operations, and the kernels in Triton's interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fused.on_card import compiled, interpreted, there
from reference.typiclust import typicality
from torch import Tensor

from alfm.fused import most_typical as module
from alfm.fused.most_typical import most_typical

SIZES = [[1, 2, 3, 30, 17, 4], [5], [40, 1, 1, 33, 2], [0, 3, 0]]


def made(sizes: list[int], dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Items, some of them equal, and where groups begin and end."""
    draw = torch.Generator().manual_seed(sum(sizes))
    x = torch.randn(sum(sizes), dim, generator=draw, dtype=dtype)
    x[-3:] = x[-1]
    x[len(x) // 2] = x[len(x) // 2 - 1]
    return x, torch.tensor([0, *sizes]).cumsum(0)


@pytest.mark.parametrize("numbers", [1 << 24, 1])
@pytest.mark.parametrize("neighbours", [1, 5, 20])
@pytest.mark.parametrize("sizes", SIZES)
def test_of_each_group(sizes: list[int], neighbours: int, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NUMBERS", numbers)
    x, edges = made(sizes, 7, torch.float64)
    found = most_typical(x, edges, max(sizes), neighbours).tolist()
    for group, place in zip(x.split(sizes), found, strict=True):
        if len(group) < 3:
            assert place == 0
            continue
        distances = torch.cdist(group, group, compute_mode="donot_use_mm_for_euclid_dist").numpy()
        best = np.argmax(typicality(distances, list(range(len(group))), min(neighbours, len(group) // 2)))
        assert torch.equal(group[place], group[best]) and not (group[:place] == group[place]).all(1).any()


def test_the_kernels_find_the_same() -> None:
    assert interpreted("fused.test_most_typical") == ["equal"] * 4 * len(SIZES)


def compare() -> None:
    from alfm.fused.kernels.most_typical import most_typical as kernel

    by_kernel = there(kernel)
    for dtype in (torch.float32, torch.float64):
        for sizes in SIZES:
            for dim, neighbours in ((7, 20), (33, 2)):
                given = *made(sizes, dim, dtype), max(sizes), neighbours
                found, wanted = by_kernel(*given), most_typical(*given)
                print("equal" if torch.equal(found, wanted) else f"{found} for {wanted}")


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
@pytest.mark.parametrize("side", [64, 1024])
def test_the_kernels_compile_for_cards(kind: str, side: int, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from alfm.fused.kernels.most_typical import COLUMNS, _means, _smallest

    types = {"x": f"*{kind}", "mean": f"*{kind}", "edges": "*i64", "found": "*i64"}
    for kernel in (_means, _smallest):
        compiled(kernel, types, {"SIDE": side, "COLUMNS": COLUMNS})
