"""What a backbone does to images that are tensors: the steps of its PIL transform, from the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from alfm.errors import UserError

_ONLY_CONVERTS = {"PILToTensor", "MaybePILToTensor", "MaybeConvertMode"}
"""Steps of torchvision, timm and open_clip that a uint8 RGB tensor has behind it."""

Step = Callable[[torch.Tensor], torch.Tensor]


def steps_on_tensors(transform: Any, name: str) -> list[Step]:
    """A `Compose` of resizing and cropping for PIL images -> what does the same to uint8 (3, H, W) on any device.

    Raises UserError for a step that has no counterpart. name: the backbone's.
    """
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize, v2

    steps: list[Step] = []
    for step in transform.transforms:
        if type(step).__name__ in _ONLY_CONVERTS:
            continue
        if isinstance(step, CenterCrop | v2.CenterCrop):
            steps.append(v2.CenterCrop(step.size))
        elif (
            isinstance(step, Resize | v2.Resize)
            and step.interpolation in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
            and step.max_size is None
        ):
            steps.append(_Resize(step.size, step.interpolation))
        else:
            raise UserError(
                f"decode=gpu: {name} prepares images by {step}, which is made for PIL only: use decode=pil."
            )
    return steps


class _Resize:
    """Antialiased, one direction after the other, rounded to 8 bits and clipped after each: as PIL does it."""

    def __init__(self, size: int | Sequence[int], interpolation: Any) -> None:
        """`size`: [height, width], or the shorter side's length."""
        self.size, self.interpolation = [size] if isinstance(size, int) else list(size), interpolation

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 (3, H, W) -> uint8 (3, h, w)."""
        from torchvision.transforms.v2.functional import resize

        height, width = self._target(*image.shape[-2:])
        for size in ([image.shape[-2], width], [height, width]):
            if list(image.shape[-2:]) != size:
                resized = resize(image.float(), size, self.interpolation, antialias=True)
                image = resized.add_(0.5).clamp_(0, 255).to(torch.uint8)  # halves upwards, as PIL rounds
        return image

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if len(self.size) == 2:
            return self.size[0], self.size[1]
        short = self.size[0]
        if height <= width:
            return short, int(short * width / height)
        return int(short * height / width), short
