"""From items to a cache, offline, with tiny random `transformers` models: text, audio and vision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alfm.cache import open_cache
from alfm.extract import main

transformers = pytest.importorskip("transformers")


def setting(values: dict) -> str:
    """A dict as Hydra's command line takes it."""
    return json.dumps(values).replace('"', "").replace(" ", "").replace(":", ": ")


def extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str):
    monkeypatch.setenv("FEATURE_CACHE_DIR", str(tmp_path / "features"))
    monkeypatch.setenv("MODEL_CACHE_DIR", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    common = ["num_workers=0", "cache.dtype=float32", "batch_size=2", "device=cpu", "model.pretrained=false"]
    assert main([*overrides, *common]) == 0
    (path,) = (tmp_path / "features").glob("*/*.h5")
    return open_cache(path)


def plain(config: dict):
    from alfm.backbones.weights import seeded

    settings = {key: value for key, value in config.items() if key != "model_type"}
    architecture = transformers.AutoConfig.for_model(config["model_type"], **settings)
    with seeded(0):
        return transformers.AutoModel.from_config(architecture).eval()


@torch.inference_mode()
def test_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "model_type": "bert", "vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 16,
    }  # fmt: skip
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]))
    tokenizer = transformers.BertTokenizerFast(str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    texts = ["a b c", "d", "", "e f " * 50_000, "g"]  # one of 100,000 tokens
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"{t},{'xy'[i % 2]}\n" for i, t in enumerate(texts)))
    cache = extracted(
        tmp_path, monkeypatch, "dataset=text_table", f"dataset.path={tmp_path}/t.csv", "dataset.label_column=label",
        "model=transformers_text", "model.arch=tiny", f"model.processor={tmp_path}/tokenizer",
        f"model.config={setting(config)}",
    )  # fmt: skip
    model = plain(config)
    for row, text in enumerate(texts):
        ids = torch.tensor([tokenizer(text, truncation=True, max_length=16)["input_ids"]])
        expected = model(input_ids=ids).last_hidden_state[0].mean(0)
        assert np.abs(cache.features("train")[row] - expected.numpy()).max() < 1e-4
    assert cache.labels("train").tolist() == [0, 1, 0, 1, 0]
    assert cache.ids("train")[4] == "t:4"


@torch.inference_mode()
def test_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile = pytest.importorskip("soundfile")
    pytest.importorskip("soxr")
    config = {
        "model_type": "hubert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "conv_dim": [8, 8], "conv_kernel": [10, 4], "conv_stride": [5, 4],
        "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
    }  # fmt: skip
    rng = np.random.default_rng(0)
    waves = [rng.uniform(-0.5, 0.5, 1600).astype(np.float32) for _ in range(3)]
    for number, wave in enumerate(waves):
        place = tmp_path / "sounds" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / f"{number}.wav", wave, 16000, subtype="FLOAT")
    cache = extracted(
        tmp_path, monkeypatch, "dataset=audio_folder", f"dataset.root={tmp_path}/sounds", "model=transformers_audio",
        "model.arch=tiny", "model.seconds=0.1", f"model.config={setting(config)}",
        "model.processor={type: Wav2Vec2FeatureExtractor}",
    )  # fmt: skip
    assert cache.ids("train") == ["a/0.wav", "a/2.wav", "b/1.wav"]
    model = plain(config)
    for row, number in enumerate((0, 2, 1)):
        wave = (waves[number] - waves[number].mean()) / np.sqrt(waves[number].var() + 1e-7)
        expected = model(input_values=torch.from_numpy(wave)[None]).last_hidden_state[0].mean(0)
        assert np.abs(cache.features("train")[row] - expected.numpy()).max() < 1e-4


@torch.inference_mode()
def test_vision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (40, 30 + n, 3), dtype=np.uint8)) for n in range(3)]
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(images):
        image.save(tmp_path / "photos" / f"{number}.png")
    cache = extracted(
        tmp_path, monkeypatch, "dataset=image_folder", f"dataset.root={tmp_path}/photos", "model=transformers_vision",
        "model.arch=tiny", "model.layers=[-1,-2]", "model.pooling=cls_mean", f"model.config={setting(config)}",
        "model.processor={type: ViTImageProcessor, size: {height: 32, width: 32}}",
    )  # fmt: skip
    model, processor = plain(config), transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    for row, image in enumerate(images):
        pixels = processor(images=image, return_tensors="pt")["pixel_values"]
        output = model(pixel_values=pixels, output_hidden_states=True)
        states = [output.last_hidden_state[0], output.hidden_states[-2][0]]
        expected = torch.cat([part for state in states for part in (state[0], state[1:].mean(0))])
        assert np.abs(cache.features("train")[row] - expected.numpy()).max() < 1e-4
    assert cache.labels("train").tolist() == [-1] * 3
