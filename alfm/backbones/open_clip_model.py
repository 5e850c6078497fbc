"""Any open_clip architecture: its image tower."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch

from alfm.backbones.encoder import ImageEncoder
from alfm.backbones.weights import seeded
from alfm.datasets.hub import first_line, from_hub
from alfm.datasets.ids import file_stem
from alfm.errors import UserError, nearest_names
from alfm.options import Name, PathName, Seed, checked


@checked
class OpenClip(ImageEncoder):
    """Image embeddings of a contrastive image-text model (Radford et al. 2021, arXiv 2103.00020; open_clip).

    `arch` and `tag` as `open_clip.list_pretrained()` has them ("ViT-B-32", "laion2b_s34b_b79k"). Weights: `pretrained`
    downloads the tag's, `checkpoint` reads a file, otherwise they are random from `seed`. `normalise_features` makes
    rows unit length. Features: (B, D), D = the joint embedding's width.
    """

    def __init__(
        self,
        arch: Name,
        tag: Name | None = None,
        name: Name | None = None,
        pretrained: bool = True,
        checkpoint: PathName | None = None,
        seed: Seed = 0,
        normalise_features: bool = False,
        cache_dir: PathName | None = None,
        licence: str | None = None,
    ) -> None:
        self.arch, self.tag, self.pretrained, self.seed = arch, tag, pretrained, seed
        self.checkpoint = None if checkpoint is None else str(checkpoint)
        self.normalise_features, self.cache_dir, self.licence = normalise_features, cache_dir, licence
        if checkpoint:
            origin = os.path.splitext(os.path.basename(checkpoint))[0]
        else:
            origin = (tag or "") if pretrained else f"random{seed}"
        unit = "unit" if normalise_features else ""
        self.name = name or file_stem("-".join(part for part in (arch, origin, unit) if part))

    def load(self, device: torch.device) -> None:
        """Build the model. `UserError`: unknown arch or tag, weights that cannot be had or do not fit."""
        import open_clip
        from open_clip.transform import PreprocessCfg, image_transform_v2
        from torchvision.transforms import Compose, Normalize, PILToTensor

        if self.arch not in open_clip.list_models():
            raise UserError(
                f"model.arch={self.arch}: open_clip has no such model; "
                f"{nearest_names(self.arch, open_clip.list_models())}"
            )
        model = self._build(open_clip)
        config = PreprocessCfg(**open_clip.get_model_preprocess_cfg(model))
        *steps, _to_tensor, normalise = image_transform_v2(config, is_train=False).transforms
        if not isinstance(normalise, Normalize):
            raise RuntimeError("open_clip's transform does not end in a normalisation: this version is not known")
        self._setup(Compose([*steps, PILToTensor()]), config.mean, config.std)
        tower = model.visual
        identity = {
            "backbone": "open_clip",
            "architecture": self.arch,
            "tag": None if self.checkpoint or not self.pretrained else self.tag,
            "preprocessing": dict(vars(config)),
            "layer": "image tower, projected",
            "pooling": "the model's own" + (", unit length" if self.normalise_features else ""),
        }
        self._ready(tower, device, identity, self.licence)
        origin = self.tag if self.pretrained else f"random, seed {self.seed}"
        self.provenance["weights"] = os.path.basename(self.checkpoint) if self.checkpoint else origin
        if device.type == "cuda":
            self.model = self.model.to(memory_format=torch.channels_last)
        with torch.inference_mode():
            blank = torch.zeros(1, *config.input_size, dtype=torch.uint8, device=device)
            self.dim = int(self.encode(blank).shape[-1])

    def _build(self, open_clip: Any) -> Any:
        if self.checkpoint:
            if not os.path.isfile(self.checkpoint):
                raise UserError(f"model.checkpoint={self.checkpoint}: there is no such file")
            try:
                return open_clip.create_model(self.arch, pretrained=self.checkpoint, weights_only=True)
            except Exception as error:  # damaged files and wrong architectures raise nearly anything
                raise UserError(
                    f"model.checkpoint={self.checkpoint} does not load into {self.arch}: {first_line(error)}"
                ) from error
        if not self.pretrained:
            level = logging.root.manager.disable
            logging.disable(logging.WARNING)  # "no pretrained weights loaded": asked for
            try:
                with seeded(self.seed):
                    return open_clip.create_model(self.arch, pretrained=None)
            finally:
                logging.disable(level)
        tags = open_clip.list_pretrained_tags_by_model(self.arch)
        if not self.tag or self.tag not in tags:
            raise UserError(f"model.tag={self.tag}: {self.arch} has {', '.join(tags) or 'no weights'}")
        with from_hub(f"{self.arch} ({self.tag})"):
            return open_clip.create_model(self.arch, pretrained=self.tag, cache_dir=self.cache_dir)

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) -> (B, D)."""
        features = self.model(self.normalise(batch))
        if isinstance(features, tuple):  # CoCa also gives its tokens
            features = features[0]
        if self.normalise_features:
            features = torch.nn.functional.normalize(features.float(), dim=-1)
        return features
