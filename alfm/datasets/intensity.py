"""Which values of deep images (more than 8 bits a channel) become black and white: one scale for a whole data set.

A scale of each image's own would tear a series apart: two frames whose largest values are 255 and 256 would differ by a
factor of 256. Images of 8 bits, and those that fill 16, are read as they always were.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alfm.commands import typed
from alfm.datasets.base import Split
from alfm.datasets.deep import CONTAINER, colour_layout, colour_values, grey_values, is_grey, stated_maximum
from alfm.datasets.images import MAX_PIXELS, open_unlimited
from alfm.datasets.intensity_range import LEAST_AMBIGUOUS, USUAL, plain
from alfm.errors import UserError
from alfm.streams import stream

_LOOKED_AT, _FIRST_OF_STREAM, _DECODED = 512, 16, 64
"""Items whose header is looked at; of a stream; deep images whose values are."""
_USUAL_FLOATS = (1.0, 1.25)
"""1.25: room for what resampling adds to values in [0, 1]."""
_NEVER_DEEP = (".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".webp")


@dataclass
class Reading:
    """What was settled. `range`: [black, white], None where there are no deep images."""

    range: list[float] | None = None
    marks: list[str] = field(default_factory=list)
    """For the fingerprint: what is read otherwise than by the first versions, which took each image's own scale."""
    remarks: list[str] = field(default_factory=list)
    grey: bool = False
    """Whether there are deep images of one channel."""


@dataclass
class _Look:
    """Values of one deep image: finite extremes, and the largest that its file promises."""

    low: float
    high: float
    is_float: bool
    is_grey: bool
    stated: int | None

    @property
    def top(self) -> float:
        """The promise where it holds. A PNG's sBIT that does not: its values have been scaled to 16 bits."""
        return self.high if self.stated is None else max(self.high, float(self.stated))

    def first_scale(self) -> float:
        """Full scale of the first versions."""
        if not self.is_grey:
            return CONTAINER
        return 1.0 if self.is_float and self.high <= 1 else 255.0 if self.high <= 255 else max(CONTAINER, self.high)


def settle(modality: str, splits: Mapping[str, Split], decode: dict[str, Any]) -> Reading:
    """Look at a seeded sample of images and put their scale into `decode`, the options that all splits share.

    `decode["intensity_range"]` becomes [black, white], None where no image of the sample is deep, and stays what a user
    has set; what is no image data is left as it is. Splits say by `encoded(index)` where their images come from.
    `UserError` when no usual scale fits.
    """
    if modality != "image":
        return Reading()
    given = decode.get("intensity_range")
    looks, keyed = _sample(splits, int(decode.get("max_pixels") or 0))
    reading = Reading(grey=any(look.is_grey for look in looks))
    if keyed:
        reading.marks.append("transparent colour of RGB read")
    if given is not None:
        reading.range = list(given)
        if not looks:
            reading.remarks.append(f"dataset.intensity_range={_shown(given)}: no image looked at is deeper than 8 bits")
        return reading
    decode["intensity_range"] = None
    if not looks:
        return reading
    low, high = _scale(looks)
    decode["intensity_range"] = reading.range = [low, high]
    if any(look.high > look.low and (low, high) != (0, look.first_scale()) for look in looks):
        reading.marks.append(f"deep images from {low} to {high}")
    promised = all(look.stated is not None for look in looks)
    why = "their files say so" if promised else f"{_number(max(look.high for look in looks))} is the largest value of"
    why += "" if promised else f" {len(looks)} that were looked at"
    reading.remarks.append(
        f"images deeper than 8 bits: {_number(low)} becomes black and {_number(high)} white in all of them ({why}; "
        f"other values: {typed('dataset.intensity_range', [low, high])})"
    )
    return reading


# ---- the scale ------------------------------------------------------------------------------------------------------


