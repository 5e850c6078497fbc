"""Counts where the host would wait for a CUDA device, in code that runs on CPU tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# A number, a shape or an error is asked of the device, or values come from host memory.
ASK = {
    "_linalg_check_errors", "_local_scalar_dense", "_unique", "_unique2", "argwhere", "bincount", "equal",
    "lift_fresh", "masked_select", "nonzero", "repeat_interleave", "unique_consecutive", "unique_dim",
}  # fmt: skip
LEAVE = {"__array__", "cpu", "numpy", "tolist"}  # on a CPU tensor nothing is dispatched for these
INDEX = {"index", "index_put", "index_put_", "_index_put_impl_"}


class Waits:
    """`with Waits() as waits: ...`, then `waits.count`; only what this thread does is seen."""

    def __init__(self) -> None:
        self.count = 0
        self._modes = (_Calls(self), _Operations(self))

    def __enter__(self) -> Waits:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class _Calls(TorchFunctionMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        self.waits.count += name in LEAVE
        if name == "__setitem__":  # torch before 2.15 sends a number to the device for every tensor as an index
            self.waits.count += _has_tensor(args[1]) and not isinstance(args[2], Tensor)
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        mask = name in INDEX and any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        moved = name == "_to_copy" and (kwargs or {}).get("device") is not None  # else it is another type
        self.waits.count += name in ASK or mask or moved
        return func(*args, **(kwargs or {}))


def _has_tensor(index: object) -> bool:
    return any(isinstance(i, Tensor) for i in (index if isinstance(index, tuple) else (index,)))
