"""decode=gpu on the CPU: torchvision decodes there behind the same function, and all else is as on a GPU."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, PILToTensor, Resize

from alfm import extract
from alfm.backbones.on_device import steps_on_tensors
from alfm.backbones.timm_model import Timm
from alfm.cache import FeatureCache, open_cache
from alfm.datasets.folder import folder
from alfm.errors import UserError
from alfm.extraction import decoding
from alfm.extraction.encoding import Encoder

CPU = torch.device("cpu")
TURNED = Image.Exif()
TURNED[0x0112] = 6


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Coarse noise, smoothed: a JPEG of it is no noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Seven plain JPEGs (one grey, one progressive), and six others, in two classes."""
    root = tmp_path / "photographs"
    for name in "ab":
        (root / name).mkdir(parents=True)
    for number, (width, height) in enumerate([(60, 50), (50, 70), (64, 64), (90, 41), (40, 41)]):
        photograph(width, height, number).save(root / "ab"[number % 2] / f"{number}.jpg", quality=90)
    photograph(60, 50, 5).convert("L").save(root / "a" / "grey.jpg")
    photograph(60, 50, 6).save(root / "b" / "progressive.jpg", progressive=True)
    photograph(60, 50, 7).save(root / "a" / "x.png")
    photograph(60, 50, 8).convert("CMYK").save(root / "b" / "cmyk.jpg")
    photograph(60, 50, 9).save(root / "a" / "turned.jpg", exif=TURNED)
    photograph(60, 50, 10).save(root / "b" / "png_named.jpg", "PNG")
    photograph(60, 50, 11).save(root / "a" / "rgb.jpg", keep_rgb=True)
    (root / "b" / "longer.jpg").write_bytes(jpeg(12) + b"and more")
    return root


