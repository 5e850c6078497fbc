"""Frozen models: how to embed it. Yours is a class like `Backbone`, see `alfm.testing.check_backbone`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alfm.lazy import lazy

if TYPE_CHECKING:
    from alfm.backbones.audio import TransformersAudio
    from alfm.backbones.base import Backbone
    from alfm.backbones.open_clip_model import OpenClip
    from alfm.backbones.pixels import Pixels
    from alfm.backbones.text import SentenceEncoder, TransformersText
    from alfm.backbones.timm_model import Timm
    from alfm.backbones.vision import TransformersVision

_HOMES = {
    "alfm.backbones.audio": ("TransformersAudio",),
    "alfm.backbones.base": ("Backbone",),
    "alfm.backbones.open_clip_model": ("OpenClip",),
    "alfm.backbones.pixels": ("Pixels",),
    "alfm.backbones.text": ("SentenceEncoder", "TransformersText"),
    "alfm.backbones.timm_model": ("Timm",),
    "alfm.backbones.vision": ("TransformersVision",),
}

__all__ = [
    "Backbone", "OpenClip", "Pixels", "SentenceEncoder", "Timm", "TransformersAudio", "TransformersText",
    "TransformersVision",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
