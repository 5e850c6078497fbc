"""Folders as people have them: class folders or flat, with or without train/ and test/."""

from __future__ import annotations

import fnmatch
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Unpack

import numpy as np

from alfm.datasets.assemble import fingerprint, stratified_share
from alfm.datasets.base import Dataset, Modality
from alfm.datasets.files import Decode, Files, decode_options, file_size
from alfm.datasets.ids import escape, file_stem
from alfm.datasets.intensity import settle
from alfm.datasets.layout import ask_about_splits, has_ending, split_folders, walk
from alfm.datasets.left_out import LeftOut
from alfm.datasets.names import one_spelling
from alfm.datasets.places import is_folder, shown
from alfm.datasets.split_lists import take_listed
from alfm.errors import UserError
from alfm.options import Fraction, Seed, checked
from alfm.streams import stream

ENDINGS: dict[str, tuple[str, ...]] = {
    "image": ("jpg", "jpeg", "png", "bmp", "gif", "tif", "tiff", "webp", "jpe", "jfif", "ppm", "pgm", "pbm", "avif"),
    "audio": ("wav", "flac", "ogg", "mp3", "opus", "aif", "aiff", "aifc", "oga", "au", "snd", "w64", "caf"),
    "text": ("txt",),
}


@checked
def folder(
    root: str,
    modality: Modality = "image",
    name: str | None = None,
    test_fraction: Fraction | None = None,
    seed: Seed = 0,
    splits: Mapping[str, str] | None = None,
    split_lists: Mapping[str, str] | None = None,
    pattern: str | None = None,
    exclude: Sequence[str] = (),
    labelled: bool = True,
    balance: bool = False,
    licence: str | None = None,
    **decode: Unpack[Decode],
) -> Dataset:
    """Files of one modality below `root`, found by their endings; an item's class is the folder right below its split.

    Splits: `splits` names them and their folders ({train: train, test: val}); else subfolders with usual names (train,
    Testing, val, Valid, ...: see `canonical_split`); else all is `train`. Files that lie in no class folder are
    unlabelled (-1), and so is everything with `labelled=False`. `split_lists` names text files below `root` that list
    the files of a split, taken out of `train` (a list of train itself: all that it keeps). `test_fraction` takes a
    seeded, stratified share of `train` for `test`. `pattern` keeps paths (relative to `root`) that match a glob,
    `exclude` drops folder names. `balance` undersamples `train` (and a share cut from it) to its smallest class,
    seeded. Hidden files are passed over; symlinks are followed, loops not. `decode`: options of `read_image` or
    `read_audio`.
    Raises `UserError` for a root that is missing or holds nothing to read, for folders that may be classes or splits,
    for listed names that match no file, and for contradictory options.
    """
    endings, how = ENDINGS[modality], decode_options(modality, decode)
    root = os.path.expanduser(root)
    if not is_folder(root):
        raise UserError(
            f"dataset.root={shown(root)!r} is not a folder: give the folder that holds the {modality} files"
        )
    passed_over = frozenset(exclude)
    places = dict(splits) if splits else split_folders(root, endings, passed_over)
    _check_there(root, places)
    if test_fraction is not None and "test" in (*places, *(split_lists or ())):
        raise UserError(f"{root} already has a test split: leave out dataset.test_fraction")

    paths: dict[str, list[str]] = {}
    names: dict[str, list[str | None]] = {}
    left = LeftOut(modality, pattern)
    for split, place in places.items():
        paths[split], names[split] = _find(root, place, endings, passed_over, labelled, left)
    if not splits and "" not in places.values():
        left.look_for_loose_files(root, endings)
    elif not splits and labelled and not split_lists:
        ask_about_splits(root, paths["train"])
    _check_apart(root, places, paths)
    for split, list_file in sorted((split_lists or {}).items(), key=lambda pair: pair[0] == "train"):
        left.unlisted += take_listed(root, list_file, split, paths, names)

    labels, classes = _number(names)
    rows = _choose(root, labels, test_fraction, balance, seed)
    if test_fraction is not None:
        paths["test"], labels["test"] = paths["train"], labels["train"]

    built = {
        split: Files(root, [escape(paths[split][i]) for i in kept], labels[split][kept], modality, how)
        for split, kept in rows.items()
    }
    sizes = (file_size(part.path(i)) for part in built.values() for i in range(len(part)))
    options = sorted(how.items())
    reading = settle(modality, built, how)
    mark = fingerprint(built, classes, sizes, options, reading.marks)
    derived = file_stem(os.path.basename(os.path.realpath(root)))
    left.foreign = [path for path in left.foreign if path not in (split_lists or {}).values()]
    return Dataset(
        name or derived,
        modality,
        built,
        classes,
        mark,
        licence,
        remarks=reading.remarks,
        intensity_range=reading.range,
        left_out=left.sentences(exclude),
    )


