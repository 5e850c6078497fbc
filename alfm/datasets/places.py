"""Files and folders by path or by URL (s3://, gs://, hf://, memory://): what readers of data sets ask of either.

URLs are read through fsspec, whose packages for each kind (s3fs, gcsfs, ...) are the reader's to install; a folder is
there when something lies below it, as object stores have it. Errors are OSErrors, as for paths: a store's own kinds,
such as missing credentials, become those.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from alfm.errors import UserError


def is_url(place: str) -> bool:
    """Whether fsspec is asked for it."""
    return "://" in place


def shown(url: str) -> str:
    """A URL without the name and password that may be in it."""
    return re.sub(r"(?<=://)[^/\s@]*@", "", url)


_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "az": "adlfs", "abfs": "adlfs",
    "abfss": "adlfs", "http": "aiohttp", "https": "aiohttp", "sftp": "paramiko", "ssh": "paramiko",
}  # fmt: skip
"""What each kind of URL needs beside fsspec."""


def store_of(url: str) -> tuple[Any, str]:
    """The file system behind a URL, the same object in a process as long as it lives, and the path in it.

    Raises UserError where its kind is not known, its package is missing, or it does not answer.
    """
    import fsspec

    kind = url.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(kind)
        # fsspec's own words name the package too
        missing = f"{kind}:// needs a package: pip install {package}" if package else _first_line(error)
        raise UserError(f"{shown(url)}: {missing}.") from error
    except Exception as error:  # some kinds connect at once, and each has errors of its own
        if kind not in fsspec.available_protocols():
            raise UserError(f"{shown(url)}: {kind}:// is not known to fsspec, see the spelling.") from error
        raise _unreachable(url, error) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


@contextmanager
def answered() -> Iterator[None]:
    """What a store raises inside is an OSError, whatever it was."""
    try:
        yield
    except (OSError, UserError):
        raise
    except Exception as error:  # each store's client has errors of its own
        raise OSError(f"{type(error).__name__}: {_first_line(error)}") from error


def _is(what: str, url: str) -> bool:
    """What a store says of a URL. UserError where it does not answer."""
    store, path = store_of(url)
    try:
        with answered():
            return bool(getattr(store, what)(path))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: Exception) -> UserError:
    why = _first_line(error)
    return UserError(f"{shown(url)} cannot be reached ({why}): see that address, credentials and network are right.")


def is_folder(place: str) -> bool:
    """Whether a folder is there."""
    if not is_url(place):
        return os.path.isdir(place)
    return _is("isdir", place)


def is_file(place: str) -> bool:
    """Whether a file is there."""
    if not is_url(place):
        return os.path.isfile(place)
    return _is("isfile", place)


def size(place: str) -> int:
    """Bytes. OSError."""
    if not is_url(place):
        return os.path.getsize(place)
    store, path = store_of(place)
    with answered():
        return int(store.info(path)["size"])


def opened(place: str) -> BinaryIO:
    """A file to read from any offset; of a URL, what is asked for is fetched. OSError."""
    if not is_url(place):
        return open(place, "rb")
    store, path = store_of(place)
    with answered():
        return cast(BinaryIO, store.open(path, "rb"))


def fetched(url: str, offset: int = 0, length: int | None = None) -> bytes:
    """A piece of a file behind a URL, in one request. OSError."""
    store, path = store_of(url)
    with answered():
        return cast(bytes, store.cat_file(path, start=offset or None, end=None if length is None else offset + length))


def entries(url: str) -> list[tuple[str, bool]]:
    """Names right below a URL, sorted as bytes, and whether each is a folder."""
    store, path = store_of(url)
    with answered():
        there = [(each["name"].rstrip("/"), each["type"] == "directory") for each in store.ls(path, detail=True)]
    below = [(name.rpartition("/")[2], is_dir) for name, is_dir in there if name != path.rstrip("/")]  # itself, on some
    return sorted(below, key=lambda entry: os.fsencode(entry[0]))


def matching(pattern: str) -> list[str]:
    """Files that match a glob, sorted. UserError where a store does not answer."""
    if not is_url(pattern):
        return sorted(glob.glob(pattern))
    store, path = store_of(pattern)
    try:
        with answered():
            there = sorted(store.glob(path))
    except OSError as error:
        raise _unreachable(pattern, error) from error
    kind, _, rest = pattern.partition("://")
    top = "/" if rest.startswith("/") else ""  # as it was typed: ids are what follows the root
    return [f"{kind}://{top}{found.lstrip('/')}" for found in there]