def jpeg(seed: int) -> bytes:
    out = io.BytesIO()
    photograph(60, 50, seed).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def run(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`alfm.extract` of them with a small ViT on the CPU, as if that decoded as a GPU does."""
    monkeypatch.setenv("FEATURE_CACHE_DIR", str(photographs.parent / "features"))
    monkeypatch.chdir(photographs.parent)
    monkeypatch.setattr("alfm.extraction.session.check_device", lambda device: None)
    common = ["dataset=image_folder", f"dataset.root={photographs}", "device=cpu", "threads=1", "num_workers=0"]
    common += ["model=timm", "model.arch=test_vit", "model.pretrained=false", "model.input_size=32"]
    common += ["cache.dtype=float32", "batch_size=4", "part_size=4"]
    return lambda *words: extract.main([*common, *words])


def cache(photographs: Path, name: str) -> FeatureCache:
    return open_cache(photographs.parent / "features" / "photographs" / f"{name}.h5")


# ---- the same features ----------------------------------------------------------------------------------------------


def test_features_are_those_of_pil_but_for_the_last_bits(
    run: Callable[..., int], photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("cache.model=pil") == 0
    assert "decoded on the CPU" not in capsys.readouterr().out
    assert run("cache.model=gpu", "decode=gpu") == 0
    said = capsys.readouterr().out
    assert "note: decoded on the CPU: 6 of 13 images (not JPEG 2, " in said
    pil, gpu = cache(photographs, "pil"), cache(photographs, "gpu")
    assert pil.ids("train") == gpu.ids("train") and pil.marks("train") == gpu.marks("train")
    np.testing.assert_array_equal(pil.labels("train"), gpu.labels("train"))
    scale = np.abs(pil.features("train")).max()
    np.testing.assert_allclose(gpu.features("train"), pil.features("train"), atol=0.01 * scale)
    assert gpu.attributes["decode"] == "gpu" and "decode" not in pil.attributes
    assert pil.attributes["model_fingerprint"] == gpu.attributes["model_fingerprint"]
    kinds = gpu.attributes["decoded_on_cpu"]
    for kind in ("JPEG in CMYK", "turned by EXIF", "JPEG in RGB without YCbCr", "JPEG with something after its end"):
        assert kind in str(kinds)


def test_worker_processes_hand_over_the_same(run: Callable[..., int], photographs: Path) -> None:
    assert run("cache.model=one", "decode=gpu") == 0
    assert run("cache.model=two", "decode=gpu", "num_workers=1") == 0
    one, two = cache(photographs, "one"), cache(photographs, "two")
    np.testing.assert_array_equal(one.features("train"), two.features("train"))
    assert one.attributes["decoded_on_cpu"] == two.attributes["decoded_on_cpu"]


@pytest.mark.parametrize("size", [40, 90, [30, 50]], ids=str)
@pytest.mark.parametrize(
    "interpolation", [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC], ids=lambda m: m.value
)
def test_steps_on_tensors_do_what_pil_does(size: int | list[int], interpolation: InterpolationMode) -> None:
    """Of 255: 2 at most, and rarely (which direction comes first differs from one version of PIL to another)."""
    transform = Compose([Resize(size, interpolation), CenterCrop(36), PILToTensor()])
    steps = steps_on_tensors(transform, "it")
    for width, height in [(60, 50), (50, 71), (33, 133), (40, 40)]:
        image = photograph(width, height)
        found = PILToTensor()(image)
        for step in steps:
            found = step(found)
        wanted = transform(image)
        assert found.shape == wanted.shape and found.dtype == torch.uint8
        apart = (found.int() - wanted.int()).abs()
        assert apart.max() <= 2 and apart.float().mean() < 0.2


def test_a_step_for_pil_alone_is_refused() -> None:
    with pytest.raises(UserError, match="^decode=gpu: it prepares images by Resize.* use decode=pil\\.$"):
        steps_on_tensors(Compose([Resize(8, InterpolationMode.LANCZOS)]), "it")


# ---- damaged files --------------------------------------------------------------------------------------------------


def test_what_the_device_cannot_decode_is_decoded_by_pil_and_what_neither_can_is_named(
    run: Callable[..., int], photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One file spoils a whole call; a truncated one is none for the device."""
    broken, whole = photographs / "a" / "0.jpg", decoding.decode_jpegs

    def picky(files: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        if any(len(file) == broken.stat().st_size for file in files):
            raise RuntimeError("nvjpegDecode failed: 5")
        return whole(files, device)

    assert run("cache.model=whole", "decode=gpu") == 0
    monkeypatch.setattr(decoding, "decode_jpegs", picky)
    assert run("cache.model=picky", "decode=gpu") == 0
    assert "JPEG that the GPU cannot decode 1" in capsys.readouterr().out
    features = [cache(photographs, name).features("train") for name in ("whole", "picky")]
    np.testing.assert_array_equal(*features)
    raw = broken.read_bytes()
    broken.write_bytes(raw[: len(raw) // 2])
    assert run("cache.model=stop", "decode=gpu") == 1
    assert "a/0.jpg: cannot be read as an image: " in capsys.readouterr().err
    assert run("cache.model=skip", "decode=gpu", "on_error=skip") == 0
    assert "left out: a/0.jpg" in capsys.readouterr().out
    # damaged inside: the device fails, and PIL too
    broken.write_bytes(raw)
    monkeypatch.setattr("alfm.datasets.files.read_file", lambda *_: (_ for _ in ()).throw(ValueError("no")))
    assert run("cache.model=neither", "decode=gpu", "on_error=skip") == 0
    assert "left out: a/0.jpg (ValueError: no)" in capsys.readouterr().out


def test_large_images_are_decoded_in_pieces(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = folder(str(photographs)).splits["train"]
    backbone = Timm(arch="test_vit", pretrained=False, input_size=32)
    backbone.load(CPU)
    rows = list(range(len(split)))
    packed = decoding.pack([decoding.read(split, row, backbone)[0] for row in rows])
    decoder = decoding.Decoder(backbone, CPU)
    whole = decoder.decode(packed, split, rows)
    monkeypatch.setattr(decoding, "_PIXELS_AT_ONCE", 4000)
    assert len(list(decoding._pieces(packed))) > 3
    assert torch.equal(decoder.decode(packed, split, rows).batch, whole.batch)
    assert whole.batch.shape == (13, 3, 32, 32) and not whole.failures


# ---- never mixed, and refused ---------------------------------------------------------------------------------------


def test_another_decoder_neither_resumes_nor_replaces(
    run: Callable[..., int], photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from alfm.cache.parts import PartsFolder
    from alfm.extraction.runner import Runner

    monkeypatch.setattr(Runner, "finalise", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run("cache.model=x", "decode=gpu") == 130
    assert PartsFolder(photographs.parent / "features" / "photographs" / "x.h5").done()
    assert run("cache.model=x") == 1
    assert "begun with other settings (decode: gpu there, pil now): give the same" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setenv("FEATURE_CACHE_DIR", str(photographs.parent / "features"))
    monkeypatch.setattr("alfm.extraction.session.check_device", lambda device: None)
    assert run("cache.model=x", "decode=gpu") == 0
    assert run("cache.model=x", "decode=gpu") == 0
    assert "Already cached" in capsys.readouterr().out
    assert run("cache.model=x") == 1
    assert "is another cache (decode: gpu there, pil now)" in capsys.readouterr().err
    photograph(40, 40, 20).save(photographs / "a" / "new.jpg")
    known = f"known={photographs.parent / 'features' / 'photographs' / 'x.h5'}"
    assert run(known) == 1
    assert "was made with decode=gpu" in (said := capsys.readouterr().err) and "give decode=gpu" in said
    assert run(known, "decode=gpu") == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["views=2", "augment=randaugment"], "decode=gpu views=2: views are augmented on the CPU"),
        (["dataset.decode_size=64"], "decode=gpu dataset.decode_size=64: a GPU decodes whole images"),
        (["model=pixels", "model.size=8"], "decode=gpu: pixels takes PIL images only"),
        (["dataset=digits"], "decode=gpu: the images of digits do not come as JPEG files"),
        (["decode=cuda"], "decode=cuda: pil or gpu is needed"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_it_is_not_for_is_said(
    run: Callable[..., int], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[0].startswith(("model=", "dataset=")):
        group = words[0].partition("=")[0]
        common = ["device=cpu", "decode=gpu", "dataset=digits", "model=pixels"]
        if group == "dataset":
            common = ["device=cpu", "decode=gpu", "model=timm", "model.arch=test_vit", "model.pretrained=false"]
        assert extract.main([*common, *words]) == 1
    else:
        assert run("decode=gpu", *words) == 1
    assert said in capsys.readouterr().err


def test_without_a_gpu_it_is_refused(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert extract.main(["decode=gpu", "device=cpu"]) == 1
    assert capsys.readouterr().err == ("Error: decode=gpu needs a CUDA device, and this runs on cpu: use decode=pil.\n")


def test_a_torchvision_that_cannot_is_said(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(files: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        raise RuntimeError("not compiled with nvJPEG support")

    monkeypatch.setattr(decoding, "decode_jpegs", never)
    assert run("decode=gpu") == 1
    assert "does not decode JPEGs on cpu (not compiled with nvJPEG support): use decode=pil." in capsys.readouterr().err


# ---- torch.compile and channels_last --------------------------------------------------------------------------------


@pytest.fixture
def compiled_shapes(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """`torch.compile` gives the module as it is, and each batch's shape is noted here."""
    shapes: list[list[int]] = []

    class Compiled(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self._orig_mod = model

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            shapes.append(list(batch.shape))
            return self._orig_mod(batch)

    monkeypatch.setattr(torch, "compile", lambda model, dynamic: Compiled(model))
    return shapes


def test_a_compiled_model_sees_whole_batches_only(
    run: Callable[..., int], photographs: Path, compiled_shapes: list, capsys: pytest.CaptureFixture[str]
) -> None:
    """13 photographs in batches of 4; one that cannot be read leaves a gap."""
    (photographs / "a" / "0.jpg").write_bytes(b"nothing")
    assert run("cache.model=plain", "on_error=skip") == 0
    assert not compiled_shapes
    assert run("cache.model=compiled", "on_error=skip", "compile=true") == 0
    assert compiled_shapes == [[4, 3, 32, 32]] * 4
    plain, compiled = cache(photographs, "plain"), cache(photographs, "compiled")
    np.testing.assert_allclose(compiled.features("train"), plain.features("train"), atol=1e-5)
    assert len(plain.features("train")) == 12
    assert compiled.attributes["compile"] and "compile" not in plain.attributes
    assert run("cache.model=compiled", "on_error=skip") == 0  # as with another precision, it is the same cache
    assert "Already cached" in capsys.readouterr().out


def test_the_next_of_a_sweep_is_not_compiled(run: Callable[..., int], compiled_shapes: list) -> None:
    assert run("-m", "compile=true,false", "force=true") == 0
    assert len(compiled_shapes) == 4


def test_channels_last_is_asked_of_images_and_weights(
    photographs: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model.arch=test_convnext", "cache.dtype=float32"]
    assert run("cache.model=usual", *words) == 0
    assert run("cache.model=last", "channels_last=true", *words) == 0
    usual, last = cache(photographs, "usual"), cache(photographs, "last")
    scale = np.abs(usual.features("train")).max()
    np.testing.assert_allclose(last.features("train"), usual.features("train"), atol=1e-5 * scale)
    assert last.attributes["channels_last"] and "channels_last" not in usual.attributes
    backbone = Timm(arch="test_convnext", pretrained=False, input_size=32)
    backbone.load(CPU)
    seen: list[bool] = []
    stem = next(module for module in backbone.model.modules() if isinstance(module, torch.nn.Conv2d))
    stem.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    batch = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    for wanted in (None, True, False):
        Encoder(backbone, CPU, "float32", wanted).start(batch, 2)
        assert stem.weight.is_contiguous(memory_format=torch.channels_last) == bool(wanted)
    assert seen == [False, True, False]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compile=true"], "compile=true is for models of images, and pixels is none: use compile=false."),
        (
            ["channels_last=true"],
            "channels_last=true is for models of images, and pixels is none: use channels_last=auto",
        ),
        (["compile=yes please"], "compile=yes please: true or false is needed"),
        (["channels_last=first"], "channels_last=first: "),
    ],
    ids=str,
)
def test_what_they_are_not_for_is_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert extract.main(["device=cpu", *words]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_is_compiled(
    run: Callable[..., int], photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minutes on a slow machine, the first time."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    assert run("cache.model=plain") == 0
    assert run("cache.model=compiled", "compile=true") == 0
    features = [cache(photographs, name).features("train") for name in ("plain", "compiled")]
    np.testing.assert_allclose(features[1], features[0], atol=1e-4 * np.abs(features[0]).max())


@pytest.mark.slow
def test_without_a_compiler_it_is_said(photographs: Path, tmp_path: Path) -> None:
    """In a process of its own: torch keeps which compiler it has found."""
    words = [f"dataset.root={photographs}", "dataset=image_folder", "model=timm", "model.arch=test_vit", "compile=true"]
    words += ["model.pretrained=false", "device=cpu", "num_workers=0", "model.input_size=32"]
    there = os.environ | {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")}
    done = subprocess.run(
        [sys.executable, "-m", "alfm.extract", *words], cwd=tmp_path, env=there, text=True, capture_output=True
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Error: compile=true: torch cannot compile test_vit" in done.stderr
