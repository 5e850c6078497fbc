"""What L-BFGS does with its pairs: against the two loops over pairs, and the kernels in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from fused.on_card import SCALARS, alike, compiled, interpreted
from torch import Tensor

from alfm.fused import quasi_newton
from alfm.fused.quasi_newton import FLOOR, pair_direction, pair_products, pair_shares

SHAPES = [(2, 3, 5, 8, 2, 16), (1, 2, 40, 8, 1, 160), (2, 4, 16, 16, 4, 32), (1, 70, 1, 32, 3, 48)]  # R C k m J w


def state(R: int, C: int, k: int, m: int, J: int, w: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """All that the operations take, as after some steps of a quadratic objective; the last replicate stood still."""
    draw = torch.Generator().manual_seed(C * k)
    P, size = J * w, C * k + C

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    def parts(x: Tensor) -> Tensor:
        return x.view(R, m, J, w).transpose(1, 2)

    padding = torch.arange(P) < size
    q, x2, total, l2 = random(R, C).exp(), random(R, 1, k).square(), random(R, 1).exp(), torch.tensor(0.3).double()
    q[:, 0] = 0
    curve = 2 * quasi_newton._diagonal(q, x2, total, l2, P)
    s = random(R, m, P) * padding
    y = curve[:, None] * s + 0.1 * torch.cumsum(s, 2) * padding
    s[0, 1] = y[0, 1] = 0  # a step that was not made
    slot = torch.full((R,), 3)
    order = (torch.arange(m) + 3) % m  # the oldest first
    triangle = torch.einsum("rip,rjp->rij", s[:, order], y[:, order]).triu()
    valid = triangle.diagonal(dim1=1, dim2=2) > 0
    both = valid[:, :, None] & valid[:, None]
    found = torch.linalg.inv(torch.where(both, triangle, torch.eye(m, dtype=torch.float64))) * both
    inverse = torch.empty_like(found)
    inverse[:, order[:, None], order] = found
    numbers = {
        "slope": random(R, C, k), "bias": random(R, C), "x": random(R, P) * padding, "d": random(R, P) * padding,
        "used": torch.rand(R, generator=draw, dtype=torch.float64), "q": q, "x2": x2, "total": total, "l2": l2,
        "steps": parts(s), "changes": parts(y), "inverse": inverse, "bend": torch.linalg.vecdot(s, y),
        "f": random(R).exp(),
    }  # fmt: skip
    if R > 1:
        numbers["used"][-1] = 0
    step = numbers["used"][:, None] * numbers["d"]
    g = torch.cat([numbers["slope"].flatten(1) + l2 * (numbers["x"] + step)[:, : C * k], numbers["bias"]], 1)
    numbers["G"] = torch.nn.functional.pad(g, (0, P - size)) - curve * step
    newest = torch.full((R,), 2)
    flags = {"running": torch.zeros(R, dtype=torch.bool), "worse": torch.arange(R) == 1}
    made = {name: x.to(dtype).contiguous() for name, x in numbers.items()}
    return made | {"slot": slot, "newest": newest} | flags


def taken(at: dict[str, Tensor], *names: str) -> list[Tensor]:
    return [at[name] for name in names]


DIAGONAL = ("q", "x2", "total", "l2")
PRODUCTS = ("slope", "bias", "x", "d", "used", *DIAGONAL, "G", "steps", "changes", "slot")
SHARES = ("inverse", "bend", "newest", "slot", "running")
DIRECTION = (*DIAGONAL, "x", "G", "steps", "changes", "worse", "d")


def two_loops(at: dict[str, Tensor]) -> Tensor:
    """Minus the inverse Hessian times the gradient, pair by pair, newest first and back (Nocedal & Wright 2006)."""
    R, J, m, w = at["steps"].shape
    S, Y = (at[name].transpose(1, 2).reshape(R, m, J * w) for name in ("steps", "changes"))
    H = quasi_newton._diagonal(*taken(at, *DIAGONAL), J * w)
    every = []
    for r in range(R):
        pairs = [(S[r, i], Y[r, i]) for i in ((torch.arange(m) + int(at["slot"][r])) % m).tolist()]
        pairs = [(s, y) for s, y in pairs if s @ y > 0]
        d, alphas = at["G"][r].clone(), []
        for s, y in reversed(pairs):
            alphas.append((s @ d) / (s @ y))
            d -= alphas[-1] * y
        s, y = pairs[-1]
        d = d / H[r] * (s @ y) / (y @ (y / H[r]))
        for s, y in pairs:
            d += s * (alphas.pop() - (y @ d) / (s @ y))
        every.append(-d)
    return torch.stack(every)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_direction_is_that_of_the_two_loops(shape: tuple[int, ...]) -> None:
    at = state(*shape, torch.float64)
    R, C, k, m, J, w = shape
    x, d, G, used, slope = (at[name].clone() for name in ("x", "d", "G", "used", "slope"))
    products, decrease = pair_products(*taken(at, *PRODUCTS))
    torch.testing.assert_close(at["x"], x + used[:, None] * d)
    torch.testing.assert_close(at["G"][:, : C * k], slope.flatten(1) + at["l2"] * at["x"][:, : C * k])
    torch.testing.assert_close(at["changes"][:, :, 3].flatten(1), at["G"] - G)
    H = quasi_newton._diagonal(*taken(at, *DIAGONAL), J * w)
    assert float(H.min()) == FLOOR
    decrement = (at["G"].square() / H).sum(1)
    torch.testing.assert_close(decrease.sum(1), decrement)
    at["f"] = decrement * torch.linspace(0.4, 0.6, R).double()
    shares = pair_shares(products, decrease, at["f"], 1.0, *taken(at, *SHARES))
    assert torch.equal(at["running"], at["f"] < 0.5 * decrement)
    assert at["slot"].tolist() == [4 % m] * R
    assert at["newest"].tolist() == [3 if float(u) else 2 for u in used]
    line = pair_direction(shares, *taken(at, *DIRECTION)).sum(1)
    wanted = torch.where(at["worse"][:, None], d, two_loops(at))
    torch.testing.assert_close(at["d"], wanted)
    A, move = at["x"][:, : C * k], wanted[:, : C * k]
    sums = [(A * move).sum(1), (move * move).sum(1), (A * A).sum(1)]
    torch.testing.assert_close(line, torch.stack(sums, 1))


def test_the_kernels_make_the_same_numbers() -> None:
    assert interpreted("fused.test_quasi_newton") == ["alike"] * 6 * len(SHAPES)


def compare() -> None:
    """The kernels, interpreted on the CPU, and the texts in torch's operations."""
    from alfm.fused.kernels import quasi_newton as kernels

    for dtype in (torch.float32, torch.float64):
        for shape in SHAPES:
            at = state(*shape, dtype)
            given = taken(at, *PRODUCTS)
            print(alike(kernels.pair_products, quasi_newton._pair_products, given))
            products = pair_products(*given)
            given = [*products, at["f"], 0.5, *taken(at, *SHARES)]
            print(alike(kernels.pair_shares, quasi_newton._pair_shares, given))
            given = [pair_shares(*given), *taken(at, *DIRECTION)]
            print(alike(kernels.pair_direction, quasi_newton._pair_direction, given))


@pytest.mark.parametrize("m", [8, 32])
@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_the_kernels_compile_for_cards(kind: str, m: int, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from alfm.fused.kernels import quasi_newton as kernels

    others = dict.fromkeys(("slot", "newest"), "*i64") | dict.fromkeys(("running", "worse"), "*i1") | SCALARS
    for kernel, lanes in (
        (kernels._pair_products, {"FLOOR": FLOOR, "LANES": max(16, 8192 // m**2)}),
        (kernels._pair_shares, {"PARTS": max(8, 8192 // m**2)}),
        (kernels._pair_direction, {"FLOOR": FLOOR, "LANES": max(64, 4096 // m)}),
    ):
        types = {name: f"*{kind}" for name in kernel.arg_names} | others
        made = compiled(kernel, types, {"M": m} | lanes, num_warps=8)
        # between what several threads read and one writes there is a barrier; a direction that stays is the same
        assert ("barrier" in made["ttgir"]) == (kernel is not kernels._pair_direction)
