"""A data set's config as it is kept in a cache, and the data set built from it again.

What comes out of a cache is untrusted: only the functions of this package are called, by their names; nothing else is
imported, nothing is downloaded.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from alfm.datasets.base import Dataset
from alfm.datasets.files import decode_options
from alfm.errors import UserError

BUILDERS = (
    "alfm.datasets.arrays.digits",
    "alfm.datasets.folder.folder",
    "alfm.datasets.hugging_face.hugging_face",
    "alfm.datasets.published.cub200",
    "alfm.datasets.published.tiny_imagenet",
    "alfm.datasets.table.table",
    "alfm.datasets.tar_shards.tar_shards",
    "alfm.datasets.torchvision_data.torchvision_dataset",
)
"""What a config from a cache may name."""
_FOLDER, _TABLE, _CUB, _TINY = BUILDERS[1], BUILDERS[5], BUILDERS[3], BUILDERS[4]
_HUB, _TAR, _TORCHVISION = BUILDERS[2], BUILDERS[6], BUILDERS[7]

_UNPICKLE = {(_TORCHVISION, "LSUN"), (_TORCHVISION, "LSUNClass"), (_HUB, "pandas")}
"""Readers of other libraries that unpickle a file which may have come beside the cache."""

_DECODE = ("max_pixels", "decode_size", "intensity_range", "intensity_clip", "max_seconds", "encoding")
_PATHS = {"root", "files", "data_files", "cache_dir"}
"""Options that hold paths, whether they are there or not; other texts are paths where such a file is there."""
_MAYBE_PATHS = {"path", "checkpoint", "folder", "file", "directory", "dir", "table"}
_SECRET_WORDS = {
    "token", "tokens", "password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets", "credential",
    "credentials", "auth", "authorization", "apikey", "accesskey", "secretkey", "privatekey", "signature", "sig", "sas",
    "cookie", "cookies", "bearer",
}  # fmt: skip
_KEY_BEFORE = {"api", "access", "private", "account", "secret", "aws", "azure"}
_IN_URL = re.compile(r"(?<=://)[^/\s@]*@")
_IN_QUERY = re.compile(r"([?&])([^=&#\s]+)=([^&#\s]*)")
_LOOKS_SECRET = re.compile(r"\b(hf_|ghp_|gho_|github_pat_|glpat-|xox[abp]-|AKIA|sk-)[A-Za-z0-9_-]{12,}")


# ---- into the cache -------------------------------------------------------------------------------------------------


def stored_config(config: Mapping[str, Any], folder: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """A composed config, as plain data -> what may be kept of it, and the names of the options that were left out.

    Relative paths become absolute ones, from `folder` (default: the working folder). Left out is what is or looks like
    a secret: options called token, password, ..., names and passwords inside addresses, values of environment variables
    that are called so.
    """
    left: list[str] = []
    here = os.path.abspath(folder or os.getcwd())
    hidden = {value for name, value in os.environ.items() if _is_secret(name) and len(value) >= 6}
    if config.get("_target_") == _TAR and not config.get("root"):
        config = {**config, "root": here}  # ids of shards are paths from there

    def kept(node: Any, name: str, key: str) -> Any:
        if isinstance(node, Mapping):
            inner = {}
            for each, value in node.items():
                full = f"{name}.{each}" if name else str(each)
                if value is not None and _is_secret(str(each)):
                    left.append(full)
                else:
                    inner[str(each)] = kept(value, full, key if key in _PATHS else str(each))
            return inner
        if isinstance(node, list | tuple):
            return [kept(value, f"{name}[{place}]", key) for place, value in enumerate(node)]
        if not isinstance(node, str):
            return node
        if node in hidden or _LOOKS_SECRET.search(node):
            left.append(name)
            return None
        clean = _IN_QUERY.sub(lambda m: f"{m[1]}{m[2]}={'' if _is_secret(m[2]) else m[3]}", _IN_URL.sub("", node))
        if clean != node:
            left.append(f"{name} (in its address)")
            return clean
        return _absolute(node, key, here)

    return kept(config, "", ""), left


def _is_secret(name: str) -> bool:
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]
    pairs = zip(words, words[1:], strict=False)
    return bool(_SECRET_WORDS & set(words)) or any(one in _KEY_BEFORE and other == "key" for one, other in pairs)


def _absolute(text: str, key: str, here: str) -> str:
    if "://" in text or not text:
        return text
    place = os.path.normpath(os.path.join(here, os.path.expanduser(text)))
    return place if key in _PATHS or (key in _MAYBE_PATHS and os.path.lexists(place)) else text


# ---- out of it ------------------------------------------------------------------------------------------------------


class NotReopened(UserError):
    """A data set that a stored config cannot bring back: the message says why, and begins with what it is about."""


def files_below(config: Mapping[str, Any], root: str | None = None) -> str | None:
    """The folder that ids of this data set are paths below (escaped: see `alfm.datasets.ids`), None where they are
    none. `root`: where its folder is now. Nothing is read."""
    target, stored = config.get("_target_"), config.get("root")
    if target in (_FOLDER, _CUB, _TINY) and isinstance(stored, str):
        place = os.path.expanduser(root or stored)
        return os.path.join(place, "images") if target == _CUB else place
    if target == _TABLE and config.get("modality", "image") != "text" and config.get("id_column") is None:
        if root or stored:
            return os.path.expanduser(str(root or stored))
        given = config.get("path") or next(iter((config.get("files") or {}).values()), None)
        return os.path.dirname(os.path.abspath(os.path.expanduser(given))) if isinstance(given, str) else None
    return None


def may_lie_outside(config: Mapping[str, Any]) -> bool:
    """Whether its table may name files anywhere."""
    return config.get("_target_") == _TABLE and config.get("allow_absolute") is True


def decoding(config: Mapping[str, Any], modality: Any, intensity_range: Any = None) -> dict[str, Any]:
    """Options of `read_image`, `read_audio` or `decode_text`; `intensity_range` as it was settled for the data set."""
    given = {key: config.get(key) for key in _DECODE}
    return decode_options(modality, given | ({"intensity_range": intensity_range} if intensity_range else {}))


def reopened(config: Mapping[str, Any], root: str | None = None, intensity_range: Any = None) -> Dataset:
    """The data set that a stored config describes; `root`: where its folder is now. `UserError` with the reason when it
    is not one of this package's, is not on this disk, or does not open."""
    target = config.get("_target_")
    if target not in BUILDERS:
        raise NotReopened(
            f"its items are read by {target}, which is no part of alfm and is not called because a file names it"
        )
    if _targets_inside({key: value for key, value in config.items() if key != "_target_"}):
        raise NotReopened("its config names further objects to build, which is not done because a file says so")
    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    reader = arguments.get("class_name") if target == _TORCHVISION else arguments.get("path")
    if isinstance(reader, str) and (target, reader) in _UNPICKLE:
        raise NotReopened(f"{reader} runs what pickled files say, which is not done because a file names it")
    if target == _HUB and arguments.get("streaming"):
        raise NotReopened("its items were streamed, and are not on this disk")
    if any("://" in text for key in (*_PATHS, *_MAYBE_PATHS, "splits") for text in _texts(arguments.get(key))):
        raise NotReopened("its items come from the net, which is not asked because a file says so")
    if root is not None:
        arguments = _moved(str(target), arguments, os.path.expanduser(root))
    if target == _TORCHVISION:
        arguments["download"] = False
    if intensity_range and target not in (BUILDERS[0],) and arguments.get("modality", "image") == "image":
        arguments["intensity_range"] = intensity_range
    module, _, name = str(target).rpartition(".")
    try:
        with _offline() if target == _HUB else _nothing():
            return getattr(importlib.import_module(module), name)(**arguments)
    except TypeError as error:
        raise NotReopened(f"its config does not fit this version of alfm ({error})") from error


