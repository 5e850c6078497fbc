"""Items under masks: the text in torch's operations, and the kernel in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from fused.on_card import compiled, interpreted, there
from torch import Tensor

from alfm.fused.masked import masked
from alfm.streams import keep_mask

SHAPES = [(3, 5, 64, 0.75), (2, 4, 100, 0.5), (1, 3, 1100, 0.3), (2, 3, 130, 0.0), (1, 2, 7, 0.99)]


def made(R: int, n: int, D: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Keys of four passes, the number of one, rows and items."""
    draw = torch.Generator().manual_seed(D)
    keys = torch.randint(-(2**62), 2**62, (R, 4), generator=draw)
    rows = torch.randint(0, 10**9, (R, n), generator=draw)
    return keys, torch.tensor([2]), rows, torch.randn(R, n, D, generator=draw, dtype=dtype)


@pytest.mark.parametrize("R, n, D, drop", SHAPES)
def test_items_under_masks(R: int, n: int, D: int, drop: float) -> None:
    keys, number, rows, x = made(R, n, D, torch.float32)
    got = masked(keys, number, rows, x, drop)
    for r in range(R):
        assert torch.equal(got[r], x[r] * keep_mask(int(keys[r, 2]), rows[r], D, drop))


def test_the_kernel_makes_the_same_masks() -> None:
    assert interpreted("fused.test_masked") == ["equal"] * 2 * len(SHAPES)


def compare() -> None:
    """The kernel, interpreted or on a card, and the text in torch's operations."""
    from alfm.fused.kernels.masked import masked as kernel

    by_kernel = there(kernel)
    for dtype in (torch.float32, torch.float64):
        for *shape, drop in SHAPES:
            given = made(*shape, dtype)  # type: ignore[arg-type]
            got, wanted = there(by_kernel)(*given, drop), masked(*given, drop)  # type: ignore[arg-type]
            print("equal" if torch.equal(got, wanted) and got.dtype == dtype else f"{shape} {drop} {dtype} differ")


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_the_kernel_compiles_for_cards(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from alfm.fused.kernels.masked import _masked as kernel

    types = {"keys": "*i64", "number": "*i64", "rows": "*i64", "x": f"*{kind}", "out": f"*{kind}"}
    compiled(kernel, types, {"PLACES": 2, "WORDS": 16})
