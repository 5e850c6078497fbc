"""A small mark of an item's content, by which a changed file is told from the one that was embedded.

A letter for what was looked at, the size in bytes (hexadecimal), and 16 hexadecimal digits of BLAKE2b over the first
and the last 64 KiB: cheap beside decoding, also for files of gigabytes. Files and what lies in archives have the same
mark (`b`) when their bytes are the same; texts are marked by what they say in UTF-8 (`t`), whatever holds them; images
and recordings that come decoded by their pixels (`p`) and samples (`s`).
"""

from __future__ import annotations

import io
import os
from hashlib import blake2b
from typing import Any, BinaryIO

import numpy as np

from alfm.datasets.base import Audio, Split

LONGEST = 34
"""Characters of a mark, all of them ASCII."""
_EDGE = 64 * 1024


def mark_of_file(file: BinaryIO) -> str:
    """Of an open binary file from its beginning to its end; it is left at its beginning."""
    size = file.seek(0, os.SEEK_END)
    digest = blake2b(digest_size=8)
    file.seek(0)
    digest.update(file.read(_EDGE))
    if size > _EDGE:
        file.seek(max(_EDGE, size - _EDGE))
        digest.update(file.read(_EDGE))
    file.seek(0)
    return f"b{size:x}-{digest.hexdigest()}"


def mark_of_bytes(raw: bytes) -> str:
    """Of a file with this content."""
    return mark_of_file(io.BytesIO(raw))


def mark_of_item(item: Any) -> str:
    """Of a text, a decoded image (with its size and mode) or a decoded recording; "" for anything else."""
    if isinstance(item, str):
        return "t" + mark_of_bytes(item.encode("utf-8", "surrogatepass"))[1:]
    if isinstance(item, Audio):
        return "s" + mark_of_bytes(np.ascontiguousarray(item.samples, "<f4").tobytes() + str(item.rate).encode())[1:]
    if hasattr(item, "tobytes") and hasattr(item, "mode"):
        head = f"{item.mode} {item.size} ".encode()
        digest = blake2b(head + item.tobytes(), digest_size=8).hexdigest()  # a picture's middle is what differs
        return f"p{item.width * item.height:x}-{digest}"
    return ""


def content_mark(split: Split, index: int, item: Any) -> str:
    """The mark of `split.load(index)`, which is `item`; "" where there is none to be had.

    By its encoded content, where `split.encoded(index)` says where that is (a path, or bytes); a stream is not read
    twice.
    """
    if isinstance(item, str) or not hasattr(split, "encoded") or getattr(split, "in_order", False):
        return mark_of_item(item)
    try:
        source = split.encoded(index)
        if isinstance(source, bytes):
            return mark_of_bytes(source)
        if isinstance(source, str):
            with open(source, "rb") as file:
                return mark_of_file(file)
    except OSError:
        return ""
    return mark_of_item(item)
