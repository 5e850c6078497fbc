"""Files and folders by path or by URL (s3://, gs://, hf://, memory://): what readers of data sets ask of either.

URLs are read through fsspec, whose packages for each kind (s3fs, gcsfs, ...) are the reader's to install; a folder is
there when something lies below it, as object stores have it. Errors are OSErrors, as for paths.
"""

from __future__ import annotations

import glob
import os
from typing import Any, BinaryIO, cast

from alfm.errors import UserError


def is_url(place: str) -> bool:
    """Whether fsspec is asked for it."""
    return "://" in place


def store_of(url: str) -> tuple[Any, str]:
    """The file system behind a URL, the same object in a process as long as it lives, and the path in it.

    Raises UserError where its kind is not known, or its package is missing.
    """
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        kind = url.partition("://")[0]
        extra = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "az": "adlfs"}.get(kind)
        raise UserError(f"{url}: {f'pip install {extra}' if extra else f'{kind}:// is not known to fsspec'}") from error


def is_folder(place: str) -> bool:
    """Whether a folder is there."""
    if not is_url(place):
        return os.path.isdir(place)
    store, path = store_of(place)
    return bool(store.isdir(path))


def is_file(place: str) -> bool:
    """Whether a file is there."""
    if not is_url(place):
        return os.path.isfile(place)
    store, path = store_of(place)
    return bool(store.isfile(path))


def size(place: str) -> int:
    """Bytes. OSError."""
    if not is_url(place):
        return os.path.getsize(place)
    store, path = store_of(place)
    return int(store.info(path)["size"])


def opened(place: str) -> BinaryIO:
    """A file to read from any offset; of a URL, what is asked for is fetched. OSError."""
    if not is_url(place):
        return open(place, "rb")
    store, path = store_of(place)
    return cast(BinaryIO, store.open(path, "rb"))


def fetched(url: str, offset: int = 0, length: int | None = None) -> bytes:
    """A piece of a file behind a URL, in one request. OSError."""
    store, path = store_of(url)
    return store.cat_file(path, start=offset or None, end=None if length is None else offset + length)


def entries(url: str) -> list[tuple[str, bool]]:
    """Names right below a URL, sorted as bytes, and whether each is a folder."""
    store, path = store_of(url)
    there = [(each["name"].rstrip("/"), each["type"] == "directory") for each in store.ls(path, detail=True)]
    below = [(name.rpartition("/")[2], is_dir) for name, is_dir in there if name != path.rstrip("/")]  # itself, on some
    return sorted(below, key=lambda entry: os.fsencode(entry[0]))


def matching(pattern: str) -> list[str]:
    """Files that match a glob, sorted."""
    if not is_url(pattern):
        return sorted(glob.glob(pattern))
    store, path = store_of(pattern)
    kind, _, rest = pattern.partition("://")
    top = "/" if rest.startswith("/") else ""  # as it was typed: ids are what follows the root
    return [f"{kind}://{top}{found.lstrip('/')}" for found in sorted(store.glob(path))]
