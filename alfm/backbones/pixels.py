"""The backbone that needs no weights: the pixels themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Len

from alfm.errors import UserError
from alfm.options import Name, Side, checked


@checked
class Pixels:
    """Flattened pixels scaled to [0, 1].

    `size`: None takes images as they come (all must then have one size and mode); an int or [height, width]
    resizes them (bilinear) to RGB. Without `size`, `dim` is 0 until the first batch has been seen.
    """

    modality = "image"

    def __init__(self, name: Name = "pixels", size: Side | Annotated[Sequence[Side], Len(2, 2)] | None = None) -> None:
        self.name = name
        sides = [size, size] if isinstance(size, int) else size
        self.size = None if sides is None else [int(side) for side in sides]
        self.dim = 0 if self.size is None else self.size[0] * self.size[1] * 3
        self.fingerprint = f"pixels-{'as-is' if self.size is None else 'x'.join(map(str, self.size))}"
        self.provenance: dict[str, Any] = {
            "backbone": "pixels",
            "preprocessing": f"RGB, bilinear resize to {self.size} (height, width)" if self.size else "none",
            "layer": "input",
            "pooling": "none, flattened",
            "weights_licence": "no weights",
        }

    def load(self, device: torch.device) -> None:
        """Nothing to load."""

    def preprocess(self, item: Any) -> torch.Tensor:
        """PIL image -> uint8 (H, W) or (H, W, 3)."""
        if self.size is not None:
            item = item.convert("RGB").resize((self.size[1], self.size[0]), resample=2)  # 2 = bilinear
        return torch.from_numpy(np.array(item, dtype=np.uint8))

    def collate(self, items: list[torch.Tensor]) -> torch.Tensor:
        """uint8 (B, H, W[, 3]). `UserError` when the sizes differ."""
        shapes = {tuple(item.shape) for item in items}
        if len(shapes) > 1:
            raise UserError(_mixed(*sorted(shapes)[:2]))
        return torch.stack(items)

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """(B, H, W[, 3]) uint8 -> float32 (B, H·W[·3])."""
        features = batch.flatten(1).to(torch.float32) / 255
        if self.dim not in (0, features.shape[1]):
            raise UserError(_mixed(self.dim, features.shape[1]))
        self.dim = features.shape[1]
        return features


def _mixed(a: Any, b: Any) -> str:
    return f"model=pixels needs images of one size but met {a} and {b}: set model.size=32, or use timm"
