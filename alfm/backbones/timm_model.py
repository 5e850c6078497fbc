"""Any timm model: pooled features, with the preprocessing its weights were trained for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le, Len

from alfm.backbones.encoder import ImageEncoder
from alfm.backbones.weights import load_state, read_state, seeded
from alfm.datasets.hub import first_line, from_hub
from alfm.datasets.ids import file_stem
from alfm.errors import UserError, nearest_names
from alfm.options import Name, PathName, Seed, Side, checked

Spread = Annotated[float, Gt(0)]


@checked
class Timm(ImageEncoder):
    """`timm.create_model(arch, **kwargs)` without its classifier (Wightman 2019, PyTorch Image Models).

    `arch`: name, with its weights' tag ("vit_small_patch14_dinov2.lvd142m"). Weights: `pretrained` downloads them,
    `checkpoint` reads a file, otherwise they are random from `seed`. `kwargs` go to the model (global_pool,
    dynamic_img_size, num_classes of a checkpoint's classifier, ...). `mean`, `std`, `input_size` (pixels, or
    [3, H, W]) and `crop_pct` override the model's own preprocessing. Features: (B, D), D = num_features.
    """

    def __init__(
        self,
        arch: Name,
        name: Name | None = None,
        pretrained: bool = True,
        checkpoint: PathName | None = None,
        seed: Seed = 0,
        kwargs: Mapping[str, Any] | None = None,
        mean: float | Annotated[Sequence[float], Len(3, 3)] | None = None,
        std: Spread | Annotated[Sequence[Spread], Len(3, 3)] | None = None,
        input_size: Side | Annotated[Sequence[Side], Len(2, 3)] | None = None,
        crop_pct: Annotated[float, Ge(0.1), Le(2)] | None = None,
        cache_dir: PathName | None = None,
        licence: str | None = None,
        licence_page: str | None = None,
    ) -> None:
        self.arch, self.pretrained, self.seed = arch, pretrained, seed
        self.checkpoint = None if checkpoint is None else str(checkpoint)
        self.kwargs = dict(kwargs or {})
        self.overrides = {
            "mean": _three(mean),
            "std": _three(std),
            "input_size": _size(input_size),
            "crop_pct": crop_pct,
        }
        self.cache_dir, self.licence, self.licence_page = cache_dir, licence, licence_page
        origin = os.path.splitext(os.path.basename(checkpoint))[0] if checkpoint else ""
        if not checkpoint and not pretrained:
            origin = f"random{seed}"
        pooling = self.kwargs.get("global_pool", "")
        self.name = name or file_stem("-".join(part for part in (arch, origin, pooling) if part))

    def load(self, device: torch.device) -> None:
        """Build the model. `UserError`: unknown arch, weights that cannot be had or do not fit, wrong kwargs."""
        import timm
        from timm.data import create_transform, resolve_data_config

        if not timm.is_model(self.arch):
            raise UserError(f"model.arch={self.arch}: timm has no such model; {_near(self.arch)}")
        model = self._build(timm)
        if getattr(model, "num_classes", 0):
            model.reset_classifier(0)
        overrides = {key: value for key, value in self.overrides.items() if value is not None}
        config = resolve_data_config(overrides, pretrained_cfg=model.pretrained_cfg, model=model)
        self._setup(create_transform(**config, is_training=False, normalize=False), config["mean"], config["std"])
        self.dim = int(model.num_features)
        pooling = getattr(model, "global_pool", None)
        pooling = getattr(pooling, "pool_type", pooling)  # convolutional models keep a module
        identity = {
            "backbone": "timm",
            "architecture": self.arch,
            "kwargs": self.kwargs,
            "preprocessing": {key: list(v) if isinstance(v, tuple) else v for key, v in config.items()},
            "layer": "last, classifier removed",
            "pooling": pooling if isinstance(pooling, str) else "the model's own",
        }
        own_licence = (model.pretrained_cfg or {}).get("license")
        used = self.licence or (own_licence if self.pretrained and not self.checkpoint else None)
        self._ready(model, device, identity, used)
        origin = "timm hub" if self.pretrained else f"random, seed {self.seed}"
        self.provenance["weights"] = os.path.basename(self.checkpoint) if self.checkpoint else origin
        if self.dim != (found := self._probe_dim(device, config["input_size"])):
            self.dim = found  # some architectures widen the features in their head
        if device.type == "cuda":
            self.model = self.model.to(memory_format=torch.channels_last)

    def _build(self, timm: Any) -> Any:
        kwargs = {"num_classes": 0, **self.kwargs}
        try:
            if self.checkpoint:
                state = read_state(self.checkpoint)
                with seeded(self.seed):
                    model = timm.create_model(self.arch, pretrained=False, **kwargs)
                classifier = (model.pretrained_cfg or {}).get("classifier") or ()
                names = (classifier,) if isinstance(classifier, str) else classifier
                spare = "" if kwargs["num_classes"] else ",".join(f"{name}." for name in names)
                load_state(model, state, self.checkpoint, spare)
                return model
            if self.pretrained:
                with from_hub(self.arch, self.licence_page):
                    return timm.create_model(self.arch, pretrained=True, cache_dir=self.cache_dir, **kwargs)
            with seeded(self.seed):
                return timm.create_model(self.arch, pretrained=False, **kwargs)
        except (TypeError, ValueError, AssertionError, KeyError) as error:  # each architecture checks in its own way
            raise UserError(f"model.kwargs={self.kwargs}: {self.arch} does not take them ({error})") from error

    def _probe_dim(self, device: torch.device, input_size: Sequence[int]) -> int:
        try:
            with torch.inference_mode():
                return int(self.model(torch.zeros(1, *input_size, device=device)).shape[-1])
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{self.arch} does not take images of {list(input_size)} ({first_line(error)}): set model.input_size, "
                "or model.kwargs={img_size:PIXELS} or {dynamic_img_size:true}"
            ) from error

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) -> (B, D)."""
        features = self.model(self.normalise(batch))
        if features.ndim != 2:
            raise UserError(
                f"{self.arch} gives features of shape {tuple(features.shape)}, not (B, D): "
                "set a pooling, such as model.kwargs={global_pool:avg}"
            )
        return features


def _near(arch: str) -> str:
    import timm

    return nearest_names(arch, timm.list_models() + timm.list_pretrained())


def _three(value: float | Sequence[float] | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    return tuple(float(v) for v in (value if not isinstance(value, (int, float)) else [value] * 3))


def _size(value: int | Sequence[int] | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    sides = (3, value, value) if isinstance(value, int) else tuple(int(v) for v in value)
    return (3, *sides) if len(sides) == 2 else sides
