"""A batch as it is given to people, whatever the form; and files of ours, which alone are written over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from alfm.errors import UserError
from alfm.labelling.items import Items
from alfm.labelling.status import Item

_LOOKED_AT = 4096


@dataclass(frozen=True)
class Asked:
    """Items in asking order, those of the audit among them; classes in the order of their keys.

    round, label_set: which question it was, and the digest of the labels that it was made from.
    """

    items: Sequence[Item]
    round: int
    label_set: str
    classes: Sequence[str]


def path_of(items: Items, row: int) -> str | None:
    """Where an item's file is, if it is one and that is known."""
    try:
        return items.path(row)
    except UserError:
        return None


def only_ours(file: Path, is_ours: Callable[[bytes], bool]) -> None:
    """`UserError` where a file is there that is not ours, as its beginning shows."""
    try:
        with file.open("rb") as handle:
            start = handle.read(_LOOKED_AT)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{file} cannot be written over: {error.strerror}.") from error
    if start and not is_ours(start):
        raise UserError(f"{file} is there and was not written by this command: move it, or choose another out=FOLDER.")


def cannot_write(file: Path, error: OSError) -> UserError:
    """The sentence for a disk that is full, a folder that may not be written, ..."""
    return UserError(f"{file} cannot be written: {error.strerror or error}.")
