"""How an operation is made known to torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from alfm import devices

_LIBRARY = torch.library.Library("alfm", "DEF")


def define(schema: str, text: Callable[..., Any], module: str = "") -> None:
    """`torch.ops.alfm.NAME` for a schema `NAME(...) -> ...`: the text, but on CUDA the kernel `kernels.NAME.NAME`, or
    that of another module of kernels, where Triton runs.

    Whoever runs a kernel first imports it: Triton takes its time.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, text, "CompositeExplicitAutograd")
    if find_spec("triton") is not None:

        def by_kernel(*given: Any) -> Any:
            with devices.of(given[0]).current():  # Triton launches there
                made = kernel(module or name, name) if runs(given[0].device) else text
                return made(*given)

        _LIBRARY.impl(name, by_kernel, "CUDA")


def kernel(module: str, name: str) -> Callable[..., Any]:
    """A kernel as a function of what its operation is given."""
    found: Callable[..., Any] = getattr(import_module(f"alfm.fused.kernels.{module}"), name)
    return found


@cache
def runs(device: torch.device) -> bool:
    """Whether Triton runs on a GPU: it needs a C compiler and Python's headers, which not every system has. Tried once
    per process; a warning says why it does not. Where it is not installed it does not."""
    if find_spec("triton") is None:
        return False
    one = torch.ones(2, 1, device=device)
    rows, edges = torch.tensor([[0, 1]], device=device), torch.tensor([[0, 2]], device=device)
    try:
        total = float(kernel("group_sums", "group_sums")(one, rows, edges, None))
    except Exception as problem:  # of whatever kind: compilers, drivers and loaders have their own
        why = (str(problem).strip() or repr(problem)).splitlines()[0]
        warnings.warn(
            f"Triton does not run on {device} ({why[:200]}): torch's own operations are used, which take longer.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    assert total == 2, f"a sum of two ones is {total}"
    return True
