"""Images as people have them, and images that are none."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from alfm.datasets.base import ItemError
from alfm.datasets.images import read_image


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def gradient(width: int = 40, height: int = 24) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


@pytest.mark.parametrize("mode", ["CMYK", "P", "L", "LA", "RGBA", "1", "YCbCr"])
def test_every_mode_becomes_rgb_and_looks_the_same(mode: str) -> None:
    form = {"CMYK": "TIFF", "YCbCr": "TIFF"}.get(mode, "PNG")
    image = read_image(encoded(gradient().convert(mode), form), "a")
    assert image.mode == "RGB" and image.size == (40, 24)
    expected = np.asarray(gradient().convert(mode).convert("RGB"), dtype=int)
    assert np.abs(np.asarray(image, dtype=int) - expected).max() <= 2


def test_16_bit_is_scaled_not_clipped() -> None:
    grey = np.linspace(0, 65535, 64 * 4).reshape(4, 64).astype(np.uint16)
    image = np.asarray(read_image(encoded(Image.fromarray(grey), "PNG"), "deep"), dtype=int)
    assert np.abs(image[..., 0] - grey / 257).max() <= 1


def test_float_image_in_the_unit_interval() -> None:
    grey = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    image = np.asarray(read_image(encoded(Image.fromarray(grey), "TIFF"), "float"), dtype=int)
    assert np.abs(image[..., 0] - grey * 255).max() <= 1


def test_transparency_lies_over_white() -> None:
    clear = Image.new("RGBA", (3, 3), (10, 20, 30, 0))
    assert read_image(encoded(clear, "PNG"), "clear").getpixel((1, 1)) == (255, 255, 255)


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (5, 5), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    raw = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(raw, "moving").getpixel((2, 2)) == (255, 0, 0)


def test_exif_rotation_is_honoured() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise
    image = read_image(encoded(gradient(), "JPEG", exif=exif, quality=95), "turned")
    upright = gradient().transpose(Image.Transpose.ROTATE_270)
    assert image.size == upright.size == (24, 40)
    assert np.abs(np.asarray(image, dtype=int) - np.asarray(upright, dtype=int)).mean() < 8


def test_damaged_metadata_beside_a_good_image() -> None:
    raw = encoded(gradient(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x00garbage")
    assert read_image(raw, "odd").size == (40, 24)


def test_one_pixel() -> None:
    assert read_image(encoded(Image.new("RGB", (1, 1)), "PNG"), "dot").size == (1, 1)


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "header only"])
def test_damage_is_an_item_error_with_the_id(damage: str) -> None:
    whole = encoded(gradient(400, 400), "JPEG")
    raw = {"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"no image", "header only": whole[:20]}
    with pytest.raises(ItemError, match="cats/07.jpg"):
        read_image(raw[damage], "cats/07.jpg")


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises far more pixels than its few bytes of data hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 99))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ItemError, match=r"20000 x 20000 pixels is above the limit .*max_pixels"):
        read_image(bomb(20000, 20000), "huge.png")
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_huge_jpeg_is_read_in_bounded_memory_when_reduced_decoding_is_on() -> None:
    raw = encoded(Image.new("L", (20000, 20000), 90), "JPEG")
    with pytest.raises(ItemError, match="decode_size"):
        read_image(raw, "huge.jpg")
    image = read_image(raw, "huge.jpg", decode_size=224)
    assert image.size == (2500, 2500) and image.getpixel((7, 7)) == (90, 90, 90)


def test_reduced_decoding_keeps_both_sides_large_enough_and_only_touches_jpeg() -> None:
    assert read_image(encoded(gradient(800, 400), "JPEG"), "a", decode_size=100).size == (200, 100)
    assert read_image(encoded(gradient(800, 400), "PNG"), "a", decode_size=100).size == (800, 400)
