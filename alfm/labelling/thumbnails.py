"""Items as a browser shows and plays them: small JPEGs, and recordings that it can decode.

Whatever an image file holds is decoded here and written anew as JPEG, so nothing of it reaches a page but pixels.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from weakref import WeakKeyDictionary

from alfm.labelling.items import ItemGone, Items
from alfm.labelling.media import encoded, plays

_KEPT_BYTES = 64 << 20
"""Of thumbnails, per pool."""
_LONGEST = 64 << 20
"""Bytes of a recording that is given as it is; of longer ones the beginning is."""
_kept: WeakKeyDictionary[Items, _Kept] = WeakKeyDictionary()
_lock = threading.Lock()


class _Kept:
    """The thumbnails that were made last."""

    def __init__(self) -> None:
        self.made: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self.size = 0


def thumbnail(items: Items, row: int, side: int = 256) -> bytes:
    """An image as a JPEG that fits a square of `side` pixels, upright, over white, 8 bits; smaller ones keep their
    size.

    `ItemGone` for an item that is gone, has changed, cannot be decoded (such as one above the data set's `max_pixels`)
    or is no image.
    """
    if items.modality != "image":
        raise ItemGone(f"{items.ids[row]} is no image.")
    key = (row, side, items.stamp(row))
    with _lock:
        kept = _kept.setdefault(items, _Kept())
        if (found := kept.made.get(key)) is not None:
            kept.made.move_to_end(key)
            return found
    made = _small(items, row, side)
    with _lock:
        if key not in kept.made:
            kept.made[key] = made
            kept.size += len(made)
        while kept.size > _KEPT_BYTES:
            kept.size -= len(kept.made.popitem(last=False)[1])
    return made


def audio(items: Items, row: int) -> tuple[bytes, str]:
    """A recording and its media type: the file itself when browsers play it (WAV, MP3, OGG, FLAC), else WAV of what is
    read of it. `ItemGone` for an item that is gone, has changed, cannot be decoded or is no recording."""
    if items.modality != "audio":
        raise ItemGone(f"{items.ids[row]} is no recording.")
    if items.size(row) <= _LONGEST:
        raw, kind = items.file_bytes(row)
        if kind.startswith("audio/") and plays(raw):
            return raw, kind
    return encoded(items.load(row))


def _small(items: Items, row: int, side: int) -> bytes:
    image = items.load(row, at_least=side)
    if not hasattr(image, "thumbnail"):
        raise ItemGone(f"{items.ids[row]} is no image.")
    image = image.convert("RGB")
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()
