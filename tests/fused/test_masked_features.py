"""Features under masks: the text in torch's operations, and the kernel in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from fused.on_card import compiled, interpreted
from torch import Tensor

from alfm.fused.masked_features import masked_features
from alfm.streams import keep_mask

SHAPES = [(3, 5, 64, 0.75), (2, 4, 100, 0.5), (2, 3, 1100, 0.3), (2, 3, 130, 0.0), (1, 2, 7, 0.99)]


def made(K: int, b: int, D: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Keys, rows, features, factors and offsets."""
    draw = torch.Generator().manual_seed(D)
    keys = torch.randint(-(2**62), 2**62, (K,), generator=draw)
    rows = torch.randint(0, 10**9, (b,), generator=draw)
    x, factor, offset = (torch.randn(shape, generator=draw, dtype=dtype) for shape in ((b, D), (D,), (D,)))
    return keys, rows, x, factor, offset


@pytest.mark.parametrize("K, b, D, drop", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_under_masks(K: int, b: int, D: int, drop: float, dtype: torch.dtype) -> None:
    keys, rows, x, factor, offset = made(K, b, D, dtype)
    phi, length = masked_features(keys, rows, x, factor, offset, drop)
    assert phi.dtype == length.dtype == dtype
    for k, key in enumerate(keys.tolist()):
        plain = torch.where(keep_mask(key, rows, D, drop), x * factor, 0) + offset
        torch.testing.assert_close(phi[k], plain, rtol=0, atol=0)
        torch.testing.assert_close(length[k], plain.norm(dim=1))


def test_the_kernel_makes_the_same_bits() -> None:
    assert interpreted("fused.test_masked_features") == ["equal"] * 2 * len(SHAPES)


def compare() -> None:
    """The kernel, interpreted on the CPU, and the text in torch's operations."""
    from alfm.fused.kernels.masked_features import masked_features as by_kernel

    for dtype in (torch.float32, torch.float64):
        for *shape, drop in SHAPES:
            given = made(*shape, dtype)  # type: ignore[arg-type]
            (phi, length), (wanted, lengths) = by_kernel(*given, drop), masked_features(*given, drop)  # type: ignore[arg-type]
            torch.testing.assert_close(length, lengths)
            print("equal" if torch.equal(phi, wanted) and phi.dtype == dtype else f"{shape} {drop} {dtype} differ")


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_the_kernel_compiles_for_cards(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from alfm.fused.kernels.masked_features import _masked_features as kernel

    types = {name: f"*{kind}" for name in ("x", "factor", "offset", "phi", "length")} | {"keys": "*i64", "rows": "*i64"}
    made_of = compiled(kernel, types, {"PLACES": 2, "WORDS": 16}, enable_fp_fusion=False)
    assert "fma.rn.f" not in made_of["ptx"]
