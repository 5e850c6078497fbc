"""Labels as folders: a folder per class, into which a person has moved, copied or linked files of the pool."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from urllib.parse import quote, unquote

from alfm.datasets.ids import escape
from alfm.errors import UserError
from alfm.labelling.label_files.matching import Matcher
from alfm.labelling.label_files.told import Gathering, LabelFile

_SYSTEM = {"thumbs.db", "desktop.ini", "icon\r"}
_PLAIN = re.compile(r"[^\W_][\w .,+()&-]*(?<![ .])")


def folder_name(label: str) -> str:
    """A class as the name of a folder that any file system takes; itself where it is plain. Inverse of `class_name`."""
    if _PLAIN.fullmatch(label):
        return label
    return "%" + quote(label, safe=" ").replace(".", "%2E")


def class_name(folder: str) -> str:
    """The class that a folder stands for."""
    return unquote(folder[1:]) if folder.startswith("%") else folder


def read(source: str, matcher: Matcher, classes: Collection[str]) -> LabelFile:
    """The labels that the folders of a folder give. Files are found by where a link leads, by their name where one item
    of the pool has it, else by what they hold; those that fit several items or none are listed, and so are items that
    lie in folders of several classes. `UserError` for a folder without folders."""
    said = Gathering(source, matcher, classes, last_word=False)
    try:
        entries = sorted(os.scandir(source), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{source} cannot be read: {error.strerror}") from error
    folders = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    if not folders:
        raise UserError(f"{source} has no folders: a folder per class is needed, with the items of that class in it")
    loose = sum(entry.is_file() and not _hidden(entry.name) for entry in entries)
    said.file.counts["files outside the folders of classes"] += loose
    for folder in folders:
        label = class_name(folder.name)
        empty = True
        for file in _files(folder.path):
            empty = False
            where = escape(os.path.relpath(file, source))
            if not os.path.isfile(file):
                said.leave_out(where, os.path.basename(file), "it is no file, or a link that leads nowhere")
                continue
            item, why = matcher.by_file(file)
            if item is None:
                said.leave_out(where, os.path.basename(file), why)
            else:
                said.add_item(where, item, "label", label)
        if empty:
            said.count("empty folders")
    return said.done()


def _files(folder: str) -> Iterator[str]:
    """What lies in a folder and in folders in it, in order; links to folders are not followed."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(place, name) for name in sorted(files) if not _hidden(name))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM
