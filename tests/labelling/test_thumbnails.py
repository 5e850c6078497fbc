"""What a browser is given of an item: pixels and samples, whatever the file was."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alfm.cache import FeatureCache
from alfm.labelling.items import ItemGone, Items
from alfm.labelling.media import media_type
from alfm.labelling.media import wav as wav_bytes
from alfm.labelling.thumbnails import audio, thumbnail

Write = Callable[..., FeatureCache]


def folder_of(tmp_path: Path, write_cache: Write, names: list[str], modality: str = "image", **options: Any) -> Items:
    config = {"_target_": "alfm.datasets.folder.folder", "modality": modality, "root": str(tmp_path / "files")}
    attributes = {"intensity_range": "[0, 4095]"} if modality == "image" else {}
    return Items.open([write_cache(names, config | options, modality=modality, **attributes)], ["train"])


def shown(raw: bytes) -> Image.Image:
    assert raw[:3] == b"\xff\xd8\xff" and media_type(raw) == "image/jpeg"
    image = Image.open(io.BytesIO(raw))
    image.load()
    assert image.mode == "RGB" and not image.getexif() and "icc_profile" not in image.info
    return image


def near(pixel: Any, wanted: tuple[int, int, int], most: int = 12) -> bool:
    return all(abs(a - b) <= most for a, b in zip(pixel, wanted, strict=True))


def test_every_kind_of_image(tmp_path: Path, write_cache: Write) -> None:
    files = tmp_path / "files"
    files.mkdir()
    turned = Image.new("RGB", (600, 300), (200, 30, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned.save(files / "turned.jpg", exif=exif)
    Image.new("RGBA", (40, 30), (255, 0, 0, 0)).save(files / "clear.png")
    Image.fromarray(np.full((20, 30), 4095, np.uint16)).save(files / "deep.png")
    Image.fromarray(np.full((20, 30), 2048, np.uint16)).save(files / "deep.tif")
    Image.new("L", (9, 8), 77).save(files / "grey.bmp")
    Image.new("CMYK", (300, 20), (0, 255, 255, 0)).save(files / "print.jpg")
    Image.new("P", (10, 10)).save(files / "palette.gif")
    Image.new("RGB", (1000, 10), (1, 2, 250)).save(files / "wide.webp")
    names = sorted(file.name for file in files.iterdir())
    items = folder_of(tmp_path, write_cache, names)
    made = {name: shown(thumbnail(items, row)) for row, name in enumerate(names)}
    sizes = {name: image.size for name, image in made.items()}
    assert sizes == {
        "clear.png": (40, 30), "deep.png": (30, 20), "deep.tif": (30, 20), "grey.bmp": (9, 8), "palette.gif": (10, 10),
        "print.jpg": (256, 17), "turned.jpg": (128, 256), "wide.webp": (256, 3),
    }  # fmt: skip
    assert near(made["clear.png"].getpixel((5, 5)), (255, 255, 255)), "transparent is white"
    assert near(made["deep.png"].getpixel((5, 5)), (255, 255, 255)), "the scale of the data set"
    assert near(made["deep.tif"].getpixel((5, 5)), (128, 128, 128))
    assert near(made["grey.bmp"].getpixel((5, 5)), (77, 77, 77))
    assert near(made["print.jpg"].getpixel((5, 5)), (254, 0, 0), 40)
    assert shown(thumbnail(items, names.index("turned.jpg"), side=32)).size == (16, 32)


def test_what_is_no_image_does_not_come_through(tmp_path: Path, write_cache: Write) -> None:
    files = tmp_path / "files"
    files.mkdir()
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    names = ["a.svg", "b.png", "c.jpg"]
    for name, content in zip(names, (svg, svg, b"<!doctype html><script>alert(1)</script>"), strict=True):
        (files / name).write_bytes(content)
    items = folder_of(tmp_path, write_cache, names)
    for row, name in enumerate(names):
        with pytest.raises(ItemGone, match=name):
            thumbnail(items, row)
        assert items.file_bytes(row)[1] == "application/octet-stream"


def test_images_above_the_limit_of_the_data_set_are_not_decoded(tmp_path: Path, write_cache: Write) -> None:
    (tmp_path / "files").mkdir()
    Image.new("RGB", (500, 500)).save(tmp_path / "files/large.png")
    Image.new("RGB", (1600, 1600)).save(tmp_path / "files/large.jpg")
    items = folder_of(tmp_path, write_cache, ["large.jpg", "large.png"], max_pixels=180_000)
    with pytest.raises(ItemGone, match=r"large.png: 500 x 500 pixels is above the limit of 180000"):
        thumbnail(items, 1)
    assert shown(thumbnail(items, 0)).size == (256, 256), "a JPEG is decoded at a reduced scale"


def test_a_thumbnail_is_made_once_and_never_outlives_its_file(
    tmp_path: Path, write_cache: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "files").mkdir()
    Image.new("RGB", (30, 30)).save(tmp_path / "files/a.png")
    items = folder_of(tmp_path, write_cache, ["a.png"])
    loads = []
    load = items.load
    monkeypatch.setattr(items, "load", lambda *given, **how: (loads.append(given), load(*given, **how))[1])
    first = thumbnail(items, 0)
    assert thumbnail(items, 0) is first and thumbnail(items, 0, side=8) != first and len(loads) == 2
    (tmp_path / "files/a.png").unlink()
    with pytest.raises(ItemGone, match="a.png"):
        thumbnail(items, 0)


def test_recordings_as_a_browser_plays_them(tmp_path: Path, write_cache: Write) -> None:
    soundfile = pytest.importorskip("soundfile")
    (tmp_path / "files").mkdir()
    samples = np.sin(np.arange(4000) / 20).astype(np.float32) / 2
    stereo = np.stack([samples, samples], axis=1)
    for name, how in (
        ("a.wav", {}), ("b.flac", {}), ("c.ogg", {}), ("d.mp3", {}), ("e.aiff", {}),
        ("f.wav", {"subtype": "IMA_ADPCM"}),
    ):  # fmt: skip
        soundfile.write(tmp_path / "files" / name, stereo, 8000, **how)
    names = ["a.wav", "b.flac", "c.ogg", "d.mp3", "e.aiff", "f.wav"]
    items = folder_of(tmp_path, write_cache, names, "audio")
    given = {name: audio(items, row) for row, name in enumerate(names)}
    assert [given[name][1] for name in names] == [
        "audio/wav", "audio/flac", "audio/ogg", "audio/mpeg", "audio/wav", "audio/wav",
    ]  # fmt: skip
    for name in names[:4]:
        assert given[name][0] == (tmp_path / "files" / name).read_bytes()
    for name in names[4:]:
        with wave.open(io.BytesIO(given[name][0])) as file:
            assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (1, 8000, 2)
            heard = np.frombuffer(file.readframes(8000), "<i2")[:4000] / 32767
        np.testing.assert_allclose(heard[500:], samples[500:], atol=0.05)  # that coding begins rough
    with pytest.raises(ItemGone, match=r"a.wav is no image"):
        thumbnail(items, 0)


def test_samples_that_are_too_loud_are_cut() -> None:
    with wave.open(io.BytesIO(wav_bytes(np.array([0, 2, -2], np.float32), 100))) as file:
        assert np.frombuffer(file.readframes(3), "<i2").tolist() == [0, 32767, -32767]
