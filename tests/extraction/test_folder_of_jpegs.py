"""The real pieces together: a folder of JPEGs, a timm ViT without weights, one worker and three."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from test_kill import Worker, finish

from alfm.backbones.timm_model import Timm
from alfm.cache import open_cache
from alfm.cache.verify import verify

COUNT = 2000
WORDS = ("dataset=image_folder", "model=timm", "model.arch=test_vit", "model.pretrained=false", "threads=1")
WORDS += ("num_workers=0",)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 JPEGs of 24 x 20 pixels in two class folders."""
    root = tmp_path_factory.mktemp("data") / "photographs"
    rng = np.random.default_rng(0)
    for name in ("ants", "bees"):
        (root / name).mkdir(parents=True)
    for index in range(COUNT):
        coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((24, 20)).save(root / ("ants", "bees")[index % 2] / f"{index:05d}.jpg")
    return root


def extract(folder: Path, root: Path, *words: str) -> Worker:
    folder.mkdir(exist_ok=True)
    return Worker(folder, (f"dataset.root={root}", *WORDS, *words), {}, common=())


def test_one_worker_three_workers_and_a_plain_forward_pass(tmp_path: Path, photographs: Path) -> None:
    words = ("model.input_size=32", "cache.dtype=float32", "batch_size=32", "part_size=128")
    one, three = tmp_path / "one", tmp_path / "three"
    assert "Cache:" in finish(extract(one, photographs, *words))[0]
    finish(*(extract(three, photographs, *words) for _ in range(3)))
    files = [next((folder / "features").rglob("*.h5")) for folder in (one, three)]
    assert verify(files[0]).problems == verify(files[1]).problems == []
    first, second = map(open_cache, files)
    assert first.fingerprint == second.fingerprint
    np.testing.assert_array_equal(first.features("train"), second.features("train"))
    np.testing.assert_array_equal(first.labels("train"), second.labels("train"))
    assert first.ids("train") == second.ids("train")
    # order, ids and labels are the folder's
    ids = sorted(path.relative_to(photographs).as_posix() for path in photographs.rglob("*.jpg"))
    assert first.ids("train") == ids
    assert first.class_names == ["ants", "bees"]
    np.testing.assert_array_equal(first.labels("train"), [text.startswith("bees") for text in ids])
    # the same model, one image at a time, without anything of the extraction
    backbone = Timm(arch="test_vit", pretrained=False, input_size=32)
    backbone.load(torch.device("cpu"))
    rows = np.random.default_rng(1).choice(COUNT, 60, replace=False)
    with torch.inference_mode():
        for row in rows:
            image = backbone.preprocess(Image.open(photographs / ids[row]).convert("RGB"))
            plain = backbone.model(backbone.normalise(image[None]))[0].numpy()
            np.testing.assert_allclose(first.features("train")[row], plain, atol=1e-4)


def test_memory_does_not_grow_with_the_number_of_parts(tmp_path: Path) -> None:
    """Peak of NumPy's and Python's allocations while merging 4 and 40 parts of 1 MB."""
    import tracemalloc

    from alfm.cache.merge import merge
    from alfm.cache.parts import PartsFolder, PartWriter

    peaks = []
    for count in (4, 40):
        folder = PartsFolder(tmp_path / f"{count}.h5")
        settings = {"splits": [["train", count * 1000]], "part_size": 1000}
        folder.create_manifest({"settings": settings, "attributes": {}, "run": "r"})
        for index in range(count):
            part = PartWriter(folder.part_path(index))
            for _ in range(10):
                part.append(np.ones((100, 500), "float16"), np.zeros(100, int), ["id"] * 100)
            part.finish()
        tracemalloc.start()
        merge(folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 500_000, peaks
    assert peaks[1] < 4_000_000, peaks
    with h5py.File(tmp_path / "40.h5") as file:
        assert file["train/features"].shape == (40_000, 500)
