"""Vision models of `transformers`: SigLIP, DINOv2, DINOv3, ViT, ConvNeXt, ..., any layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import MinLen

from alfm.backbones.transformers_model import TransformersEncoder
from alfm.errors import UserError
from alfm.options import Name, checked


@checked
class TransformersVision(TransformersEncoder):
    """Image features from `layers` (indices into the hidden states, -1 = the last after its norm), concatenated.

    `pooling`: `cls` (class token), `mean` (of the patch tokens), `cls_mean` (both), or `pooler` (the model's own, last
    layer only). Features: (B, layers x width), twice that for `cls_mean`. The other options are those of
    `TransformersEncoder`.
    """

    modality = "image"
    poolings = ("cls", "mean", "cls_mean", "pooler")

    def __init__(
        self, arch: Name, pooling: str = "cls", layers: Annotated[Sequence[int], MinLen(1)] = (-1,), **options: Any
    ) -> None:
        super().__init__(arch, pooling, **options)
        self.layers = [int(layer) for layer in layers]
        if pooling == "pooler" and self.layers != [-1]:
            raise UserError(f"model.layers={self.layers}: pooling=pooler takes the last one only, [-1]")
        if options.get("name") is None and self.layers != [-1]:
            self.name += "-layers" + "".join(f"{layer:+d}" for layer in self.layers)

    def load(self, device: torch.device) -> None:
        """Build processor and model. `UserError`: they cannot be had, no such layer, no class token, no pooler."""
        model = self._build()
        model = getattr(model, "vision_model", model)  # the image tower of CLIP and SigLIP
        self.processor = self._processor("AutoImageProcessor")
        self.patch = getattr(model.config, "patch_size", None)
        settings = {key: str(value) for key, value in self.processor.to_dict().items()}
        identity = {**self._identity(model, settings), "layer": self.layers}
        self._finish(model, device, identity)
        from PIL import Image

        blank = self.collate([self.preprocess(Image.new("RGB", (64, 64)))]).to(device)
        with torch.inference_mode():
            self.dim = int(self.encode(blank).shape[1])

    def preprocess(self, item: Any) -> torch.Tensor:
        """PIL image -> float32 (3, H, W), resized and normalised as the processor says."""
        image = item if item.mode == "RGB" else item.convert("RGB")
        return self.processor(images=image, return_tensors="pt")["pixel_values"][0]

    def preprocess_decoded(self, image: torch.Tensor) -> torch.Tensor:
        """RGB as uint8 (3, H', W') on any device -> float32 (3, H, W) there. `UserError`: the processor needs PIL."""
        if getattr(self.processor, "backend", None) != "torchvision":
            raise UserError(
                f"decode=gpu: the image processor of {self.label} works on PIL images only: use decode=pil."
            )
        given = {"return_tensors": "pt", "device": image.device, "input_data_format": "channels_first"}
        return self.processor(images=image, **given)["pixel_values"][0]

    def collate(self, items: list[torch.Tensor]) -> torch.Tensor:
        """float32 (B, 3, H, W)."""
        return torch.stack(items)

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """float32 (B, 3, H, W) -> (B, D)."""
        output = self.model(pixel_values=batch, output_hidden_states=self.layers != [-1])
        if self.pooling == "pooler":
            pooled = getattr(output, "pooler_output", None)
            if pooled is None:
                raise UserError(f"{self.arch} has no pooler: set model.pooling=mean")
            return pooled.flatten(1)
        if self.layers == [-1]:
            states = [output.last_hidden_state]
        else:
            hidden = output.hidden_states or ()
            count = len(hidden)
            if any(not -count <= layer < count for layer in self.layers):
                raise UserError(f"model.layers={self.layers}: {self.arch} has hidden states {-count}..{count - 1}")
            last = (-1, count - 1)
            states = [output.last_hidden_state if layer in last else hidden[layer] for layer in self.layers]
        return torch.cat([part for state in states for part in self._pool(state, batch)], dim=1)

    def _pool(self, state: torch.Tensor, batch: torch.Tensor) -> list[torch.Tensor]:
        if state.ndim == 4:  # convolutional: (B, C, H, W)
            tokens, prefix = state.flatten(2).transpose(1, 2), 0
        else:
            sides = (self.patch, self.patch) if isinstance(self.patch, int) else self.patch
            patches = (batch.shape[-2] // sides[0]) * (batch.shape[-1] // sides[1]) if sides else state.shape[1]
            tokens, prefix = state, max(0, state.shape[1] - patches)  # class token and registers come first
        parts = []
        if self.pooling in ("cls", "cls_mean"):
            if prefix == 0:
                raise UserError(f"{self.arch} has no class token: set model.pooling=mean or pooler")
            parts.append(tokens[:, 0])
        if self.pooling in ("mean", "cls_mean"):
            parts.append(tokens[:, prefix:].float().mean(1))
        return [part.float() for part in parts]
