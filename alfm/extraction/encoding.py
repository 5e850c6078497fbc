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
from alfm.datasets.hub import first_line
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

    def __init__(
        self, backbone: Backbone, device: torch.device, precision: str, channels_last: bool | None = None
    ) -> None:
        """channels_last: how images and weights lie in memory; None: on CUDA with the channels last.

        Raises UserError where that is asked of a backbone that has no such weights.
        """
        self.backbone, self.device, self.precision = backbone, device, precision
        self.compiled = False
        self._channels_last = device.type == "cuda" if channels_last is None else channels_last
        if _is_compiled(backbone):  # for an encoder before
            backbone.model = backbone.model._orig_mod  # type: ignore[attr-defined]
        if channels_last is not None:
            check_torch_images(backbone, f"channels_last={str(channels_last).lower()}", "channels_last=auto")
            layout = torch.channels_last if channels_last else torch.contiguous_format
            backbone.model.to(memory_format=layout)  # type: ignore[attr-defined]
            backbone.channels_last = channels_last  # type: ignore[attr-defined]
        if device.type == "cuda" and precision == "float32":
            torch.backends.cudnn.allow_tf32 = False  # float32 convolutions would be rounded to 10 bits

    def compile(self) -> None:
        """Have the model compiled by its first batch, for batches of one size. `UserError` for what is no model of
        images."""
        check_torch_images(self.backbone, "compile=true", "compile=false")
        model = self.backbone.model  # type: ignore[attr-defined]
        self.backbone.model = torch.compile(model, dynamic=False)  # type: ignore[attr-defined]
        self.compiled = True

    def start(self, batch: Any, size: int, full: int = 0) -> Pending:
        """Begin on a batch of `size` rows; `full`: of a whole batch, as which a compiled model sees smaller ones too,
        or it would be compiled for each size."""
        on_device = _apply(batch, self._to_device)
        if self.compiled and size < full:
            on_device = _apply(on_device, lambda rows: _filled(rows, full))
            pending = self._start(on_device, full)
            return Pending(_slice(on_device, 0, size), pending.features[:size], pending.arrived, pending.events)
        return self._start(on_device, size)

    def _start(self, on_device: Any, size: int) -> Pending:
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
        if self._channels_last and tensor.ndim == 4:  # images
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
            if self.compiled and _from_compiler(error):
                raise UserError(
                    f"compile=true: torch cannot compile {self.backbone.name} here ({first_line(error)}): use "
                    "compile=false."
                ) from error
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


def check_torch_images(backbone: Any, asked: str, instead: str) -> None:
    """`UserError` for what is no torch model of images: `asked` is for those, and `instead` does."""
    if backbone.modality != "image" or not isinstance(getattr(backbone, "model", None), torch.nn.Module):
        raise UserError(f"{asked} is for models of images, and {backbone.name} is none: use {instead}.")


def _is_compiled(backbone: Any) -> bool:
    """Whether its model is what `torch.compile` gave."""
    return hasattr(getattr(backbone, "model", None), "_orig_mod")


def _from_compiler(error: BaseException) -> bool:
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    return isinstance(error, TorchDynamoException | InductorError)


def _filled(rows: torch.Tensor, count: int) -> torch.Tensor:
    """`rows` (b, ...) and copies of the last one, `count` in all."""
    return torch.cat([rows, rows[-1:].expand(count - len(rows), *rows.shape[1:])])


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
