"""Image backbones against a plain forward pass, and what they say when weights cannot be had."""

from __future__ import annotations

import json
import pickle
import socket
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from alfm.backbones.open_clip_model import OpenClip
from alfm.backbones.pixels import Pixels
from alfm.backbones.timm_model import Timm
from alfm.backbones.weights import seeded
from alfm.errors import UserError

CPU = torch.device("cpu")
TINY = "test_vit.r160_in1k"  # timm's own architecture for tests: 64 features, 160 pixels


def pictures(count: int = 5) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(170, 200), (300, 180), (160, 160), (90, 400), (333, 222)]
    return [Image.fromarray(rng.integers(0, 256, (*sizes[i % 5], 3), dtype=np.uint8)) for i in range(count)]


@torch.inference_mode()
def features(backbone, images: list) -> torch.Tensor:
    return backbone.encode(backbone.collate([backbone.preprocess(image) for image in images])).float()


def test_timm_equals_a_plain_forward_pass() -> None:
    backbone = Timm(TINY, pretrained=False, seed=3)
    backbone.load(CPU)
    with seeded(3):
        model = timm.create_model(TINY, pretrained=False, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.inference_mode():
        expected = torch.cat([model(transform(image)[None]) for image in pictures()])
    found = features(backbone, pictures())
    assert found.shape == (5, backbone.dim)
    assert torch.allclose(found, expected, atol=1e-4)


def test_open_clip_equals_a_plain_forward_pass(tiny_open_clip: str) -> None:
    backbone = OpenClip(tiny_open_clip, pretrained=False, seed=1)
    backbone.load(CPU)
    with seeded(1):
        model, _, transform = open_clip.create_model_and_transforms(tiny_open_clip, pretrained=None)
    model.eval()
    with torch.inference_mode():
        expected = torch.cat([model.encode_image(transform(image)[None]) for image in pictures()])
    found = features(backbone, pictures())
    assert found.shape == (5, backbone.dim) == (5, 24)
    assert torch.allclose(found, expected, atol=1e-4)
    unit = OpenClip(tiny_open_clip, pretrained=False, seed=1, normalise_features=True)
    unit.load(CPU)
    assert torch.allclose(features(unit, pictures()), torch.nn.functional.normalize(expected, dim=-1), atol=1e-4)
    assert unit.name != backbone.name and unit.fingerprint != backbone.fingerprint


@pytest.fixture
def tiny_open_clip(tmp_path: Path) -> str:
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 16}
    text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "alfm-tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "alfm-tiny.json")
    return "alfm-tiny"


def test_the_seed_decides_and_nothing_else_moves() -> None:
    before = torch.random.get_rng_state()
    first, same, other = (Timm(TINY, pretrained=False, seed=seed) for seed in (0, 0, 1))
    for backbone in (first, same, other):
        backbone.load(CPU)
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.fingerprint == same.fingerprint != other.fingerprint
    assert first.name == "test_vit.r160_in1k-random0" != other.name


def test_workers_get_no_weights() -> None:
    backbone = Timm(TINY, pretrained=False)
    before = len(pickle.dumps(backbone))
    backbone.load(CPU)
    features(backbone, pictures(1))
    raw = pickle.dumps(backbone)
    assert len(raw) < before + 5000
    copy = pickle.loads(raw)
    assert torch.equal(copy.preprocess(pictures(1)[0]), backbone.preprocess(pictures(1)[0]))
    assert copy.model is None and copy.fingerprint == backbone.fingerprint


def test_preprocessing_overrides_count() -> None:
    plain = Timm(TINY, pretrained=False)
    changed = Timm(TINY, pretrained=False, mean=0.5, std=[0.5, 0.25, 1], input_size=96, kwargs={"img_size": 96})
    plain.load(CPU), changed.load(CPU)
    assert changed.preprocess(pictures(1)[0]).shape == (3, 96, 96)
    assert plain.fingerprint != changed.fingerprint
    white = changed.normalise(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    assert white[0, :, 0, 0].tolist() == [1, 2, 0.5]
    grey = features(plain, [Image.new("L", (200, 200), 9)])
    assert torch.equal(grey, features(plain, [Image.new("RGB", (200, 200), (9, 9, 9))]))


@pytest.mark.parametrize("form", ["safetensors", "pth"])
def test_a_checkpoint_with_its_classifier(tmp_path: Path, form: str) -> None:
    with seeded(7):
        model = timm.create_model(TINY, pretrained=False, num_classes=11).eval()
    path = str(tmp_path / f"mine.{form}")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, path) if form == "safetensors" else torch.save({"state_dict": state}, path)
    with_head = Timm(TINY, checkpoint=path, kwargs={"num_classes": 11})
    without = Timm(TINY, checkpoint=path)
    with_head.load(CPU), without.load(CPU)
    model.reset_classifier(0)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.inference_mode():
        expected = torch.cat([model(transform(image)[None]) for image in pictures()])
    for backbone in (with_head, without):
        assert backbone.name == "test_vit.r160_in1k-mine"
        assert torch.allclose(features(backbone, pictures()), expected, atol=1e-4)
    with pytest.raises(UserError, match="does not fit this architecture.*of another shape"):
        Timm(TINY, checkpoint=path, kwargs={"num_classes": 12}).load(CPU)
    with pytest.raises(UserError, match="does not fit this architecture.*missing.*unknown"):
        Timm("test_resnet.r160_in1k", checkpoint=path).load(CPU)


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was executed')",))


