"""The mapper: a batch on the CPU in, features on the CPU out, computed on any device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alfm import devices
from alfm.backbones.base import Backbone
from alfm.cache.layout import rows_not_finite
from alfm.errors import UserError

_HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass
class Pending:
    """Features on their way back from the device."""

    batch: Any
    features: torch.Tensor
    arrived: Any
    events: list[str]


class Encoder:
    """Runs a backbone's `encode` in the given precision. `start` does not wait for the device; `finish` does.

    Copies and computing are queued on one stream, in order: the host never waits between batches, but the device does
    not copy while it computes.
    """

    def __init__(self, backbone: Backbone, device: torch.device, precision: str) -> None:
        self.backbone, self.device, self.precision = backbone, device, precision
        if device.type == "cuda" and precision == "float32":
            torch.backends.cudnn.allow_tf32 = False  # float32 convolutions would be rounded to 10 bits

    def start(self, batch: Any, size: int) -> Pending:
        """Begin on a batch of `size` rows."""
        on_device = _apply(batch, self._to_device)
        events: list[str] = []
        features = self._encode(on_device, size, self.precision, events)
        if self.device.type != "cuda":
            return Pending(on_device, features.cpu(), None, events)
        host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
        host.copy_(features, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(self.device))
        return Pending(on_device, host, arrived, events)

    def finish(self, pending: Pending) -> tuple[np.ndarray, list[str]]:
        """float32 (b, D) and what happened. Rows that half precision made NaN or Inf are tried again in float32."""
        if pending.arrived is not None:
            pending.arrived.synchronize()
        features, events = pending.features.numpy(), pending.events
        if self.precision != "float32" and rows_not_finite(features).any():
            again = self._encode(pending.batch, len(features), "float32", events).cpu().numpy()
            if not rows_not_finite(again).any():
                events.append(f"NaN or Inf in {self.precision}: computed in float32")
            features = again
        return features, events

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.device.type == "cuda" and tensor.ndim == 4:  # images
            return tensor.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        return tensor.to(self.device, non_blocking=True)

    def _encode(self, batch: Any, size: int, precision: str, events: list[str]) -> torch.Tensor:
        """float32 (size, D) on the device; in smaller pieces when memory runs out."""
        half = _HALF.get(precision)
        mixed = torch.autocast(self.device.type, dtype=half) if half else contextlib.nullcontext()
        exact = contextlib.nullcontext() if half else devices.full_precision()
        try:
            with torch.inference_mode(), mixed, exact:
                features = self.backbone.encode(batch)
                if features.ndim != 2 or len(features) != size:
                    shape = tuple(features.shape)
                    raise UserError(f"{self.backbone.name} gave features {shape} for {size} items, not ({size}, D).")
                return features.float()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if size == 1:
                raise UserError(f"One item alone does not fit the memory of {self.device}.") from error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        middle = size // 2
        events.append(f"out of memory with {size} rows: tried again with {middle}")
        pieces = [(_slice(batch, 0, middle), middle), (_slice(batch, middle, size), size - middle)]
        return torch.cat([self._encode(piece, rows, precision, events) for piece, rows in pieces])


def choose_precision(wanted: str, device: torch.device) -> str:
    """`auto`: float16 on CUDA (its 10 bits are what the cache keeps), float32 elsewhere."""
    if wanted == "auto":
        return "float16" if device.type == "cuda" else "float32"
    if wanted not in ("float32", *_HALF):
        raise UserError(f"precision={wanted}: use auto, float32, float16 or bfloat16.")
    return wanted


def choose_batch_size(encoder: Encoder, one: Callable[[int], Any], most: int = 1024) -> int:
    """The batch size behind `auto`: 32 on the CPU; elsewhere doubled while it makes items faster by 5 % or more.

    `one(n)` gives a batch of n items. Stops at half of the device's memory, so that longer items fit too.
    """
    if encoder.device.type != "cuda":
        return 32
    best, rate = 32, 0.0
    size = 32
    while size <= most:
        events: list[str] = []
        batch = _apply(one(size), encoder._to_device)
        with contextlib.suppress(UserError):
            encoder._encode(batch, size, encoder.precision, events)  # warms up this shape
        torch.cuda.reset_peak_memory_stats(encoder.device)
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        stream = torch.cuda.current_stream(encoder.device)
        begin.record(stream)
        for _ in range(3):
            encoder._encode(batch, size, encoder.precision, events)
        end.record(stream)
        end.synchronize()
        now = size / max(begin.elapsed_time(end), 1e-3)
        total = torch.cuda.get_device_properties(encoder.device).total_memory
        if events or torch.cuda.max_memory_allocated(encoder.device) > total / 2 or now < 1.05 * rate:
            break
        best, rate, size = size, now, size * 2
    torch.cuda.empty_cache()
    return best


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return "out of memory" in text or "can't allocate memory" in text


def _apply(batch: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if torch.is_tensor(batch):
        return function(batch)
    if isinstance(batch, Mapping):
        return {key: _apply(value, function) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return [_apply(value, function) for value in batch]
    return batch


def _slice(batch: Any, start: int, stop: int) -> Any:
    return _apply(batch, lambda tensor: tensor[start:stop] if tensor.ndim else tensor)
