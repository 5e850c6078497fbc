"""The one place that asks what device there is: its choice, free memory, block sizes, clock and peak memory."""

from __future__ import annotations

import sys
import time

import torch

from alfm.errors import UserError


def free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 8 << 30  # where the system does not say


def feature_block_rows(device: torch.device, dim: int) -> int:
    # CPU: a block of a few MB is large enough for full matmul speed and small enough to stay near the caches.
    # GPU: launches are what costs, so blocks are large.
    target = (8 << 20) if device.type == "cpu" else (256 << 20)
    return max(256, target // (4 * dim))


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far, over all runs of the process: on CUDA by torch's allocator, else its resident set.

    0 where the system does not tell (Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Clock:
    """Wall time between laps, with the device's queue drained at each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.last = self._now()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def lap(self) -> float:
        now = self._now()
        seconds, self.last = now - self.last, now
        return seconds


def choose_device(wanted: str, local_rank: int = 0) -> torch.device:
    """`auto`: CUDA, else MPS, else CPU. A worker of several takes the GPU of its local rank."""
    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    if wanted == "auto":
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UserError(f"device={wanted}: use auto, cpu, cuda, cuda:1 or mps.") from error
    there = {"cpu": True, "mps": torch.backends.mps.is_available()}.get(device.type, False)
    if device.type == "cuda":
        there = (device.index or 0) < torch.cuda.device_count()
    if not there:
        raise UserError(f"device={wanted} is not there on this machine: use device=auto.")
    return device


def pick_device(device: str = "auto") -> torch.device:
    """`auto`: CUDA, else MPS, else CPU. UserError for a device that this machine does not have."""
    if device != "auto":
        try:
            chosen = torch.device(device)
        except RuntimeError:
            raise UserError(f"There is no device {device!r}: use auto, cpu, cuda, cuda:1 or mps.") from None
        there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
        if (chosen.index or 0) >= there.get(chosen.type, 0):
            raise UserError(f"This machine has no device {device}: use device=auto, or another.")
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
