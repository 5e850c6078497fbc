"""What a cache file looks like, in one place: names, attributes, checksums and how ids are spelt.

    <split>/features    float16 or float32 (N, D), or (N, V, D) with V augmented views; chunked by rows
    <split>/labels      int64 (N,), -1 = unlabelled
    <split>/ids         UTF-8 strings (N,)
    <split>/part_stops  int64 (P,): part p is rows [part_stops[p-1], part_stops[p])
    <split>/checksums   ASCII (P,): BLAKE2b-128 of each part's features, labels and ids
    <split>/skipped     UTF-8 strings (S, 2): id and reason of each item left out (only when there are any)
    attributes          see `REQUIRED_ATTRIBUTES` and what `alfm.extract` adds
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

FORMAT = "alfm-feature-cache"
FORMAT_VERSION = 1
REQUIRED_ATTRIBUTES = ("format", "format_version", "dataset_fingerprint", "model_fingerprint")
FLOAT16_MAX = 65504.0
MAX_CLASSES = 1_000_000
"""Beyond this a "label" is an id, and a head for it would not fit anywhere."""

_ESCAPED = re.compile(r"%(00|25|[89A-Fa-f][0-9A-Fa-f])")
_TO_ESCAPE = re.compile(r"%(?=00|25|[89A-Fa-f][0-9A-Fa-f])|[\x00\ud800-\udfff]")


def escape_id(text: str) -> str:
    """A Python file name -> UTF-8 text that HDF5 keeps whole; `unescape_id` gives the same name back.

    Bytes that are not UTF-8 (`os.fsdecode` keeps them as lone surrogates) and NUL become `%XX`; a `%` changes, to
    `%25`, only where it could be mistaken for one of these, so ordinary ids stay as they are.
    """

    def replace(match: re.Match[str]) -> str:
        character = match.group()
        if "\udc80" <= character <= "\udcff":
            return f"%{ord(character) - 0xDC00:02X}"
        return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))

    return _TO_ESCAPE.sub(replace, text)


def unescape_id(text: str) -> str:
    """The file name that `escape_id` was given (bytes that are not UTF-8 as lone surrogates, see `os.fsencode`)."""

    def replace(match: re.Match[str]) -> str:
        byte = int(match.group(1), 16)
        return chr(0xDC00 + byte) if byte >= 0x80 else chr(byte)

    return _ESCAPED.sub(replace, text)


def checksum(features: np.ndarray, labels: np.ndarray, ids: Iterable[str] | None) -> str:
    """BLAKE2b-128 (hex, 32 characters) of rows as they are stored: little-endian features, int64 labels, ids."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.ascontiguousarray(features, dtype=features.dtype.newbyteorder("<")).view(np.uint8).data)
    digest.update(np.ascontiguousarray(labels, dtype="<i8").view(np.uint8).data)
    for text in ids or ():
        digest.update(text.encode("utf-8") + b"\0")
    return digest.hexdigest()


def rows_not_finite(features: np.ndarray) -> np.ndarray:
    """bool (n,): rows of `features` (n, ...) that hold a NaN or an Inf.

    Native byte order. Reads the exponent bits of float16 as integers: several times faster than `np.isfinite`.
    """
    rows = features.reshape(len(features), -1)
    half = rows.dtype == np.float16
    bad = (rows.view(np.uint16) & 0x7C00) == 0x7C00 if half else ~np.isfinite(rows)
    return bad.any(axis=1)


def safe_name(name: str) -> str:
    """A name usable as one path component on every common file system."""
    cleaned = re.sub(r"[^\w.+=@-]+", "_", name.strip(), flags=re.ASCII).strip("._")
    return cleaned[:150] or "unnamed"


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable. Systems that cannot sync a folder (Windows, some FUSE) are left alone."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
