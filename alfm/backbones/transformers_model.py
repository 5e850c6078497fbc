"""What the `transformers` backbones share: a model from the hub, from files, or random from a config."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from alfm.backbones.encoder import FrozenModel
from alfm.backbones.weights import load_state, read_state, seeded
from alfm.datasets.hub import first_line, from_hub
from alfm.datasets.ids import file_stem
from alfm.errors import UserError
from alfm.options import Name, PathName, Seed, checked


@checked
class TransformersEncoder(FrozenModel):
    """Options of every backbone that `transformers` builds.

    `arch`: a repository of the hub or a folder. Weights: `pretrained` takes them from there; `checkpoint` is a folder
    as `save_pretrained` writes it, or one file of weights for the architecture; otherwise they are random from
    `seed`. `config`: the architecture's own settings with its `model_type`, in place of the one at `arch`.
    `processor`: the tokenizer, image processor or feature extractor: a folder or repository, or {type: CLASS, ...}
    with that class's arguments; default: at `arch`. No code of a repository is ever run.
    """

    poolings: tuple[str, ...] = ()

    def __init__(
        self,
        arch: Name,
        pooling: str,
        name: Name | None = None,
        pretrained: bool = True,
        checkpoint: PathName | None = None,
        seed: Seed = 0,
        config: Mapping[str, Any] | None = None,
        processor: Name | Mapping[str, Any] | None = None,
        revision: Name | None = None,
        cache_dir: PathName | None = None,
        licence: str | None = None,
        licence_page: str | None = None,
    ) -> None:
        if pooling not in self.poolings:
            raise UserError(f"model.pooling={pooling}: one of {', '.join(self.poolings)} is needed")
        self.arch, self.pooling, self.pretrained = arch, pooling, pretrained
        self.checkpoint = None if checkpoint is None else str(checkpoint)
        self.seed, self.config, self.processor_source = seed, dict(config or {}), processor
        self.revision, self.cache_dir, self.licence, self.licence_page = revision, cache_dir, licence, licence_page
        # a folder on this machine is called by its name: its path is nobody else's business
        self.label = os.path.basename(os.path.abspath(arch)) if os.path.isdir(arch) else arch
        chosen = pooling if len(self.poolings) > 1 else ""
        self.name = name or file_stem("-".join(part for part in (self.label, self._origin(), chosen) if part))

    def _origin(self) -> str:
        if self.checkpoint:
            return os.path.splitext(os.path.basename(self.checkpoint.rstrip("/")))[0]
        return "" if self.pretrained else f"random{self.seed}"

    def _build(self) -> Any:
        """The bare model (`AutoModel`), float32, on the CPU."""
        transformers = needs_transformers()
        if self.checkpoint and os.path.isdir(self.checkpoint):
            try:
                with without_bars(self.checkpoint):
                    return transformers.AutoModel.from_pretrained(
                        self.checkpoint, local_files_only=True, dtype=torch.float32
                    )
            except Exception as error:  # damaged folders raise nearly anything
                raise UserError(f"model.checkpoint={self.checkpoint} cannot be loaded: {first_line(error)}") from error
        if self.checkpoint:
            state = read_state(self.checkpoint)
            with seeded(self.seed):
                model = transformers.AutoModel.from_config(self._architecture(transformers))
            prefix = model.base_model_prefix + "."
            if prefix != "." and any(name.startswith(prefix) for name in state):  # saved below a task's head
                state = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
            load_state(model, state, self.checkpoint)
            return model
        if not self.pretrained:
            architecture = self._architecture(transformers)
            with seeded(self.seed):
                return transformers.AutoModel.from_config(architecture)
        with from_hub(self.arch, self.licence_page), without_bars(self.arch):
            return transformers.AutoModel.from_pretrained(self.arch, dtype=torch.float32, **self._place())

    def _architecture(self, transformers: Any) -> Any:
        if self.config:
            kind, *_ = settings = (self.config.get("model_type"),)
            rest = {key: value for key, value in self.config.items() if key != "model_type"}
            try:
                return transformers.AutoConfig.for_model(settings[0], **rest)
            except Exception as error:  # each architecture checks its settings in its own way
                raise UserError(f"model.config with model_type={kind}: {first_line(error)}") from error
        with from_hub(self.arch, self.licence_page, hint="model.config={model_type:...}", what="configuration of"):
            return transformers.AutoConfig.from_pretrained(self.arch, **self._place())

    def _processor(self, auto_class: str) -> Any:
        """Tokenizer, image processor or feature extractor."""
        transformers = needs_transformers()
        source = self.processor_source
        if isinstance(source, Mapping):
            settings = {key: value for key, value in source.items() if key != "type"}
            kind = getattr(transformers, str(source.get("type")), None)
            if kind is None:
                raise UserError(f"model.processor: transformers has no class {source.get('type')!r} (type: ...)")
            try:
                return kind(**settings)
            except (TypeError, ValueError, ImportError) as error:
                raise UserError(f"model.processor={dict(source)}: {first_line(error)}") from error
        own = self.checkpoint if self.checkpoint and os.path.isdir(self.checkpoint) else self.arch
        with from_hub(source or own, self.licence_page, hint="model.processor=FOLDER", what="processor of"):
            return getattr(transformers, auto_class).from_pretrained(source or own, **self._place())

    def _place(self) -> dict[str, Any]:
        return {"cache_dir": self.cache_dir, "revision": self.revision}

    def _identity(self, model: Any, preprocessing: Any) -> dict[str, Any]:
        return {
            "backbone": "transformers",
            "architecture": self.label,
            "model_type": model.config.model_type,
            "preprocessing": preprocessing,
            "layer": "last",
            "pooling": self.pooling,
        }

    def _finish(self, model: nn.Module, device: torch.device, identity: dict[str, Any]) -> None:
        self._ready(model, device, identity, self.licence)
        origin = self.label if self.pretrained else f"random, seed {self.seed}"
        self.provenance["weights"] = os.path.basename(self.checkpoint.rstrip("/")) if self.checkpoint else origin


def needs_transformers() -> Any:
    """The module, or one sentence."""
    try:
        import transformers
    except ImportError:
        raise UserError("this model needs transformers: pip install 'alfm[hf]'") from None
    return transformers


@contextlib.contextmanager
def without_bars(source: str) -> Iterator[None]:
    """No bar for copying a local folder's weights into place; downloads keep theirs."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    if not shown or not os.path.isdir(source):
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def masked_mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of `tokens` (B, T, D) where `mask` (B, T) is true, in float32 -> (B, D)."""
    weight = mask.to(torch.float32).unsqueeze(-1)
    return (tokens.float() * weight).sum(1) / weight.sum(1).clamp_min(1.0)
