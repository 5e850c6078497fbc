"""Which item of the pool a line of somebody's file means: by its id, its file's name, its text or its content.

Never by the order of lines, nor by numbers that other programs give. What means several items, or none, is no item.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from alfm.datasets.ids import escape, unescape
from alfm.datasets.marks import mark_of_bytes, mark_of_file
from alfm.datasets.names import same_name
from alfm.errors import UserError
from alfm.labelling.formulas import unguarded

K = TypeVar("K")
ABSENT = "no such item in the pool"
SEVERAL = "it fits several items of the pool"
_CLIMBS = "its path climbs out of its folder"
_DISAGREE = "its id is one item's, and its text or file another's"


class Pool(Protocol):
    """What is asked of the items of a pool: see `alfm.labelling.items.Items`."""

    ids: list[str]

    def path(self, row: int) -> str | None:
        """Where the file is, if it is a file."""
        ...

    def text(self, row: int) -> str | None:
        """What it says, if it is a text."""
        ...

    def mark(self, row: int) -> str:
        """Of its content, see `alfm.datasets.marks`."""
        ...

    def file_bytes(self, row: int) -> tuple[bytes, str]:
        """Its encoded bytes and their media type; `UserError` where they are gone."""
        ...


@dataclass(frozen=True, slots=True)
class Keys:
    """What a line says about which item it means; None where it says nothing.

    own: an id that we wrote ourselves, which settles it; id: one that may be somebody else's number; name: a path, a
    file name or an address; text: the text itself.
    """

    own: str | None = None
    id: str | None = None
    name: str | None = None
    text: str | None = None

    @property
    def said(self) -> str:
        """For messages."""
        return next((key for key in (self.own, self.id, self.name, self.text) if key), "")


class Matcher:
    """Finds items of a pool by what lines say; indices are made when first needed."""

    def __init__(self, items: Pool) -> None:
        self.items = items
        self.rows = {item: row for row, item in enumerate(items.ids)}

    def find(self, keys: Keys) -> tuple[str | None, str]:
        """(the item, "") or (None, why there is none)."""
        if keys.own:
            item = self.by_id(keys.own)
            return item, "" if item else ABSENT
        item = self.by_id(keys.id) if keys.id else None
        if item is not None:
            return (item, "") if self._agrees(item, keys) else (None, _DISAGREE)
        why = ABSENT
        if keys.name:
            item, why = self.by_name(keys.name)
        if item is None and keys.text:
            item, why = self.by_text(keys.text)
        return item, "" if item is not None else why

    def by_id(self, written: str) -> str | None:
        """An id as we write it, as a spreadsheet was given it, as a file system spells it, or with spaces around."""
        if written in self.rows:
            return written
        for spelt in (unguarded, str.strip, escape):
            if (item := spelt(written)) in self.rows:
                return item
        return None if written.isascii() else self._composed_ids.get(same_name(written))

    def by_name(self, name: str) -> tuple[str | None, str]:
        """A file name, a path (its end, or one that ends in an item's) or an address of one -> the item, or why not."""
        if name[:5].lower() == "data:":
            return None, ABSENT
        path = same_name(_path_in(unguarded(name))).replace("\\", "/")
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts:
            return None, _CLIMBS
        if name in self.rows:
            return name, ""
        if not parts or parts[-1] not in self._names:
            return None, ABSENT
        fits = [
            row
            for row in self._names[parts[-1]]
            for own in [self._parts(row)]
            if own[-len(parts) :] == parts or parts[-len(own) :] == own
        ]
        exact = [row for row in fits if self._parts(row) == parts]
        fits = exact or fits
        return (self.items.ids[fits[0]], "") if len(fits) == 1 else (None, SEVERAL if fits else ABSENT)

    def by_text(self, text: str) -> tuple[str | None, str]:
        """The whole text -> the item, or why not."""
        rows = self._texts.get(_plain(text)) or self._texts.get(_plain(unguarded(text))) or []
        return (self.items.ids[rows[0]], "") if len(rows) == 1 else (None, SEVERAL if rows else ABSENT)

    def by_file(self, file: str) -> tuple[str | None, str]:
        """A file that lies somewhere else now: by where a link leads, its name where unique, else its content."""
        if os.path.islink(file) and len(rows := self._places.get(os.path.realpath(file), [])) == 1:
            return self.items.ids[rows[0]], ""
        rows = self._names.get(same_name(escape(os.path.basename(file))), [])
        if len(rows) == 1:
            return self.items.ids[rows[0]], ""
        try:
            with open(file, "rb") as handle:
                mark = mark_of_file(handle)[1:]
        except OSError as error:
            return None, f"it cannot be read ({error.strerror})"
        rows = [row for row in rows if self._mark(row) == mark] if rows else self._marks.get(mark, [])
        return (self.items.ids[rows[0]], "") if len(rows) == 1 else (None, SEVERAL if rows else ABSENT)

    def _agrees(self, item: str, keys: Keys) -> bool:
        """Whether the file is not another's; where the id is a number such as other programs give, whether text and
        file are that item's."""
        row = self.rows[item]
        if keys.id in (keys.name, keys.text):
            return True
        if not item.isdecimal():
            return not keys.name or self.by_name(keys.name)[0] in (item, None)
        own = self._text(row) if keys.text else None
        if keys.text and own and not _plain(own).startswith(_plain(unguarded(keys.text))):
            return False
        path = self._path(row) if keys.name else None
        return not (keys.name and path) or self.by_name(keys.name)[0] in (item, None)

    def _parts(self, row: int) -> list[str]:
        """A file's path in its pool, cut at the separators, as names are compared."""
        place = self._path(row)
        place = unescape(self.items.ids[row]) if place is None else place
        return [same_name(escape(part)) for part in place.replace("\\", "/").split("/") if part not in ("", ".")]

    @cached_property
    def _composed_ids(self) -> dict[str, str]:
        """Composed form -> id; two ids of one form are none."""
        forms = _index(range(len(self.items.ids)), lambda row: same_name(self.items.ids[row]))
        return {form: self.items.ids[rows[0]] for form, rows in forms.items() if len(rows) == 1}

    @cached_property
    def _names(self) -> dict[str, list[int]]:
        """The last part of a path -> rows."""
        return _index(range(len(self.items.ids)), lambda row: (self._parts(row) or [""])[-1])

    @cached_property
    def _texts(self) -> dict[str, list[int]]:
        return _index(range(len(self.items.ids)), lambda row: _plain(self._text(row)))

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        return _index(range(len(self.items.ids)), lambda row: os.path.realpath(self._path(row) or ""))

    @cached_property
    def _marks(self) -> dict[str, list[int]]:
        """What a file holds -> rows."""
        marks = _index(range(len(self.items.ids)), self._mark)
        marks.pop("", None)
        return marks

    def _mark(self, row: int) -> str:
        """Of an item as it was embedded, without its letter; read where the cache has none, "" where it is gone."""
        if (stored := self.items.mark(row))[:1] in ("b", "t"):
            return stored[1:]
        try:
            return mark_of_bytes(self.items.file_bytes(row)[0])[1:]
        except UserError:
            return ""

    def _path(self, row: int) -> str | None:
        try:
            return self.items.path(row)
        except UserError:  # nobody knows where the items are
            return None

    def _text(self, row: int) -> str:
        try:
            return self.items.text(row) or ""
        except UserError:
            return ""


def _index(rows: range, key: Callable[[int], K]) -> dict[K, list[int]]:
    found: dict[K, list[int]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def _plain(text: str) -> str:
    """A text in the form in which two are compared: its Unicode form, line ends and outer spaces do not count."""
    return same_name(text).replace("\r\n", "\n").strip()


def _path_in(name: str) -> str:
    """The path that an address means (also one that Label Studio serves a local file under); a path is itself."""
    if name.startswith("/data/local-files/?"):
        return parse_qs(urlsplit(name).query).get("d", [""])[0]
    if "://" in name and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
        return unquote(urlsplit(name).path)
    if not name.startswith("/data/upload/"):
        return name
    uploaded = re.fullmatch(r"/data/upload/(?:\d+/)?[0-9a-f]{8}-(.+)", name)  # Label Studio's own name for a copy
    return unquote(uploaded.group(1)) if uploaded else name
