"""Text files that list the files of a split, one path per line."""

from __future__ import annotations

import os
from io import TextIOWrapper
from typing import TypeVar

from alfm.datasets.names import same_name
from alfm.datasets.places import opened
from alfm.errors import UserError

T = TypeVar("T")


def take_listed(
    root: str, list_file: str, split: str, paths: dict[str, list[str]], names: dict[str, list[str | None]]
) -> list[str]:
    """Move the files that `list_file` (relative to `root`) names from `train` to `split`, in place; a list of train
    itself drops what it does not name, so it comes last.

    Names are compared after Unicode normalisation (NFC); `./` in front and `\\` between parts are understood. Returns
    sentences about listed files that are no items, and about items that train's own list drops. `UserError`: no such
    list, a name that matches no file or that another list has taken, no train split.
    """
    if "train" not in paths:
        raise UserError(f"dataset.split_lists takes files out of train; there are the splits {', '.join(paths)}")
    if split != "train" and split in paths:
        raise UserError(f"dataset.split_lists: there is a split {split!r} already, give the list another name")
    column = paths["train"]
    exact = {path: row for row, path in enumerate(column)}
    composed = {same_name(path): row for row, path in enumerate(column)}
    moved = [False] * len(column)
    gone, unused = [], []
    elsewhere = {path: name for name, others in paths.items() if name != "train" for path in others}
    for listed in _lines(root, list_file, split):
        row = exact.get(listed, composed.get(same_name(listed)))
        if row is not None:
            moved[row] = True
        elif listed in elsewhere:
            raise UserError(f"{listed} is listed for {split!r} and belongs to {elsewhere[listed]!r} already")
        elif os.path.lexists(os.path.join(root, listed)):
            unused.append(listed)
        else:
            gone.append(listed)
    if not any(moved):
        some = f", such as {gone[0]!r}" if gone else " that is read"
        raise UserError(f"split {split!r}: {list_file} names no file below {root}{some}: write paths relative to it")
    if gone:
        raise UserError(
            f"split {split!r}: {len(gone):,} names of {list_file} match no file below {root}, such as {gone[0]!r}: "
            "write paths relative to dataset.root, or take these lines out"
        )
    _move(paths, split, moved)
    _move(names, split, moved)
    said = []
    if split == "train" and not all(moved):
        said.append(f"{moved.count(False):,} files that are in no list, such as {column[moved.index(False)]}")
    if unused:
        said.append(f"{len(unused):,} files of {list_file}, by ending, pattern or exclude, such as {unused[0]}")
    return said


def _move(table: dict[str, list[T]], split: str, moved: list[bool]) -> None:
    cells = table["train"]
    table["train"] = [cell for cell, move in zip(cells, moved, strict=True) if not move]
    table[split] = [cell for cell, move in zip(cells, moved, strict=True) if move]


def _lines(root: str, list_file: str, split: str) -> list[str]:
    """The names, as paths below `root` are written here, each once."""
    try:
        with TextIOWrapper(opened(os.path.join(root, list_file)), "utf-8-sig", "surrogateescape") as lines:
            listed = dict.fromkeys(line.strip() for line in lines if line.strip())
    except OSError as error:
        raise UserError(f"split {split!r}: {os.path.join(root, list_file)}: {error.strerror}") from error
    return [_plain(root, name) for name in listed]


def _plain(root: str, name: str) -> str:
    name = name.removeprefix("./")
    windows = "\\" in name and not os.path.lexists(os.path.join(root, name))
    return name.replace("\\", "/").removeprefix("./") if windows else name
