"""Photographs through `python -m alfm.extract` with timm and open_clip, random weights: every row of the cache against
the library's own transform and forward pass, one image at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image

from alfm.backbones.weights import seeded
from alfm.cache import FeatureCache, open_cache
from alfm.extract import main

SIZES = [(50, 40), (33, 70), (64, 64), (90, 31), (40, 41), (35, 60), (48, 32)]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Seven JPEGs and PNGs of several sizes and modes in train/ and test/ of two classes."""
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        place = tmp_path / "photographs" / ("test" if number > 4 else "train") / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        image.convert("L" if number == 3 else "RGB").save(place / f"{number}.{'png' if number % 3 else 'jpg'}")
    return tmp_path / "photographs"


def extracted(root: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> FeatureCache:
    monkeypatch.setenv("FEATURE_CACHE_DIR", str(root.parent / "features"))
    monkeypatch.chdir(root.parent)
    common = ["dataset=image_folder", f"dataset.root={root}", "device=cpu", "num_workers=0", "batch_size=2"]
    assert main([*common, "model.pretrained=false", "model.seed=3", "cache.dtype=float32", *overrides]) == 0
    (path,) = (root.parent / "features").glob("*/*.h5")
    return open_cache(path)


@torch.inference_mode()
def check_every_row(cache: FeatureCache, root: Path, plain: Callable[[Image.Image], torch.Tensor]) -> None:
    """Ids are the files of each split in order, labels their folders, and each row is that very file's."""
    for split in ("train", "test"):
        ids = cache.ids(split) or []
        found = (path.relative_to(root).as_posix() for path in (root / split).rglob("*.*"))
        assert [text.rpartition(f"{split}/")[2] for text in ids] == sorted(f.partition("/")[2] for f in found)
        assert cache.labels(split).tolist() == ["ab".index(text.split("/")[-2]) for text in ids]
        for text, row in zip(ids, cache.features(split), strict=True):
            image = Image.open(next(root.rglob(Path(text).name))).convert("RGB")
            np.testing.assert_allclose(row, plain(image).numpy(), atol=1e-4)
    assert cache.num_rows("train") + cache.num_rows("test") == len(SIZES)


def test_timm(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = extracted(photographs, monkeypatch, "model=timm", "model.arch=test_vit.r160_in1k")
    with seeded(3):
        model = timm.create_model("test_vit.r160_in1k", pretrained=False, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    check_every_row(cache, photographs, lambda image: model(transform(image)[None])[0])


def test_open_clip(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 16}
    text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
    (tmp_path / "alfm-small.json").write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(tmp_path / "alfm-small.json")
    cache = extracted(photographs, monkeypatch, "model=open_clip", "model.arch=alfm-small")
    assert cache.dim == 24 and cache.attributes["weights"] == "random, seed 3"
    with seeded(3):
        model, _, transform = open_clip.create_model_and_transforms("alfm-small", pretrained=None)
    model.eval()
    check_every_row(cache, photographs, lambda image: model.encode_image(transform(image)[None])[0])
