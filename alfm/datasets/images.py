"""One image file, as the eye sees it: RGB, upright, 8 bits; or an `ItemError` that names the item."""

from __future__ import annotations

import io
import threading
import warnings
from typing import Any, BinaryIO

import numpy as np

from alfm.datasets.base import ItemError

MAX_PIXELS = 178_956_970
"""Largest width x height that is decoded (about 0.5 GB as RGB): the limit at which Pillow itself refuses."""

_LIMIT_LOCK = threading.Lock()


def read_image(
    source: str | bytes | BinaryIO, item_id: str, max_pixels: int = MAX_PIXELS, decode_size: int | None = None
) -> Any:
    """Decode one image to a PIL image in RGB.

    `source`: a path, an open binary file, or the encoded bytes. The first frame of an animation; EXIF rotation
    applied; 16-bit brought to 8; transparency laid over white; CMYK and palettes converted. `decode_size`: let a
    JPEG be decoded at 1/2, 1/4 or 1/8 as long as both sides stay >= `decode_size` pixels (faster, and bounded
    memory for huge photographs; slightly different pixels, so off by default).
    Raises `ItemError` for anything that cannot be decoded whole, and above `max_pixels`.
    """
    from PIL import Image, ImageOps

    if isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata; errors are errors all the same
            with _open_unlimited(Image, source) as image:
                if decode_size is not None:
                    image.draft(None, (decode_size, decode_size))  # only JPEG does anything here
                if image.width * image.height > max_pixels:
                    size = f"{image.width} x {image.height} pixels"
                    raise ItemError(
                        f"{item_id}: {size} is above the limit of {max_pixels} (a decompression bomb?); raise "
                        "dataset.max_pixels, or for a JPEG set dataset.decode_size"
                    )
                image.load()
                try:
                    upright = ImageOps.exif_transpose(image)
                except Exception:  # metadata that is damaged beside an image that is not
                    upright = image
                return to_rgb(upright)
    except ItemError:
        raise
    except Exception as error:  # decoders of untrusted files raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(source, io.BytesIO):
            reason = reason.replace(repr(source), "the data")
        raise ItemError(f"{item_id}: cannot be read as an image: {reason}") from error


def _open_unlimited(image_module: Any, source: Any) -> Any:
    """`Image.open` without Pillow's global size limit: ours is checked by the caller, after a JPEG's reduction."""
    with _LIMIT_LOCK:
        limit = image_module.MAX_IMAGE_PIXELS
        image_module.MAX_IMAGE_PIXELS = None
        try:
            return image_module.open(source)
        finally:
            image_module.MAX_IMAGE_PIXELS = limit


def to_rgb(image: Any) -> Any:
    """Any PIL image -> RGB. Values of 16-bit and float images are scaled, not clipped; alpha lies over white."""
    from PIL import Image

    if image.mode == "RGB":
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Grey values of a deep image -> uint8. Full scale is the least of 1 (floats only), 255, 65535 that holds it."""
    is_float = values.dtype.kind == "f"
    values = np.nan_to_num(values.astype(np.float32))
    top = float(values.max(initial=0.0))
    full = 1.0 if is_float and top <= 1 else 255.0 if top <= 255 else max(65535.0, top)
    return np.rint(np.clip(values / full, 0, 1) * 255).astype(np.uint8)