def _scale(looks: list[_Look]) -> tuple[float, float]:
    """The usual scale that holds all looks."""
    low, high = min(look.low for look in looks), max(look.top for look in looks)
    asked = UserError(
        f"Images deeper than 8 bits have values from {_number(low)} to {_number(high)}, no usual scale: say which "
        f"become black and white with {typed('dataset.intensity_range', [plain(low), plain(high)])}, or with a "
        "narrower range and dataset.intensity_clip=true"
    )
    floats = [look.is_float for look in looks]
    if any(floats) and not all(floats):
        scales = {_scale_of([look for look in looks if look.is_float == kind]) for kind in (True, False)}
        if len(scales) > 1:
            raise asked
    found = _scale_of(looks)
    if found is None:
        raise asked
    return found


def _scale_of(looks: list[_Look]) -> tuple[float, float] | None:
    low, high = min(look.low for look in looks), max(look.top for look in looks)
    is_float = all(look.is_float for look in looks)
    if low >= 0:
        usual = [scale for scale in (*_USUAL_FLOATS, *USUAL) if is_float or scale >= 255]
        scale = next((scale for scale in usual if scale >= high), None)
        return None if scale is None or (is_float and 1.25 < high <= LEAST_AMBIGUOUS) else (0, scale)
    if is_float and low >= -1 and high <= 1:
        return -1, 1
    if low < -1024 or high > 3071 or high < 16:
        return None
    return -1024, 3071  # 12 bits as computed tomography has them


# ---- the sample -----------------------------------------------------------------------------------------------------


def _sample(splits: Mapping[str, Split], max_pixels: int) -> tuple[list[_Look], bool]:
    """Looks at deep images, and whether an RGB image with a transparent colour was met."""
    looks: list[_Look] = []
    keyed = False
    for source in _sources(splits):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                decoded = hasattr(source, "mode")
                with contextlib.nullcontext(source) if decoded else open_unlimited(source) as image:
                    keyed |= image.mode == "RGB" and "transparency" in image.info
                    fits = image.width * image.height <= (max_pixels or MAX_PIXELS)
                    if fits and len(looks) < _DECODED and (look := _look(image, source)) is not None:
                        looks.append(look)
        except Exception:  # a damaged item is dealt with when its turn comes
            continue
    return looks, keyed


def _sources(splits: Mapping[str, Split]) -> Any:
    """Encoded images of a seeded sample over all splits; of a stream, its first ones."""
    sizes = [len(split) for split in splits.values()]
    starts = np.cumsum([0, *sizes])
    total = int(starts[-1])
    rows = np.sort(stream(0, 0, "images looked at").choice(total, min(total, _LOOKED_AT), replace=False))
    for split, start, size in zip(splits.values(), starts, sizes, strict=False):
        if not hasattr(split, "encoded"):
            continue
        chosen = rows[(rows >= start) & (rows < start + size)] - start
        if getattr(split, "in_order", False):
            chosen = np.arange(min(size, _FIRST_OF_STREAM))
        for row in chosen:
            source = None
            with contextlib.suppress(Exception):  # a damaged item is dealt with when its turn comes
                source = split.encoded(int(row))
            if isinstance(source, bytes):
                yield io.BytesIO(source)
            elif source is not None and not (isinstance(source, str) and source.lower().endswith(_NEVER_DEEP)):
                yield source


def _look(image: Any, source: Any) -> _Look | None:
    layout = colour_layout(image)
    if layout is None and not is_grey(image):
        return None
    stated = stated_maximum(image, source)
    if layout is None:
        values = grey_values(image)
    else:
        image.load()
        colours = colour_values(image, source, layout)
        if colours is None:  # not known: full
            return _Look(0, CONTAINER, False, False, None)
        values = colours[..., :3] if colours.shape[-1] != 2 else colours[..., :1]
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    if stated is not None and high > stated:
        stated = CONTAINER if image.format == "PNG" else None
    return _Look(low, high, values.dtype.kind == "f", layout is None, stated)


def _number(value: float) -> str:
    return f"{plain(value):,}" if float(value).is_integer() else f"{value:.6g}"


def _shown(given: Any) -> str:
    return "[" + ",".join(map(str, given)) + "]"