def test_checkpoints_that_are_none(tmp_path: Path, tiny_open_clip: str) -> None:
    torch.save({"model": Hostile()}, tmp_path / "evil.pth")
    (tmp_path / "noise.safetensors").write_bytes(b"noise" * 9)
    torch.save([1, 2], tmp_path / "list.pt")
    reasons = {"evil.pth": "cannot be read", "noise.safetensors": "cannot be read", "list.pt": "no state dict"}
    for name, said in reasons.items():
        with pytest.raises(UserError, match=said):
            Timm(TINY, checkpoint=str(tmp_path / name)).load(CPU)
    for name in ("evil.pth", "noise.safetensors"):
        with pytest.raises(UserError, match="does not load into"):
            OpenClip(tiny_open_clip, checkpoint=str(tmp_path / name)).load(CPU)
    for backbone in (Timm(TINY, checkpoint="gone.pth"), OpenClip(tiny_open_clip, checkpoint="gone.pth")):
        with pytest.raises(UserError, match="model.checkpoint=gone.pth: there is no such file"):
            backbone.load(CPU)


def test_open_clip_checkpoint(tmp_path: Path, tiny_open_clip: str) -> None:
    with seeded(5):
        model = open_clip.create_model(tiny_open_clip, pretrained=None)
    torch.save(model.state_dict(), tmp_path / "epoch_3.pt")
    loaded, seeded_same = (
        OpenClip(tiny_open_clip, checkpoint=str(tmp_path / "epoch_3.pt")),
        OpenClip(tiny_open_clip, pretrained=False, seed=5),
    )
    loaded.load(CPU), seeded_same.load(CPU)
    assert loaded.name == "alfm-tiny-epoch_3"
    assert torch.equal(features(loaded, pictures()), features(seeded_same, pictures()))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    def refuse(*_args, **_options):
        raise socket.gaierror("name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return str(tmp_path / "models")


def test_without_network_one_sentence_says_what_to_do(no_network: str) -> None:
    with pytest.raises(UserError, match=r"test_vit.r160_in1k could not be had \(no network.*model.checkpoint=PATH"):
        Timm(TINY, cache_dir=no_network).load(CPU)
    with pytest.raises(UserError, match=r"ViT-B-32 \(laion2b_e16\) could not .*no network.*model.checkpoint=PATH"):
        OpenClip("ViT-B-32", "laion2b_e16", cache_dir=no_network).load(CPU)
    gated = Timm("vit_small_patch16_dinov3.lvd1689m", cache_dir=no_network, licence_page="https://licence.example")
    with pytest.raises(UserError, match=r"https://licence.example.*HF_TOKEN.*model.checkpoint=PATH"):
        gated.load(CPU)


def test_misspelt_names() -> None:
    with pytest.raises(UserError, match="did you mean .*resnet18"):
        Timm("resnett18").load(CPU)
    with pytest.raises(UserError, match="did you mean .*ViT-B-32"):
        OpenClip("ViT-B32").load(CPU)
    with pytest.raises(UserError, match="laion2b_s34b_b79k"):
        OpenClip("ViT-B-32", "laion").load(CPU)
    for kwargs in ({"no_such_option": 1}, {"global_pool": "nonsense"}):
        with pytest.raises(UserError, match="model.kwargs"):
            Timm(TINY, pretrained=False, kwargs=kwargs).load(CPU)
    with pytest.raises(UserError, match=r"does not take images of \[3, 96, 96\].*dynamic_img_size"):
        Timm("vit_tiny_patch16_224", pretrained=False, input_size=96).load(CPU)


@pytest.mark.parametrize("options", [{"mean": [1, 2]}, {"std": 0}, {"input_size": [1, 2, 3, 4]}, {"input_size": -1}])
def test_overrides_that_make_no_sense(options: dict) -> None:
    with pytest.raises(UserError, match=f"Timm {next(iter(options))}="):
        Timm(TINY, pretrained=False, **options)


def test_pixels() -> None:
    grey = [Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * factor) for factor in (1, 51)]
    backbone = Pixels()
    backbone.load(CPU)
    found = features(backbone, grey)
    assert torch.allclose(found, torch.tensor([[i / 255 for i in range(6)], [i / 5 for i in range(6)]]))
    assert backbone.dim == 6
    with pytest.raises(UserError, match="images of one size"):
        features(backbone, pictures(2))
    with pytest.raises(UserError, match="images of one size"):
        features(backbone, pictures(1))
    resized = Pixels(size=[4, 5])
    assert resized.dim == 60 == features(resized, pictures()).shape[1]
    assert resized.fingerprint != backbone.fingerprint
