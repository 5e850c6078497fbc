"""How an operation is made known to torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from alfm import devices

_LIBRARY = torch.library.Library("alfm", "DEF")


def define(schema: str, text: Callable[..., Any], module: str = "") -> None:
    """`torch.ops.alfm.NAME` for a schema `NAME(...) -> ...`: the text, but on CUDA the kernel `kernels.NAME.NAME`, or
    that of another module of kernels.

    Whoever runs a kernel first imports it: Triton takes its time.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, text, "CompositeExplicitAutograd")
    if find_spec("triton") is not None:

        def by_kernel(*given: Any) -> Any:
            kernel = getattr(import_module(f"alfm.fused.kernels.{module or name}"), name)
            with devices.of(given[0]).current():  # Triton launches there
                return kernel(*given)

        _LIBRARY.impl(name, by_kernel, "CUDA")
