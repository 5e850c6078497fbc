"""What the backbones with weights share: identity, device, and going to worker processes without the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from alfm.backbones.on_device import Step, steps_on_tensors
from alfm.backbones.weights import digest


class FrozenModel:
    """Base of the backbones with weights; a subclass builds the model and says how items become features.

    After `_ready`: `model` is on the device in eval mode without gradients, and fingerprint and provenance are known.
    """

    name: str
    modality: str
    dim: int = 0
    fingerprint: str = ""
    provenance: dict[str, Any]
    model: nn.Module = None  # type: ignore[assignment]  # until `load`
    channels_last: bool | None = None
    """How images and weights lie in memory; None: as is usual on the device."""

    def _ready(self, model: nn.Module, device: torch.device, identity: dict[str, Any], licence: str | None) -> None:
        """`identity`: plain values that decide the features beside the weights; they go into the cache too."""
        model = model.eval().requires_grad_(False)
        self.fingerprint = digest(model, identity)
        self.provenance = {**identity, "weights_licence": licence or "see source"}
        self.model = model.to(device)

    def __getstate__(self) -> dict[str, Any]:
        """Worker processes preprocess; they do not get the weights."""
        return {key: value for key, value in self.__dict__.items() if key not in ("model", "_scale")}


class ImageEncoder(FrozenModel):
    """Images travel as uint8 (a quarter of the bytes) and are normalised on the device, in float32.

    A subclass's `_setup` gives the PIL -> uint8 (3, H, W) transform, and mean and std of the [0, 1] scale.
    """

    modality = "image"
    _on_tensors: list[Step] | None = None

    def _setup(self, transform: Any, mean: Any, std: Any) -> None:
        self.transform = transform
        self.mean, self.std = [float(value) for value in mean], [float(value) for value in std]

    def preprocess(self, item: Any) -> torch.Tensor:
        """PIL image -> uint8 (3, H, W)."""
        return self.transform(item if item.mode == "RGB" else item.convert("RGB"))

    def preprocess_decoded(self, image: torch.Tensor) -> torch.Tensor:
        """RGB as uint8 (3, H', W') on any device -> uint8 (3, H, W) there."""
        if self._on_tensors is None:
            self._on_tensors = steps_on_tensors(self.transform, self.name)
        for step in self._on_tensors:
            image = step(image)
        return image

    def collate(self, items: list[torch.Tensor]) -> torch.Tensor:
        """uint8 (B, 3, H, W)."""
        return torch.stack(items)

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) -> float32, the same operations as torchvision's ToTensor and Normalize."""
        scale = self.__dict__.get("_scale")
        if scale is None or scale.device != batch.device:  # once: a copy per batch would make the device wait
            scale = self._scale = torch.tensor([self.mean, self.std], device=batch.device).view(2, -1, 1, 1)
        pixels = batch.to(torch.float32).div_(255).sub_(scale[0]).div_(scale[1])
        if batch.is_cuda and self.channels_last is not False:  # convolutions, patch embeddings included, are faster so
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        return pixels
