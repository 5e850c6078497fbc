"""What can be tried of a kernel: its numbers in Triton's interpreter, and on a card where there is one; and without one
that it compiles for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

TESTS = Path(__file__).parents[1]


CARD = "ALFM_KERNELS_ON_CARD"


def interpreted(module: str) -> list[str]:
    """The lines that `compare()` of a module of tests prints, kernels interpreted on the CPU; on a card the same.

    In a process of its own: what triton brings along is interpreted too only where it is imported so.
    """
    pytest.importorskip("triton")
    found = _printed(module, {"TRITON_INTERPRET": "1"})
    if torch.cuda.is_available() and "device.simulated" not in sys.modules:
        assert _printed(module, {CARD: "1"}) == found
    return found


def _printed(module: str, how: dict[str, str]) -> list[str]:
    env = os.environ | how | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    code = f"import {module} as tests; tests.compare()"
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.splitlines()


def there(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel for tensors of the CPU: itself where it is interpreted, else by way of the card."""
    if CARD not in os.environ:
        return kernel

    def by_card(*given: Any) -> Any:
        own = [x.cuda() if isinstance(x, Tensor) else x for x in given]
        made = kernel(*own)
        for x, after in zip(given, own, strict=True):
            if isinstance(x, Tensor) and not torch.equal(x, after.cpu()):
                x.copy_(after)
        if isinstance(made, Tensor):
            return made.cpu()
        return made if made is None else tuple(x.cpu() for x in made)

    return by_card


def alike(kernel: Callable[..., Any], text: Callable[..., Any], given: Sequence[Any], in_parts: int = -1) -> str:
    """Do both leave the same numbers, to rounding, in what they return and in what they were given? given: as it was.

    in_parts: the place of a result of which only the sums over the parts (dimension 1) are the same.
    """
    ends = []
    for made in (there(kernel), text):
        own = [x.clone() if isinstance(x, Tensor) else x for x in given]
        found = made(*own)
        found = [found] if isinstance(found, Tensor) else list(found or ())
        found = [x.sum(1) if i == in_parts else x for i, x in enumerate(found)]
        ends.append(found + [x for x in own if isinstance(x, Tensor)])
    for i, (one, other) in enumerate(zip(*ends, strict=True)):
        atol = 100 * torch.finfo(other.dtype).eps * float(other.abs().max()) if other.is_floating_point() else 0.0
        if one.dtype != other.dtype or not torch.allclose(one, other, rtol=0, atol=atol):
            return f"{kernel.__name__}: number {i} differs, {one} for {other}"
    return "alike"


SIZES = ("C", "k", "w", "n", "P", "offset", "span", "parts", "slope_parts", "line_parts", "loss_parts")
SCALARS = dict.fromkeys(SIZES, "i32") | {"tolerance": "fp32"}
"""Arguments of the heads' kernels that are no tensors."""


def compiled(kernel: Any, types: Mapping[str, str], constants: Mapping[str, Any], **options: Any) -> Mapping[str, Any]:
    """The texts of a kernel down to a card's own code, `cubin`, which needs no card.

    types: of the arguments that are not int32; constants: of the compile-time ones.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=dict(constants))
    made: Mapping[str, Any] = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options).asm
    assert len(made["cubin"]) > 1000
    return made
