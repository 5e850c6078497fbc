"""What a line search does with logits: against the objective itself, and the kernels in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from fused.on_card import SCALARS, alike, compiled, interpreted
from torch import Tensor

from alfm.fused import line_search
from alfm.fused.line_search import line_attempts, line_outcomes, line_slopes, residuals

SHAPES = [(2, 3, 5), (3, 10, 48), (1, 130, 20), (2, 2, 100)]  # R C n


def state(R: int, C: int, n: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """All that the operations take; the first replicate has converged and its last item weighs nothing."""
    draw = torch.Generator().manual_seed(C * n)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    weight = random(R, n).exp()
    weight[0, -1] = 0
    Z = 3 * random(R, C, n)
    Z[:, 0] -= 1e4 * (C > 2)  # a class that has no items
    target = torch.randint(int(C > 2), C, (R, n), generator=draw)
    target[:, 0] = C - 1
    Y = torch.zeros_like(Z).scatter_(1, target[:, None], 1.0)
    made = {
        "Z": Z, "dZ": random(R, C, n), "d": random(R, C + 9), "used": torch.linspace(0.1, 1.0, R).double(),
        "lse": torch.zeros(R, n), "weight": weight, "wY": weight[:, None] * Y, "t": torch.linspace(0.5, 1, R).double(),
        "l2": torch.tensor(0.2), "line": random(R, 130, 3).square(), "f": torch.full((R,), 1e9),
    }  # fmt: skip
    made["lse"] = torch.logsumexp(Z + made["used"][:, None, None] * made["dZ"], 1)
    flags = {"running": torch.arange(R) >= min(1, R - 1), "worse": torch.zeros(R, dtype=torch.bool)}
    return {name: x.to(dtype).contiguous() for name, x in made.items()} | flags


def taken(at: dict[str, Tensor], *names: str) -> list[Tensor]:
    return [at[name] for name in names]


def test_residuals_are_the_slope_and_bend_of_the_loss() -> None:
    at = state(2, 4, 30, torch.float64)
    Z = (at["Z"] + at["used"][:, None, None] * at["dZ"]).requires_grad_()
    loss = -(at["wY"] * torch.log_softmax(Z, 1)).sum()
    (slope,) = torch.autograd.grad(loss, Z, create_graph=True)
    found, bias, bends = residuals(*taken(at, "Z", "dZ", "used", "lse", "wY", "weight"))
    torch.testing.assert_close(at["Z"], Z.detach())
    torch.testing.assert_close(found, slope.detach())
    torch.testing.assert_close(bias, slope.detach().sum(2))
    P = torch.softmax(Z.detach(), 1)
    torch.testing.assert_close(bends, (at["weight"][:, None] * P * (1 - P)).sum(2))


def test_an_attempt_is_a_step_of_newtons_method() -> None:
    R, C, n = 3, 5, 40
    at = state(R, C, n, torch.float64)
    at["line"] *= 1e-3
    inner, curve, square = at["line"].sum(1).unbind(1)

    def objective(t: Tensor) -> Tensor:
        Z = at["Z"] + t[:, None, None] * moved
        loss = -(at["wY"] * torch.log_softmax(Z, 1)).sum((1, 2))
        return loss + 0.5 * at["l2"] * (square + 2 * t * inner + t.square() * curve)

    moved = at["dZ"] + at["d"][:, 4 : 4 + C, None]
    t = at["t"].clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective(t).sum(), t, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), t)
    newton = (t - slope / bend).detach()
    newton = torch.minimum(torch.maximum(newton, 0.1 * at["t"]), 5 * at["t"])
    slopes = line_slopes(*taken(at, "Z", "dZ", "d", "t", "wY", "weight"), 4)
    torch.testing.assert_close(at["dZ"], moved)
    tried, reached, loss = line_attempts(slopes, *taken(at, "line", "l2", "t", "running", "Z", "dZ", "wY"))
    torch.testing.assert_close(tried, torch.where(at["running"], newton, 0.0))
    there = objective(tried)
    at["f"] = there * torch.tensor([2.0, 0.5, 2.0])
    f, lse = at["f"].clone(), at["lse"].clone()
    outcome = taken(at, "line", "l2"), (tried, reached), taken(at, "f", "lse", "t", "used", "worse")
    line_outcomes(loss, *outcome[0], *outcome[1], *outcome[2])
    worse = torch.tensor([False, True, False])
    assert torch.equal(at["worse"], worse)
    torch.testing.assert_close(at["f"], torch.where(worse, f, there))
    wanted = torch.logsumexp(at["Z"] + tried[:, None, None] * moved, 1)
    torch.testing.assert_close(at["lse"], torch.where(worse[:, None], lse, wanted))
    torch.testing.assert_close(at["used"], torch.where(worse, 0.0, tried))
    torch.testing.assert_close(at["t"], torch.where(worse, tried, 1.0))


def test_the_kernels_make_the_same_numbers() -> None:
    assert interpreted("fused.test_line_search") == ["alike"] * 10 * len(SHAPES)


def compare() -> None:
    """The kernels, interpreted on the CPU, and the texts in torch's operations; both outcomes of an attempt."""
    from alfm.fused.kernels import line_search as kernels

    kernels.PARTS = 4  # then one has several blocks of items
    for dtype in (torch.float32, torch.float64):
        for shape in SHAPES:
            at = state(*shape, dtype)
            given = taken(at, "Z", "dZ", "used", "lse", "wY", "weight")
            print(alike(kernels.residuals, line_search._residuals, given))
            given = [*taken(at, "Z", "dZ", "d", "t", "wY", "weight"), 2]
            print(alike(kernels.line_slopes, line_search._line_slopes, given, in_parts=0))
            slopes = line_slopes(*given).expand(-1, 3, -1) / 3
            given = [slopes.contiguous(), *taken(at, "line", "l2", "t", "running", "Z", "dZ", "wY")]
            print(alike(kernels.line_attempts, line_search._line_attempts, given, in_parts=2))
            tried, reached, loss = line_attempts(*given)
            for before in (at["f"], torch.zeros_like(at["f"])):
                given = [
                    loss,
                    *taken(at, "line", "l2"),
                    tried,
                    reached,
                    before,
                    *taken(at, "lse", "t", "used", "worse"),
                ]
                print(alike(kernels.line_outcomes, line_search._line_outcomes, given))


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_the_kernels_compile_for_cards(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from alfm.fused.kernels import line_search as kernels

    sums = {"PARTS": kernels.PARTS, "LINE": kernels.LINE}
    blocks = {"ITEMS": kernels.ITEMS, "CLASSES": kernels.CLASSES}
    tiny = torch.finfo(torch.float32 if kind == "fp32" else torch.float64).tiny
    for kernel, constants in (
        (kernels._residuals, {"LANES": 512}),
        (kernels._line_slopes, blocks),
        (kernels._line_attempts, {"TINY": tiny} | sums | blocks),
        (kernels._line_outcomes, {"LANES": 1024} | sums),
    ):
        types = {name: f"*{kind}" for name in kernel.arg_names} | dict.fromkeys(("running", "worse"), "*i1") | SCALARS
        made = compiled(kernel, types, constants, num_warps=4)
        # what several threads read before one writes it: between there is a barrier
        assert ("barrier" in made["ttgir"]) == (kernel is not kernels._line_attempts)
