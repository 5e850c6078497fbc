"""Both stages with real weights and real photographs. Skipped unless ALFM_CHECK_DATA names a folder that holds
`raw/caltech101_10/<class>/*.jpg` and `backbones/mobilenetv2_100_imagenet.safetensors`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import alfm
from alfm.extract import main

DATA = Path(os.environ.get("ALFM_CHECK_DATA", "/nonexistent"))
PHOTOS, WEIGHTS = DATA / "raw" / "caltech101_10", DATA / "backbones" / "mobilenetv2_100_imagenet.safetensors"


@pytest.mark.skipif(not (PHOTOS.is_dir() and WEIGHTS.is_file()), reason="ALFM_CHECK_DATA names no photographs")
def test_five_labels_per_class_of_real_photographs():
    status = main([
        "dataset=image_folder", f"dataset.root={PHOTOS}", "dataset.name=photos", "dataset.test_fraction=0.4",
        "model=timm", "model.arch=mobilenetv2_100", f"model.checkpoint={WEIGHTS}", "model.name=mobilenet",
        "model.kwargs={num_classes:1001,pad_type:same}", "model.mean=0.5", "model.std=0.5", "model.input_size=224",
        "device=cpu",
    ])  # fmt: skip
    assert status == 0
    path = Path(os.environ["FEATURE_CACHE_DIR"]) / "photos" / "mobilenet.h5"
    rounds = alfm.simulate(path, "random", init_strategy="balanced", rounds=3, init=1, step=4, device="cpu")
    accuracy = rounds.groupby("num_labeled").accuracy.mean()
    print(accuracy.to_dict())
    assert list(accuracy.index) == [10, 50, 90]
    assert accuracy[50] >= 0.95
