"""Logits of features under masks: the text in torch's operations, and the kernel in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fused.on_card import compiled, interpreted, there

from alfm.fused.masked_logits import masked_logits
from alfm.streams import keep_mask

SHAPES = [(1, 3, 5, 64, 4, 0.75), (2, 2, 70, 100, 3, 0.5), (1, 2, 3, 1100, 20, 0.3), (2, 1, 3, 130, 130, 0.0)]
SHAPES += [(1, 1, 2, 7, 1, 0.99)]
UNIT = [False, True]


def made(R: int, M: int, b: int, D: int, C: int, drop: float, dtype: torch.dtype, unit: bool) -> tuple[Any, ...]:
    """Arguments of `masked_logits`; two replicates share factors and offsets."""
    draw = torch.Generator().manual_seed(D)
    keys = torch.randint(-(2**62), 2**62, (R, M), generator=draw)
    rows = torch.randint(0, 10**9, (b,), generator=draw)
    x, factor, offset = (torch.randn(shape, generator=draw, dtype=dtype) for shape in ((b, D), (D,), (D,)))
    weight, bias = (torch.randn(shape, generator=draw, dtype=dtype) for shape in ((R, C, D), (R, C)))
    return keys, rows, x, factor.expand(R, D), offset.expand(R, D), weight, bias, unit, drop


@pytest.mark.parametrize("unit", UNIT)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_of_features_under_masks(shape: tuple[Any, ...], dtype: torch.dtype, unit: bool) -> None:
    keys, rows, x, factor, offset, weight, bias, _, drop = given = made(*shape, dtype, unit)
    got = masked_logits(*given)
    assert got.dtype == dtype
    for r in range(len(keys)):
        for m, key in enumerate(keys[r].tolist()):
            phi = torch.where(keep_mask(key, rows, x.shape[1], drop), x * factor[r], 0) + offset[r]
            length = phi.norm(dim=1, keepdim=True) if unit else 1
            close(got[r, m], (phi / length) @ weight[r].T + bias[r])


def test_the_kernel_makes_the_same_logits() -> None:
    assert interpreted("fused.test_masked_logits") == ["equal"] * 4 * len(SHAPES)


def compare() -> None:
    """The kernel, interpreted or on a card, and the text in torch's operations."""
    from alfm.fused.kernels.masked_logits import masked_logits as kernel

    by_kernel = there(kernel)
    for dtype in (torch.float32, torch.float64):
        for shape in SHAPES:
            for unit in UNIT:
                given = made(*shape, dtype, unit)  # type: ignore[arg-type]
                close(there(by_kernel)(*given), masked_logits(*given))
                print("equal")


def close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    eps = torch.finfo(got.dtype).eps
    torch.testing.assert_close(got, wanted, rtol=100 * eps, atol=1000 * eps)


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_the_kernel_compiles_for_cards(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from alfm.fused.kernels.masked_logits import _masked_logits as kernel

    floats = ("x", "factor", "offset", "weight", "bias", "out")
    types = {name: f"*{kind}" for name in floats} | {"keys": "*i64", "rows": "*i64"}
    items, classes = (64, 128) if kind == "fp32" else (32, 64)
    made_of = compiled(kernel, types, {"PLACES": 2, "UNIT": True, "ITEMS": items, "CLASSES": classes})
    assert "tf32" not in made_of["ptx"]
