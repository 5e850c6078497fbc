"""Mutual information of draws: the text in torch's operations, and the kernel in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from fused.on_card import compiled, interpreted, there

from alfm.fused.bald import bald

SHAPES = [(4, 30, 10), (2, 3, 700, 3), (1, 5, 6, 1), (2, 2, 3, 3000)]


def made(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Logits, some of them of certain items."""
    logits = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=dtype)
    logits[..., 0, 0] += 5000
    logits[..., -1, -1] = torch.nan  # not a number, for everybody
    return logits


@pytest.mark.parametrize("shape", SHAPES)
def test_mutual_information_is_the_formula(shape: tuple[int, ...]) -> None:
    logits = made(shape, torch.float64)
    p = torch.softmax(logits, -1)
    entropy = torch.special.entr(p.mean(-3)).sum(-1) - torch.special.entr(p).sum(-1).mean(-2)
    torch.testing.assert_close(bald(logits), entropy.clamp_min(0), equal_nan=True)
    assert bald(logits)[..., -1].isnan().all()
    assert (bald(logits)[..., 0] == 0).all()


def test_the_kernel_gives_the_same() -> None:
    assert interpreted("fused.test_mutual_information") == ["equal"] * 4 * len(SHAPES)


def compare() -> None:
    """The kernel, interpreted or on a card, and the text in torch's operations, of logits by items and by classes."""
    from alfm.fused.kernels.bald import bald as kernel

    by_kernel = there(kernel)
    for dtype in (torch.float32, torch.float64):
        for shape in SHAPES:
            logits = made(shape, dtype)
            for given in (logits, logits.mT.contiguous().mT):
                torch.testing.assert_close(there(by_kernel)(given), bald(given), rtol=1e-5, atol=1e-6, equal_nan=True)
                print("equal")


@pytest.mark.parametrize("kind", ["fp16", "fp32", "fp64"])
def test_the_kernel_compiles_for_cards(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from alfm.fused.kernels.bald import _bald as kernel

    types = {"logits": f"*{kind}", "out": f"*{kind}"}
    compiled(kernel, types, {"ITEMS": 16, "CLASSES": 128, "BIT": 0.6931471805599453})
