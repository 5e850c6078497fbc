"""Every config of conf/model: its class takes its settings, and its weights' name exists."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
ANY = {
    "timm": "resnet18.a1_in1k",
    "open_clip": "ViT-B-32",
    "transformers_text": "owner/text",
    "transformers_vision": "owner/vision",
    "transformers_audio": "owner/audio",
    "sentence_transformers": "owner/sentence",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_config_builds_its_backbone(name: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        arch = [f"model.arch={ANY[name]}"] if name in ANY else []
        cfg = compose(overrides=[f"+model={name}", *arch])
    backbone = instantiate(cfg.model)
    assert backbone.modality in ("image", "text", "audio") and backbone.name
    assert name in ANY or backbone.name == name
    settings = OmegaConf.to_container(cfg.model, resolve=True)
    if "Timm" in settings["_target_"]:
        assert timm.models.is_model_pretrained(settings["arch"])
        with torch.device("meta"):  # the arguments are taken, without the memory
            model = timm.create_model(settings["arch"], pretrained=False, num_classes=0, **(settings["kwargs"] or {}))
        assert model.num_features > 0
    if "OpenClip" in settings["_target_"] and name not in ANY:
        assert (settings["arch"], settings["tag"]) in open_clip.list_pretrained()


@pytest.mark.parametrize("name", NAMES)
def test_every_config_names_its_licence(name: str) -> None:
    text = (CONF / "model" / f"{name}.yaml").read_text().lower()
    assert text.startswith("# ") and "licence" in text


def test_the_names_that_users_of_al_foundation_models_type() -> None:
    dino = {f"dino_vit_{size}14" for size in "SBLg"}
    clip = {f"openclip_vit_{size}" for size in ("B16", "L14", "H14", "g14", "G14")}
    assert dino | clip | {"openai_vit_B16"} <= set(NAMES)
