"""What candidates add to a batch: the text in torch's operations, and the kernel in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from fused.on_card import compiled, interpreted, there
from torch import Tensor

from alfm.fused.joint_gains import joint_gains

SHAPES = [(1, 4, 3, 5, 1), (2, 3, 10, 20, 100), (2, 2, 70, 3, 64), (1, 2, 2, 40, 9)]


def made(R: int, n: int, C: int, M: int, K: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """p, which lies by draws in memory, within, posterior and share."""
    draw = torch.Generator().manual_seed(n)
    p = torch.softmax(3 * torch.randn(R, M, n, C, generator=draw, dtype=dtype), 3).permute(0, 2, 3, 1)
    posterior = torch.softmax(2 * torch.randn(R, K, M, generator=draw, dtype=dtype), 2)
    share = torch.softmax(torch.randn(R, K, generator=draw, dtype=dtype), 1)
    return p, torch.special.entr(p).sum(2), posterior, share


@pytest.mark.parametrize("shape", SHAPES)
def test_gains_are_the_formula(shape: tuple[int, ...]) -> None:
    p, within, posterior, share = given = made(*shape, torch.float64)  # type: ignore[arg-type]
    mixture = torch.einsum("ricm,rkm->rikc", p, posterior)
    each = torch.special.entr(mixture).sum(3) - torch.einsum("rim,rkm->rik", within, posterior)
    expected = (each * share[:, None]).sum(2)
    torch.testing.assert_close(joint_gains(*given), expected)
    one = shape[2] * shape[4]  # candidate by candidate
    torch.testing.assert_close(joint_gains(*given, p.new_empty(2, one)), expected)


def test_the_kernel_gives_the_same() -> None:
    assert interpreted("fused.test_joint_gains") == ["equal"] * 2 * len(SHAPES)


def compare() -> None:
    """The kernel, interpreted or on a card, and the text in torch's operations."""
    from alfm.fused.kernels.joint_gains import joint_gains as kernel

    by_kernel = there(kernel)
    for dtype in (torch.float32, torch.float64):
        for shape in SHAPES:
            given = made(*shape, dtype)  # type: ignore[arg-type]
            eps = torch.finfo(dtype).eps
            torch.testing.assert_close(
                there(by_kernel)(*given, None), joint_gains(*given), rtol=100 * eps, atol=100 * eps
            )
            print("equal")


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_the_kernel_compiles_for_cards(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from alfm.fused.kernels.joint_gains import _joint_gains as kernel

    types = {name: f"*{kind}" for name in ("p", "within", "posterior", "share", "out")}
    made_of = compiled(kernel, types, {"CLASSES": 64, "SIZE": 64, "DRAWS": 32})
    assert "tf32" not in made_of["ptx"]
