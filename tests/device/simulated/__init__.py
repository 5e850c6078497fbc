"""A simulated CUDA device: real numbers on the CPU behind tensors that say they are on cuda:0.

`install()` once per process, which is then of no other use: it patches torch. `Sim`, a wrapper subclass, holds a CPU
tensor; a TorchDispatchMode that is always on sees every operation, raises what CUDA would raise about devices and
types, counts kernels and the host's waits by the line of alfm that caused them, and computes on the CPU tensor.

    with counting() as c: ...  # c.launches, c.syncs, c.launch_sites, c.sync_sites, c.device_time

Copies are as late as CUDA's: memory that a copy in flight will write is filled with NaN until it is waited for, and
what a copy in flight reads must not change. `S.problems` tells of such things, `S.atomic` of float sums in no promised
order, which `S.shuffle` does in a random one. Costs (kernels of an operation, bytes, seconds of a card) are estimates.
"""

from device.simulated.counts import S, counting
from device.simulated.installed import install

__all__ = ["S", "counting", "install"]
