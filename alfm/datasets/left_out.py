"""What lies in a folder and is no item: counted, named and said when the extraction ends."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from alfm.datasets import places
from alfm.datasets.ids import escape
from alfm.datasets.layout import has_ending, subfolders

_SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
_SYSTEM_FOLDERS = {"__MACOSX", "__pycache__"}


@dataclass
class LeftOut:
    """Collected while a folder is read; see `sentences`."""

    modality: str
    pattern: str | None = None
    foreign: list[str] = field(default_factory=list)
    """Paths of files whose ending is none of the modality's."""
    empty: list[str] = field(default_factory=list)
    """Folders where a class would be, without any item."""
    loose: list[str] = field(default_factory=list)
    """Items beside the folders of splits."""
    unlisted: list[str] = field(default_factory=list)
    """Sentences about lists of files."""
    met: set[str] = field(default_factory=set)
    """Excluded folder names that were there."""

    def look_for_empty_classes(
        self, place: str, prefix: str, exclude: frozenset[str], classes: Iterable[str | None]
    ) -> None:
        """Folders right below `place` that are none of `classes` hold no item."""
        start = "" if prefix in ("", ".") else f"{prefix.rstrip('/')}/"
        empty = sorted(set(subfolders(place, exclude)) - set(classes) - _SYSTEM_FOLDERS)
        self.empty += [f"{start}{name}/" for name in empty]

    def look_for_loose_files(self, root: str, endings: Sequence[str]) -> None:
        """Items right below `root`, where only the folders of splits are read."""
        names = [name for name, _ in places.entries(root)] if places.is_url(root) else sorted(os.listdir(root))
        self.loose += [name for name in names if _is_item(os.path.join(root, name), endings)]

    def endings(self) -> str:
        """See `endings_of`."""
        return endings_of(self._foreign())

    def sentences(self, exclude: Iterable[str]) -> list[str]:
        """One sentence for each kind of thing that was there and is no item, or was named and was not there."""
        said = []
        if foreign := self._foreign():
            said.append(f"{_files(len(foreign))} whose ending is not known for {self.modality} data: {self.endings()}")
        if self.empty:
            of = f" that matches {self.pattern}" if self.pattern else ""
            said.append(f"folders without any {self.modality} file{of}, which are no classes: {_listed(self.empty)}")
        if self.loose:
            said.append(f"{_files(len(self.loose))} beside the folders of the splits: {_listed(self.loose)}")
        if missed := [name for name in exclude if name not in self.met]:
            said.append(f"nothing for dataset.exclude={_listed(missed)}: there is no such folder")
        return said + self.unlisted

    def _foreign(self) -> list[str]:
        return [path for path in self.foreign if path.rpartition("/")[2].lower() not in _SYSTEM]


def endings_of(paths: Sequence[str]) -> str:
    """`120 .heic (such as fish/1.heic), 3 .txt (...)`, the most frequent first."""
    first: dict[str, str] = {}
    counts: dict[str, int] = {}
    for path in paths:
        name = path.rpartition("/")[2]
        ending = f".{name.rpartition('.')[2].lower()}" if "." in name else "without an ending"
        counts[ending] = counts.get(ending, 0) + 1
        first.setdefault(ending, path)
    shown = sorted(counts, key=lambda ending: -counts[ending])
    listed = [f"{counts[ending]:,} {ending} (such as {escape(first[ending])})" for ending in shown[:5]]
    return ", ".join(listed) + (f", and {len(shown) - 5} more endings" if len(shown) > 5 else "")


def _is_item(path: str, endings: Sequence[str]) -> bool:
    name = os.path.basename(path)
    return not name.startswith(".") and has_ending(name, endings) and places.is_file(path)


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(map(escape, names[:most])) + (f", and {len(names) - most:,} more" if len(names) > most else "")
