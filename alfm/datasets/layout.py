"""How a folder is laid out: which subfolders are splits, and which files lie where."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from alfm.commands import typed
from alfm.datasets import places
from alfm.datasets.ids import escape
from alfm.datasets.splits import canonical_split, looks_like_split
from alfm.errors import UserError

_ORDER = ("train", "test", "val", "valid", "validation", "dev")


def walk(top: str, exclude: frozenset[str], met: set[str] | None = None) -> Iterator[str]:
    """Paths of all files below `top` ('/' between parts), sorted; hidden ones and folders in `exclude` passed over.

    A symlink back to a folder above it is not entered. `met` collects the names of `exclude` that were there.
    """

    if places.is_url(top):
        return _walk_url(top, "", exclude, set() if met is None else met)

    def inside(place: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
        try:
            status = os.stat(place)
            entries = sorted(os.scandir(place), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            raise UserError(f"{escape(place)}: {error.strerror}") from error
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        for entry in entries:
            if entry.name in exclude and met is not None:
                met.add(entry.name)
            if entry.name.startswith(".") or entry.name in exclude:
                continue
            try:
                is_folder = entry.is_dir()
                is_file = entry.is_file() or (entry.is_symlink() and not is_folder)  # a dangling link is a bad item
            except OSError:  # a symlink to itself
                continue
            if is_folder:
                yield from inside(entry.path, f"{prefix}{entry.name}/", (*above, here))
            elif is_file:
                yield prefix + entry.name

    return inside(top, "", ())


def _walk_url(top: str, prefix: str, exclude: frozenset[str], met: set[str]) -> Iterator[str]:
    for name, is_folder in _entries(top):
        if name in exclude:
            met.add(name)
        elif not name.startswith(".") and is_folder:
            yield from _walk_url(f"{top.rstrip('/')}/{name}", f"{prefix}{name}/", exclude, met)
        elif not name.startswith("."):
            yield prefix + name


def _entries(place: str) -> list[tuple[str, bool]]:
    try:
        return places.entries(place)
    except OSError as error:
        raise UserError(f"{places.shown(place)}: {error.strerror or error}") from error


def has_ending(path: str, endings: Iterable[str]) -> bool:
    """Whether a file is of the kind that `endings` (lower case, without dot) name."""
    return path.rpartition("/")[2].rpartition(".")[2].lower() in endings


def subfolders(place: str, exclude: frozenset[str]) -> list[str]:
    """Names of the folders right below, sorted, without hidden and excluded ones."""
    if places.is_url(place):
        names = [name for name, is_folder in _entries(place) if is_folder]
    else:
        names = sorted(name for name in os.listdir(place) if os.path.isdir(os.path.join(place, name)))
    return [name for name in names if not name.startswith(".") and name not in exclude]


def split_folders(root: str, endings: Sequence[str], exclude: frozenset[str]) -> dict[str, str]:
    """{split: folder} for the folders that are called like splits, or everything as train.

    `UserError` when other folders with items lie beside them, or when two of them would be one split.
    """

    def holds_items(entry: str) -> bool:
        return any(has_ending(path, endings) for path in walk(os.path.join(root, entry), exclude))

    found: dict[str, str] = {}
    others = []
    for entry in subfolders(root, exclude):
        split = canonical_split(entry)
        if split is None or (split != entry and not holds_items(entry)):
            others.append(entry)
        elif split in found:
            choice = typed("dataset.splits", {split: found[split], f"{split}2": entry})
            raise UserError(f"{root}: are {found[split]}/ and {entry}/ one split? Name each, such as {choice}")
        else:
            found[split] = entry
    for entry in others if found else ():
        if holds_items(entry):
            split, folder = next(iter(found.items()))
            raise UserError(
                f"{root} holds {folder}/ beside {escape(entry)}/: are these classes or splits? Say "
                f"{typed('dataset.splits', {'train': '.'})} for classes, or name the splits, such as "
                f"{typed('dataset.splits', {split: folder})}"
            )
    return {split: found[split] for split in _ORDER if split in found} or {"train": ""}


def ask_about_splits(root: str, paths: Iterable[str]) -> None:
    """`UserError` when the class folders below `root` look as if they, or what is in them, were splits.

    `paths`: the items, relative to `root`.
    """
    inner: dict[str, set[str]] = {}
    for path in paths:
        first, *rest = path.split("/")[:-1] or [""]
        if first:
            inner.setdefault(first, set()).add(rest[0] if rest else "")
    if not inner:
        return
    classes = typed("dataset.splits", {"train": "."})
    folders = ", ".join(f"{escape(name)}/" for name in list(inner)[:4])
    if all(map(looks_like_split, inner)):
        choice: dict[str, str] = {}
        for name in inner:  # two of one word keep their own names, so that none is lost
            split = canonical_split(_word(name)) or name
            choice[name if split in choice else split] = name
        raise UserError(
            f"{root} holds {folders}: if these are splits, say so with {typed('dataset.splits', choice)}; if they are "
            f"classes, with {classes}"
        )
    below = {name for names in inner.values() for name in names}
    splits = {canonical_split(name) for name in below}
    if None in splits or not splits:
        return
    names = ", ".join(f"{name}/" for name in sorted(below)[:4])
    if len(inner) == 1:
        place = typed("dataset.root", os.path.join(root, next(iter(inner))))
        raise UserError(f"{root} holds only {folders}, and that holds {names}: if those are splits, say {place}")
    if len(splits) > 1:
        raise UserError(
            f"{root}: the class folders {folders} hold {names} each: if those are splits, list the files of one in a "
            f"text file and name it ({typed('dataset.split_lists', {'test': 'FILE'})}), else say {classes}"
        )


def _word(name: str) -> str:
    """The usual name that a folder's name is made of, or the name."""
    for word in ("train", "test", "val"):
        if word in name.casefold():
            return word
    return name
