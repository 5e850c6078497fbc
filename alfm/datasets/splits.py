"""The usual names of splits, however they are written: Training/, TEST, Valid, dev."""

from __future__ import annotations

import re
from collections.abc import Iterable

from alfm.errors import UserError

_USUAL = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst"),
    "val": ("val", "valid", "validation", "dev", "development"),
}
_KEPT = ("valid", "validation", "dev")
"""Written like this they keep their names, by which caches and commands already know them."""
_WORD = re.compile(r"(train|trn|test|tst|val|valid|validation|dev|eval|holdout)(ing)?(set|data|split)?")


def canonical_split(name: str) -> str | None:
    """`train`, `test` or `val` for a usual name of one in any case (`valid`, `validation` and `dev` in lower case keep
    theirs), None for any other name."""
    if name in _KEPT:
        return name
    plain = name.strip().casefold()
    return next((split for split, names in _USUAL.items() if plain in names), None)


def split_names(found: Iterable[str]) -> dict[str, str]:
    """Every name of `found` (such as a split column's values) -> the name of its split: canonical, else its own.

    Names that differ in case only are one split. `UserError` when two different words would be one (train, Training).
    """
    names = {name: canonical_split(name) or name for name in found}
    words: dict[str, str] = {}
    for name, split in names.items():
        other = words.setdefault(split, name)
        if other.strip().casefold() != name.strip().casefold():
            raise UserError(f"the names {other!r} and {name!r} would both be the split {split!r}: rename one of them")
    return names


def looks_like_split(name: str) -> bool:
    """Whether a name is a usual one or made of one: train_set, images-test, TestData, train2."""
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).casefold())
    return canonical_split(name) is not None or any(_WORD.fullmatch(word) for word in words)
