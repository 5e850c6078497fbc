"""One image file, as the eye sees it: RGB, upright, 8 bits; or an `ItemError` that names the item.

Images of more than 8 bits become so by a scale that belongs to the data set: see `alfm.datasets.intensity`.
"""

from __future__ import annotations

import io
import threading
import warnings
from typing import Any, BinaryIO

import numpy as np

from alfm.datasets.base import ItemError
from alfm.datasets.deep import CONTAINER, colour_layout, colour_values, grey_values, is_grey
from alfm.datasets.intensity_range import Range, wider
from alfm.errors import UserError

MAX_PIXELS = 178_956_970
"""Largest width x height that is decoded (about 0.5 GB as RGB): the limit at which Pillow itself refuses."""

_LIMIT_LOCK = threading.Lock()


def read_image(
    source: str | bytes | BinaryIO,
    item_id: str,
    max_pixels: int = MAX_PIXELS,
    decode_size: int | None = None,
    intensity_range: Range = "container",
    intensity_clip: bool = False,
) -> Any:
    """Decode one image to a PIL image in RGB.

    `source`: a path, an open binary file, or the encoded bytes. The first frame of an animation; EXIF rotation
    applied; `intensity_range` of more than 8 bits brought to 8, values beyond it refused unless `intensity_clip`;
    transparency laid over white; CMYK and palettes converted. `decode_size`: let a JPEG be decoded at 1/2, 1/4 or 1/8
    as long as both sides stay >= `decode_size` pixels (faster, and bounded memory for huge photographs; slightly
    different pixels, so off by default).
    Raises `ItemError` for anything that cannot be decoded whole, and above `max_pixels`; `UserError` for values that
    `intensity_range` does not hold, since that setting is then wrong for all images.
    """
    from PIL import ImageOps

    if isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata; errors are errors all the same
            with open_unlimited(source) as image:
                if decode_size is not None:
                    image.draft(None, (decode_size, decode_size))  # only JPEG does anything here
                if image.width * image.height > max_pixels:
                    size = f"{image.width} x {image.height} pixels"
                    raise ItemError(
                        f"{item_id}: {size} is above the limit of {max_pixels} (a decompression bomb?); raise "
                        "dataset.max_pixels, or for a JPEG set dataset.decode_size"
                    )
                layout = colour_layout(image)
                image.load()
                if layout is not None or is_grey(image):
                    return _turned(_deep_to_rgb(image, source, layout, item_id, intensity_range, intensity_clip), image)
                try:
                    upright = ImageOps.exif_transpose(image)
                except Exception:  # metadata that is damaged beside an image that is not
                    upright = image
                return to_rgb(upright)
    except (ItemError, UserError):
        raise
    except Exception as error:  # decoders of untrusted files raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(source, io.BytesIO):
            reason = reason.replace(repr(source), "the data")
        raise ItemError(f"{item_id}: cannot be read as an image: {reason}") from error


def open_unlimited(source: Any) -> Any:
    """`Image.open` without Pillow's global size limit: ours is checked by the caller, after a JPEG's reduction."""
    from PIL import Image

    with _LIMIT_LOCK:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(source)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def to_rgb(image: Any, item_id: str = "an image", intensity_range: Range = None, intensity_clip: bool = False) -> Any:
    """Any loaded PIL image -> RGB; transparency over white. For deep images see `read_image`."""
    from PIL import Image

    if is_grey(image):
        return _deep_to_rgb(image, None, None, item_id, intensity_range, intensity_clip)
    transparent = "transparency" in image.info
    if image.mode == "RGB" and not transparent:
        return image
    if transparent or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


# ---- more than 8 bits -----------------------------------------------------------------------------------------------


def _deep_to_rgb(
    image: Any, source: Any, layout: str | None, item_id: str, intensity_range: Range, intensity_clip: bool
) -> Any:
    """A loaded deep image -> RGB: grey (`layout` None), or 16 bits a channel, full scale being their high bytes."""
    from PIL import Image

    key = image.info.get("transparency")
    if layout is None:
        values = grey_values(image)
        shades = _to_8_bit(values, *_black_and_white(values, item_id, intensity_range, intensity_clip))
        if isinstance(key, int):
            shades[values == key] = 255
        return Image.fromarray(shades).convert("RGB")
    full = intensity_range is not None and (intensity_range == "container" or list(intensity_range) == [0, CONTAINER])
    found = None if full and key is None else colour_values(image, source, layout)
    if found is None:
        if full:
            return to_rgb(image)
        raise ItemError(f"{item_id}: 16-bit colours that are multiplied by their transparency are not read")
    values = found
    alpha = values.shape[-1] in (2, 4) and image.mode != "CMYK"
    colours = values[..., :-1] if alpha else values
    black, white = _black_and_white(colours, item_id, intensity_range, intensity_clip)
    full = (black, white) == (0, CONTAINER)
    shades = (colours >> 8).astype(np.uint8) if full else _to_8_bit(colours, black, white)
    if key is not None:
        shades[(values == np.asarray(key, dtype=np.int64)).all(axis=-1)] = 255
    if image.mode == "CMYK":
        return Image.frombytes("CMYK", shades.shape[1::-1], shades.tobytes()).convert("RGB")
    if shades.shape[-1] == 1:
        shades = np.repeat(shades, 3, axis=-1)
    if not alpha:
        return Image.fromarray(shades)
    opaque = white if values[..., -1].max() <= white else CONTAINER  # the files of some writers scale it with the rest
    return to_rgb(Image.fromarray(np.concatenate([shades, _to_8_bit(values[..., -1:], 0, opaque)], axis=-1)))


def _black_and_white(values: np.ndarray, item_id: str, given: Range, clip: bool) -> tuple[float, float]:
    """The range to use for one image's values. `UserError` when they lie beyond it, or when none was settled."""
    is_float = values.dtype.kind == "f"
    known = values[~np.isnan(values)] if is_float else values
    least, largest = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    there = f"{item_id} has values from {least:g} to {largest:g}"
    if given is None:
        if is_float or least < 0 or not CONTAINER // 4 < largest <= CONTAINER:  # else only all 16 bits hold it
            raise UserError(
                f"{there}, deeper than the 8 bits of the images looked at first: say which values become black and "
                f"white, such as {wider(least, largest)}"
            )
        return 0.0, float(CONTAINER)
    low, high = ((0, 1) if is_float else (0, CONTAINER)) if given == "container" else given
    if not clip and (least < low or largest > high):
        raise UserError(
            f"{there}, beyond the range from {low:g} to {high:g} of the data set: widen it with "
            f"{wider(least, largest, [low, high])}, or cut off what lies beyond with dataset.intensity_clip=true"
        )
    return float(low), float(high)


def _to_8_bit(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Values -> uint8, [black, white] from 0 to 255; NaN is black."""
    values = values.astype(np.float32)
    values = np.where(np.isnan(values), np.float32(black), values)
    return np.rint(np.clip((values - black) / (white - black), 0, 1) * 255).astype(np.uint8)


def _turned(rgb: Any, image: Any) -> Any:
    """`rgb` turned as the metadata of `image` says."""
    from PIL.Image import Transpose

    turns = [Transpose.FLIP_LEFT_RIGHT, Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM, Transpose.TRANSPOSE]
    turns += [Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90]
    try:
        orientation = int(image.getexif().get(0x0112, 1))
    except Exception:  # metadata that is damaged beside an image that is not
        return rgb
    return rgb.transpose(turns[orientation - 2]) if 2 <= orientation <= 8 else rgb
