"""What a cache file looks like, in one place: names, attributes, checksums and how rows are summed up.

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
from collections.abc import Iterable
from pathlib import Path

import numpy as np

FORMAT = "alfm-feature-cache"
FORMAT_VERSION = 1
REQUIRED_ATTRIBUTES = ("format", "format_version", "dataset_fingerprint", "model_fingerprint")
FLOAT16_MAX = 65504.0
MAX_CLASSES = 1_000_000
"""Beyond this a "label" is an id, and a head for it would not fit anywhere."""


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
