"""Operations with a kernel of ours: the text in torch's operations, and the kernel in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from alfm.fused import masked_features
from alfm.streams import keep_mask

HERE = Path(__file__).parent
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
    """In a process of its own: what triton brings along is interpreted too only where it is imported so."""
    pytest.importorskip("triton")
    env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    code = "import test_fused; test_fused.compare()"
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.split() == ["equal"] * 2 * len(SHAPES), ran.stdout + ran.stderr


def compare() -> None:
    """The kernel, interpreted on the CPU, and the text in torch's operations."""
    from alfm.triton_kernels import masked_features as by_kernel

    for dtype in (torch.float32, torch.float64):
        for *shape, drop in SHAPES:
            given = made(*shape, dtype)  # type: ignore[arg-type]
            (phi, length), (wanted, lengths) = by_kernel(*given, drop), masked_features(*given, drop)  # type: ignore[arg-type]
            torch.testing.assert_close(length, lengths)
            print("equal" if torch.equal(phi, wanted) and phi.dtype == dtype else f"{shape} {drop} {dtype} differ")


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_the_kernel_compiles_for_cards(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """Down to the card's own code, which needs no card."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from alfm.triton_kernels import _masked_features as kernel

    types = {name: f"*{kind}" for name in ("x", "factor", "offset", "phi", "length")} | {"keys": "*i64", "rows": "*i64"}
    signature = {name: types.get(name, "i32" if name.islower() else "constexpr") for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs={"PLACES": 2, "WORDS": 16})
    made_of = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"enable_fp_fusion": False})
    assert len(made_of.asm["cubin"]) > 1000 and "fma.rn.f" not in made_of.asm["ptx"]