def _moved(target: str, arguments: dict[str, Any], root: str) -> dict[str, Any]:
    """The same data set below another folder."""

    def there(path: Any) -> Any:
        if isinstance(path, Mapping):
            return {key: there(value) for key, value in path.items()}
        if isinstance(path, list):
            return [there(value) for value in path]
        return os.path.join(root, os.path.basename(path)) if isinstance(path, str) else path

    if target == _TABLE:
        tables = {key: there(arguments[key]) for key in ("path", "files") if arguments.get(key)}
        found = all(map(os.path.exists, _texts(tables)))
        return arguments | {"root": root} | (tables if found else {})
    if target == _HUB:
        if arguments.get("data_files"):
            return arguments | {"data_files": there(arguments["data_files"])}
        return arguments | {"path": root}
    if target == BUILDERS[0]:
        return arguments
    return arguments | {"root": root}


def _targets_inside(node: Any) -> bool:
    if isinstance(node, Mapping):
        return "_target_" in node or any(map(_targets_inside, node.values()))
    return isinstance(node, list | tuple) and any(map(_targets_inside, node))


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _texts(value)
    elif isinstance(node, str):
        yield node


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _offline() -> Iterator[None]:
    """The Hugging Face libraries ask nobody while this is open."""
    changed: list[tuple[Any, str, Any]] = []
    for module, name in (("huggingface_hub.constants", "HF_HUB_OFFLINE"), ("datasets.config", "HF_HUB_OFFLINE"),
                         ("datasets.config", "HF_DATASETS_OFFLINE")):  # fmt: skip
        try:
            holder = importlib.import_module(module)
        except ImportError:
            continue
        if hasattr(holder, name):
            changed.append((holder, name, getattr(holder, name)))
            setattr(holder, name, True)
    try:
        yield
    finally:
        for holder, name, before in changed:
            setattr(holder, name, before)
