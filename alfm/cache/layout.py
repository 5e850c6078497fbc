"""What a cache file looks like, in one place: names, attributes, checksums and how rows are summed up.

<split>/features    float16 or float32 (N, D), or (N, V, D) with V augmented views; chunked by rows
<split>/labels      int64 (N,), -1 = unlabelled
<split>/ids         UTF-8 strings (N,)
<split>/marks       ASCII (N,): a mark of each item's content, "" for none (`alfm.datasets.marks`); may be absent
<split>/part_stops  int64 (P,): part p is rows [part_stops[p-1], part_stops[p])
<split>/checksums   ASCII (P,): BLAKE2b-128 of each part's features, labels and ids
<split>/mark_checksums  ASCII (P,): BLAKE2b-128 of each part's marks; apart from the others, so that a cache's
                    fingerprint does not depend on whether it has marks
<split>/skipped     UTF-8 strings (S, 2): id and reason of each item left out (only when there are any)
attributes          see `REQUIRED_ATTRIBUTES` and what `alfm.extract` adds
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

FORMAT = "alfm-feature-cache"
FORMAT_VERSION = 1
REQUIRED_ATTRIBUTES = ("format", "format_version", "dataset_fingerprint", "model_fingerprint")
METADATA_CHECKSUM = "metadata_checksum"
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


def marks_checksum(marks: Iterable[str]) -> str:
    """BLAKE2b-128 (hex, 32 characters) of a part's marks."""
    return hashlib.blake2b("\0".join(marks).encode("ascii", "replace"), digest_size=16).hexdigest()


def plain(value: Any) -> Any:
    """An attribute as a plain Python value."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def metadata_checksum(file: h5py.File) -> str:
    """BLAKE2b-128 of all attributes but the one it is kept in, and of the lists of skipped items.

    HDF5 checksums its own structures; the characters of strings are the one thing it does not.
    """
    attributes = {key: plain(value) for key, value in file.attrs.items() if key != METADATA_CHECKSUM}
    skipped = {name: file[name]["skipped"][:].tolist() for name in file if "skipped" in file[name]}
    text = json.dumps([attributes, skipped], sort_keys=True, default=lambda raw: raw.decode("utf-8", "replace"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def rows_not_finite(features: np.ndarray) -> np.ndarray:
    """bool (n,): rows of `features` (n, ...) that hold a NaN or an Inf.

    Native byte order. Reads the exponent bits of float16 as integers: several times faster than `np.isfinite`.
    """
    rows = features.reshape(len(features), int(np.prod(features.shape[1:])))
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