def _check_there(root: str, places: Mapping[str, str]) -> None:
    """`UserError` when the folder of a split is missing."""
    for split, place in places.items():
        if not is_folder(os.path.join(root, place)):
            raise UserError(f"split {split!r}: there is no folder {place!r} below {root}")


def _find(
    root: str, place: str, endings: Sequence[str], exclude: frozenset[str], labelled: bool, left: LeftOut
) -> tuple[list[str], list[str | None]]:
    """Paths (relative to `root`) of the items in the folder `place`, and the names of their classes, None for none.

    `left` has the pattern that they match, and is told what is no item. `UserError` when there is none.
    """
    whole = os.path.join(root, place)
    paths: list[str] = []
    names: list[str | None] = []
    for inner in walk(whole, exclude, left.met):
        path = inner if place in ("", ".") else f"{place.rstrip('/')}/{inner}"
        if not has_ending(path, endings):
            left.foreign.append(path)
        elif left.pattern is None or fnmatch.fnmatchcase(path, left.pattern):
            paths.append(path)
            names.append(inner.split("/", 1)[0] if labelled and "/" in inner else None)
    if not paths:
        where = whole if place else root
        there = f", only {left.endings()}" if left.foreign else ""
        raise UserError(f"{where} holds no {left.modality} file ({', '.join(endings[:6])}, ...){there}")
    if labelled:
        left.look_for_empty_classes(whole, place, exclude, names)
    return paths, names


def _check_apart(root: str, places: Mapping[str, str], paths: Mapping[str, list[str]]) -> None:
    """`UserError` when a file is in two splits, one split's folder being inside the other's."""
    real = {split: os.path.realpath(os.path.join(root, place)) for split, place in places.items()}
    for one, other in itertools.combinations(places, 2):
        if os.path.commonpath([real[one], real[other]]) in (real[one], real[other]):
            both = set(map(os.path.normpath, paths[one])) & set(map(os.path.normpath, paths[other]))
            if both:
                raise UserError(
                    f"{escape(min(both))} is in the split {one!r} and in {other!r} ({len(both):,} files are): give "
                    "each split a folder of its own, or pass over the inner one with dataset.exclude"
                )


def _number(names: Mapping[str, list[str | None]]) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """Labels int64 (N,) per split, -1 for no name, and the classes in order, None when there is none.

    Folder names stay names, even when they look like numbers: "10" sorts before "2", as in torchvision.
    """
    class_of = one_spelling({escape(name) for column in names.values() for name in column if name is not None})
    classes = sorted(set(class_of.values()))
    number = {class_name: index for index, class_name in enumerate(classes)}
    labels = {
        split: np.array([-1 if name is None else number[class_of[escape(name)]] for name in column], dtype=np.int64)
        for split, column in names.items()
    }
    return labels, classes or None


def _choose(
    root: str, labels: Mapping[str, np.ndarray], test_fraction: float | None, balance: bool, seed: int
) -> dict[str, np.ndarray]:
    """Rows (ascending) that each split keeps; those of test, with a `test_fraction`, are rows of train.

    `UserError` when there is no train to take them from.
    """
    rows = {split: np.arange(len(column)) for split, column in labels.items()}
    if balance and "train" in rows:
        rows["train"] = _undersample(labels["train"], seed)
    if test_fraction is not None:
        if "train" not in rows:
            raise UserError(f"dataset.test_fraction needs a train split; {root} has {', '.join(rows)}")
        kept = rows["train"]
        first, second = stratified_share(labels["train"][kept], test_fraction, seed)
        rows["train"], rows["test"] = kept[first], kept[second]
    return rows


def _undersample(labels: np.ndarray, seed: int) -> np.ndarray:
    """Rows (ascending) with as many of every class as the smallest has; unlabelled rows are left out."""
    present, counts = np.unique(labels[labels >= 0], return_counts=True)
    if len(present) == 0:
        raise UserError("dataset.balance needs labels")
    chosen = [
        stream(seed, 0, f"balance class {label}").permutation(np.flatnonzero(labels == label))[: counts.min()]
        for label in present
    ]
    return np.sort(np.concatenate(chosen))
