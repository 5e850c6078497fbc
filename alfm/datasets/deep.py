"""Images with more than 8 bits a channel: their true values, and what their files say about the largest one."""

from __future__ import annotations

import contextlib
import io
import os
import struct
from typing import Any

import numpy as np

CONTAINER = 65535
"""The largest value of 16 bits."""
_BIT_DEPTH, _LARGEST, _LARGEST_OF_TYPE, _KIND = 258, 281, 341, 339
"""TIFF tags: BitsPerSample, MaxSampleValue, SMaxSampleValue, SampleFormat."""


def is_grey(image: Any) -> bool:
    """Whether a PIL image has one channel of 16-bit, 32-bit or float values (modes I, I;16, F)."""
    return image.mode in ("I", "F") or image.mode.startswith("I;")


def colour_layout(image: Any) -> str | None:
    """How 16-bit channels lie in the file of a PIL image that is not loaded yet, of which Pillow reads the high bytes.

    Pillow's name, such as `RGB;16B`; None for an image that is not such a one.
    """
    tiles = getattr(image, "tile", None)
    if not tiles or is_grey(image):
        return None
    arguments = tiles[0][3]
    layout = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return layout if isinstance(layout, str) and ";16" in layout else None


def grey_values(image: Any) -> np.ndarray:
    """(H, W) values of an image for which `is_grey` holds, loaded; unsigned 32-bit ones are not taken for negative."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if values.dtype == np.int32 and tags.get(_BIT_DEPTH) == (32,) and tags.get(_KIND, (1,)) == (1,):
        values = values.view(np.uint32)
    return values


def colour_values(high: Any, source: Any, layout: str) -> np.ndarray | None:
    """uint16 (H, W, C): `high` is the loaded image of high bytes; the low ones are read from `source` once more.

    None for layouts of which Pillow cannot give the low bytes (premultiplied alpha).
    """
    from PIL import Image

    other = {"B": "L", "L": "B", "N": "B" if np.little_endian else "L"}.get(layout[-1])
    grey_with_alpha = layout == "LA;16B"
    if other is None or layout.startswith("RGBa"):
        return None
    if hasattr(source, "seek"):
        source.seek(0)
    with Image.open(source) as image:
        raw = "RGBA" if grey_with_alpha else layout[:-1] + other
        if grey_with_alpha:  # four bytes a pixel, as they lie in the file
            image._mode = "RGBA"
        tiles: Any = [(codec, box, at, _with_layout(arguments, raw)) for codec, box, at, arguments in image.tile]
        image.tile = tiles
        image.load()
        low = np.asarray(image).astype(np.uint16)
    if grey_with_alpha:
        return low[..., 0::2] * 256 + low[..., 1::2]
    return np.asarray(high).astype(np.uint16) * 256 + low


def stated_maximum(image: Any, source: Any) -> int | None:
    """The largest value by the file's own words: MaxSampleValue, sBIT, odd BitsPerSample; None when it says nothing."""
    if image.format in ("PPM", "JPEG2000"):
        return CONTAINER  # which Pillow scales to 16 bits
    if image.format == "PNG":
        bits = _significant_bits(source)
        return None if bits is None else 2**bits - 1
    tags = getattr(image, "tag_v2", None) or {}
    for tag in (_LARGEST, _LARGEST_OF_TYPE):
        value = tags.get(tag)
        largest = max(value) if isinstance(value, tuple) and value else value
        if isinstance(largest, int | float) and largest > 0:
            return int(np.ceil(largest))
    depth = max(tags.get(_BIT_DEPTH) or (16,))
    return 2**depth - 1 if 8 < depth < 16 else None


def _with_layout(arguments: Any, layout: str) -> Any:
    return layout if isinstance(arguments, str) else (layout, *arguments[1:])


def _significant_bits(source: Any) -> int | None:
    """sBIT of a PNG's colour channels, the largest."""
    with open(source, "rb") if isinstance(source, str | os.PathLike) else contextlib.nullcontext(source) as file:
        file.seek(8)
        colour_type = None
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"IHDR":
                colour_type = file.read(13)[9]
            elif kind == b"sBIT":
                bits = file.read(length)
                colours = bits[:-1] if colour_type in (4, 6) else bits
                return max(colours, default=None)
            elif kind in (b"PLTE", b"IDAT", b"IEND"):
                return None
            else:
                file.seek(length, io.SEEK_CUR)
            file.seek(4, io.SEEK_CUR)  # the checksum
    return None
