"""Labels that people have, as files of many kinds, read as acts of a pool's items: one module per kind."""

from __future__ import annotations

import lzma
import os
import zlib
from collections.abc import Collection
from pathlib import Path

from alfm.datasets.csv_rows import open_binary
from alfm.errors import UserError
from alfm.labelling.label_files import class_folders, csv_table, jsonl
from alfm.labelling.label_files.matching import Matcher, Pool
from alfm.labelling.label_files.told import LabelFile, LeftOut, Told

__all__ = ["LabelFile", "LeftOut", "Told", "check_there", "read"]

_KINDS = "a table of two columns, a JSON file, or a folder of class folders"


def read(path: str | Path, items: Pool, classes: Collection[str] = ()) -> LabelFile:
    """The labels of a file or a folder of class folders, by item of the pool; what could not be used is listed.

    `classes`: names that are known, so that others are pointed out. `UserError` for a file that is not there, is none
    of the kinds, or can be read in two ways.
    """
    source = check_there(path)
    matcher = Matcher(items)
    if os.path.isdir(source):
        return class_folders.read(source, matcher, classes)
    try:
        if os.path.getsize(source) == 0:
            raise UserError(f"{source} is empty")
        with open_binary(source) as file:
            start = file.read(4096)
        kind = jsonl if _is_json(source, start) else csv_table
        return kind.read(source, matcher, classes)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{source} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def check_there(path: str | Path) -> str:
    """The path of a file or folder; `UserError` where there is neither."""
    source = os.path.expanduser(os.fspath(path))
    if not os.path.exists(source):
        raise UserError(f"there is no {source}: labels= names {_KINDS}")
    if not os.path.isfile(source) and not os.path.isdir(source):
        raise UserError(f"{source} is no file: labels= names {_KINDS}")
    return source


def _is_json(source: str, start: bytes) -> bool:
    words = os.path.basename(source).lower().split(".")
    if {"json", "jsonl", "ndjson"} & set(words[1:]):
        return True
    begins = start.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")[:1]
    return begins in (b"{", b"[") and not {"csv", "tsv", "tab"} & set(words[1:])
