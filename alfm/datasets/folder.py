"""Folders as people have them: class folders or flat, with or without train/ and test/."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alfm.datasets.assemble import fingerprint, stratified_share
from alfm.datasets.base import Dataset, Modality
from alfm.datasets.files import Files, decode_options, file_size
from alfm.datasets.ids import escape, file_stem
from alfm.errors import UserError
from alfm.streams import stream

ENDINGS: dict[str, tuple[str, ...]] = {
    "image": ("jpg", "jpeg", "png", "bmp", "gif", "tif", "tiff", "webp", "jpe", "jfif", "ppm", "pgm", "pbm", "avif"),
    "audio": ("wav", "flac", "ogg", "mp3", "opus", "aif", "aiff", "aifc", "oga", "au", "snd", "w64", "caf"),
    "text": ("txt",),
}
SPLIT_FOLDERS = ("train", "test", "val", "valid", "validation")


def folder(
    root: str,
    modality: Modality = "image",
    name: str | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    splits: Mapping[str, str] | None = None,
    split_lists: Mapping[str, str] | None = None,
    pattern: str | None = None,
    exclude: Sequence[str] = (),
    labelled: bool = True,
    balance: bool = False,
    licence: str | None = None,
    **decode: Any,
) -> Dataset:
    """Files of one modality below `root`, found by their endings; an item's class is the folder right below its split.

    Splits: `splits` names them and their folders ({train: train, test: val}); else subfolders called train, test,
    val, valid or validation; else all is `train`. Files that lie in no class folder are unlabelled (-1), and so is
    everything with `labelled=False`. `split_lists` names text files below `root` that list the files of a split,
    taken out of `train`. `test_fraction` takes a seeded, stratified share of `train` for `test`. `pattern` keeps
    paths (relative to `root`) that match a glob, `exclude` drops folder names. `balance` undersamples `train` (and
    a share cut from it) to its smallest class, seeded. Hidden files are passed over; symlinks are followed, loops not.
    `decode`: options of `read_image` or `read_audio`.
    Raises `UserError` for a root that is missing or holds nothing to read, and for contradictory options.
    """
    endings, decode = ENDINGS[modality], decode_options(modality, decode)
    root = os.path.expanduser(root)
    if not os.path.isdir(root):
        raise UserError(f"dataset.root={root!r} is not a folder: give the folder that holds the {modality} files")
    places = dict(splits) if splits else _split_folders(root, frozenset(endings), frozenset(exclude))
    for split, place in places.items():
        if not os.path.isdir(os.path.join(root, place)):
            raise UserError(f"split {split!r}: there is no folder {place!r} below {root}")
    if test_fraction is not None and "test" in (*places, *(split_lists or ())):
        raise UserError(f"{root} already has a test split: leave out dataset.test_fraction")

    paths: dict[str, list[str]] = {}
    names: dict[str, list[str | None]] = {}
    for split, place in places.items():
        found = []
        for inner in _walk(os.path.join(root, place), frozenset(endings), frozenset(exclude)):
            path = inner if place in ("", ".") else f"{place.rstrip('/')}/{inner}"
            if pattern is None or fnmatch.fnmatchcase(path, pattern):
                found.append((path, inner.split("/", 1)[0] if labelled and "/" in inner else None))
        paths[split] = [path for path, _ in found]
        names[split] = [class_name for _, class_name in found]
        if not found:
            where = os.path.join(root, place) if place else root
            raise UserError(f"{where} holds no {modality} file ({', '.join(endings[:6])}, ...)")
    for split, list_file in (split_lists or {}).items():
        _take_listed(root, list_file, split, paths, names)

    # folder names stay names, even when they look like numbers: "10" sorts before "2", as in torchvision
    present = sorted({escape(name) for column in names.values() for name in column if name is not None})
    number = {class_name: index for index, class_name in enumerate(present)}
    labels = {
        split: np.array([-1 if name is None else number[escape(name)] for name in column], dtype=np.int64)
        for split, column in names.items()
    }
    classes = present or None
    rows = {split: np.arange(len(paths[split])) for split in paths}
    if balance and "train" in rows:
        rows["train"] = _undersample(labels["train"], seed)
    if test_fraction is not None:
        if "train" not in rows:
            raise UserError(f"dataset.test_fraction needs a train split; {root} has {', '.join(rows)}")
        kept = rows["train"]
        first, second = stratified_share(labels["train"][kept], test_fraction, seed)
        rows["train"], rows["test"] = kept[first], kept[second]
        paths["test"], labels["test"] = paths["train"], labels["train"]

    built = {
        split: Files(root, [escape(paths[split][i]) for i in kept], labels[split][kept], modality, decode)
        for split, kept in rows.items()
    }
    sizes = (file_size(part.path(i)) for part in built.values() for i in range(len(part)))
    mark = fingerprint(built, classes, sizes, sorted(decode.items()))
    derived = file_stem(os.path.basename(os.path.realpath(root)))
    return Dataset(name or derived, modality, built, classes, mark, licence)


def _split_folders(root: str, endings: frozenset[str], exclude: frozenset[str]) -> dict[str, str]:
    """{split: folder} for the folders that are called like splits, or everything as train."""
    found = {place: place for place in SPLIT_FOLDERS if os.path.isdir(os.path.join(root, place))}
    for entry in sorted(os.listdir(root)) if found else ():
        hidden = entry in found or entry.startswith(".") or entry in exclude
        if hidden or not os.path.isdir(os.path.join(root, entry)):
            continue
        if next(_walk(os.path.join(root, entry), endings, exclude), None) is not None:
            raise UserError(
                f"{root} holds {next(iter(found))}/ beside {escape(entry)}/: are these classes or splits? Say "
                "dataset.splits={train: .} for classes, or name the splits, such as dataset.splits={train: train}"
            )
    return found or {"train": ""}


def _walk(top: str, endings: frozenset[str], exclude: frozenset[str]) -> Iterator[str]:
    """Paths below `top` ('/' between parts), sorted. A symlink back to a folder above it is not entered."""

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
            if entry.name.startswith(".") or entry.name in exclude:
                continue
            try:
                is_folder = entry.is_dir()
                is_file = entry.is_file() or (entry.is_symlink() and not is_folder)  # a dangling link is a bad item
            except OSError:  # a symlink to itself
                continue
            if is_folder:
                yield from inside(entry.path, f"{prefix}{entry.name}/", (*above, here))
            elif is_file and entry.name.rpartition(".")[2].lower() in endings:
                yield prefix + entry.name

    return inside(top, "", ())


def _take_listed(
    root: str,
    list_file: str,
    split: str,
    paths: dict[str, list[str]],
    names: dict[str, list[str | None]],
) -> None:
    """Move the files that `list_file` (one relative path per line) names from `train` to `split`, in place."""
    try:
        with open(os.path.join(root, list_file), encoding="utf-8", errors="surrogateescape") as lines:
            listed = {line.strip() for line in lines if line.strip()}
    except OSError as error:
        raise UserError(f"split {split!r}: {os.path.join(root, list_file)}: {error.strerror}") from error
    moved = [path in listed for path in paths["train"]]
    if not any(moved):
        raise UserError(f"split {split!r}: {list_file} names no file below {root}")
    for table in (paths, names):
        column = table["train"]
        table[split] = [cell for cell, move in zip(column, moved, strict=True) if move]
        table["train"] = [cell for cell, move in zip(column, moved, strict=True) if not move]


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
