"""Items that are files under a root: what image folders, audio folders and tables of paths have in common."""

from __future__ import annotations

import codecs
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import numpy as np
from annotated_types import Ge, Gt, Le

from alfm.datasets.base import ItemError, Modality
from alfm.datasets.ids import unescape
from alfm.datasets.intensity_range import check_range
from alfm.datasets.places import fetched, is_url, size
from alfm.errors import UserError, nearest_names

_IMAGE_OPTIONS = {"max_pixels", "decode_size", "intensity_range", "intensity_clip"}


class Decode(TypedDict, total=False):
    """How an item becomes an image, a recording or a text: options that every source of data takes."""

    max_pixels: Annotated[int, Ge(1)] | None
    decode_size: Annotated[int, Ge(1), Le(10**6)] | None
    intensity_range: Any
    intensity_clip: bool | None
    max_seconds: Annotated[float, Gt(0), Le(10**6)] | None
    encoding: str | None


@dataclass
class Files:
    """Files of one modality below `root`. An id is the escaped path relative to it; labels int64 (N,)."""

    root: str
    ids: list[str]
    labels: np.ndarray
    modality: Modality
    decode: dict[str, Any] = field(default_factory=dict)
    """Options of `read_image`, `read_audio` or `decode_text`."""
    paths: list[str] | None = None
    """Where the files are when ids are not paths: relative to `root` or absolute."""
    _fetched: tuple[str, bytes] = field(default=("", b""), init=False, repr=False, compare=False)
    """The last URL that was read, and what lies there."""

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, index: int) -> str:
        """The file behind an item."""
        relative = self.paths[index] if self.paths is not None else unescape(self.ids[index])
        return os.path.join(self.root, relative)

    def encoded(self, index: int) -> str | bytes:
        """Where the item is decoded from: its path, or what lies behind its URL. OSError."""
        path = self.path(index)
        if not is_url(path):
            return path
        if self._fetched[0] != path:  # the same is asked for twice, for the item and for its mark
            self._fetched = (path, fetched(path))
        return self._fetched[1]

    def load(self, index: int) -> Any:
        """A PIL image in RGB, an `Audio`, or the text of the file. `ItemError` when it cannot be read."""
        item_id = self.ids[index]
        if not is_url(self.path(index)):
            return read_file(self.path(index), item_id, self.modality, self.decode)
        try:
            raw = self.encoded(index)
        except OSError as error:
            raise ItemError(f"{item_id}: {error.strerror or error}") from error
        if not raw:
            raise ItemError(f"{item_id}: the file is empty (0 bytes)")
        return decode_item(raw, item_id, self.modality, self.decode)


def decode_options(modality: Modality, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were set (not None). `UserError` for one that this modality does not have."""
    known = {"image": _IMAGE_OPTIONS, "audio": {"max_seconds"}, "text": {"encoding"}}[modality]
    options = {key: value for key, value in given.items() if value is not None}
    for key in options.keys() - known:
        raise UserError(f"dataset.{key} is no option of {modality} data; {nearest_names(key, sorted(known))}")
    if "encoding" in options:
        find_encoding(options["encoding"], b"")
    if "intensity_range" in options:
        options["intensity_range"] = check_range(options["intensity_range"])
    if not isinstance(clip := options.pop("intensity_clip", False), bool):
        raise UserError(f"dataset.intensity_clip={clip}: give true or false")
    return options | ({"intensity_clip": True} if clip else {})


def file_size(path: str) -> int:
    """Bytes, or -1 for a file that is not there: its item says so when its turn comes."""
    try:
        return size(path)
    except OSError:
        return -1


def read_file(path: str, item_id: str, modality: Modality, decode: dict[str, Any]) -> Any:
    """One file -> one item. `ItemError` when it is missing, unreadable, or not what it should be."""
    try:
        if os.path.getsize(path) == 0:
            raise ItemError(f"{item_id}: the file is empty (0 bytes)")
        with open(path, "rb") as file:
            return decode_item(file, item_id, modality, decode)
    except OSError as error:
        raise ItemError(f"{item_id}: {error.strerror or error}") from error


def decode_item(source: Any, item_id: str, modality: Modality, decode: dict[str, Any]) -> Any:
    """Encoded bytes or an open binary file -> one item."""
    if modality == "image":
        from alfm.datasets.images import read_image

        return read_image(source, item_id, **decode)
    if modality == "audio":
        from alfm.datasets.audio import read_audio

        return read_audio(source, item_id, **decode)
    raw = source if isinstance(source, bytes) else source.read()
    return decode_text(raw, item_id, **decode)


def decode_text(raw: bytes, item_id: str, encoding: str | None = None) -> str:
    """Bytes -> a text. `ItemError` when they are none in this encoding, `UserError` for one that does not exist."""
    known = find_encoding(encoding, raw[:4])
    try:
        return raw.decode(known)
    except UnicodeDecodeError as error:
        shown = "UTF-8" if known == "utf-8-sig" else known
        hint = "" if encoding else "; dataset.encoding=cp1252 reads old Windows files"
        raise ItemError(f"{item_id}: not {shown} text ({error.reason} at byte {error.start}){hint}") from error


def find_encoding(given: str | None, start: bytes) -> str:
    """The one given, else what a byte order mark in the first four bytes says, else UTF-8 (with or without a mark)."""
    if given is None:
        marked = {
            "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
            "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
        }
        return next((name for name, marks in marked.items() if start.startswith(marks)), "utf-8-sig")
    try:
        known = codecs.lookup(given)
        "".encode(given)  # refuses what is no encoding of text, such as base64
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"dataset.encoding={given}: no such encoding; usual ones are utf-8, cp1252, latin-1, utf-16"
        ) from error
    return "utf-8-sig" if known.name == "utf-8" else known.name
