"""Named arrays (`.npz`, HDF5, `.npy` with its files): which is what, by its name, and rows made of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alfm.cache.labels import class_numbers, label_column
from alfm.cache.sources.base import (
    UNLABELLED,
    Options,
    Rows,
    Source,
    as_text,
    length_mismatch,
    named_labels,
    split_rows,
)
from alfm.datasets.names import same_name
from alfm.datasets.splits import canonical_split, split_names
from alfm.errors import UserError, nearest_names

FEATURES = ("features", "embeddings", "embedding", "vectors", "vector", "x")
LABELS = ("labels", "label", "targets", "target", "class", "y")
IDS = ("ids", "id", "key", "path", "filename", "uuid")
SPLIT = ("split", "subset")
_CLASSES = ("class_names", "classes", "target_names", "label_names")


@dataclass
class Array:
    """One array of a file, not read yet: `load()` gives all of it, `read(start, stop)` some rows (None: loaded whole).

    `problem`: why it cannot be read (Python objects). `fill`: what stands for values that nobody wrote.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], Any]
    read: Callable[[int, int], np.ndarray] | None = None
    problem: str | None = None
    fill: Any = None

    @property
    def is_vectors(self) -> bool:
        """Whether it could be features."""
        return self.problem is None and self.dtype.kind == "f" and len(self.shape) in (2, 3) and self.shape[-1] > 1


def source_of(path: Path, arrays: Mapping[str, Array], options: Options, class_names: list[str] | None) -> Source:
    """Rows per split from named arrays: `features`, `X_train`, `test/labels`, `X_valid` ...

    Raises `UserError`: a name that is not there, several arrays for one thing, an array of objects that is needed,
    shapes that do not fit.
    """
    roles = _roles(path, arrays, options)
    source = Source({}, class_names)
    _check_left_over(path, arrays, roles, options, source.remarks)
    labels: dict[str, Any] = {}
    ids: dict[str, list[str] | None] = {}
    for split, found in roles.items():
        rows = _checked_features(path, found["features"], arrays[found["features"]])
        labels[split] = _labels(path, split, arrays, found.get("labels"), rows)
        ids[split] = [as_text(value) for value in _flat(arrays, found["ids"])] if "ids" in found else None
        if error := length_mismatch(path, split, rows, len(labels[split]), ids[split]):
            raise error
        if "classes" in found and class_names is None:
            source.class_names = [as_text(value) for value in _flat(arrays, found["classes"])]
    numbers, source.class_names = _numbered(path, labels, source, options)
    for split, found in roles.items():
        features = arrays[found["features"]]
        read = features.read or _rows_of(features.load())
        made = Rows(features.shape[0], features.shape[1:], read, numbers[split], ids[split])
        if "split" not in found:
            source.splits[split] = made
            continue
        column = _flat(arrays, found["split"])
        if len(column) != made.count or len(roles) > 1:
            raise UserError(f"{path}: {found['split']} has {len(column)} values for {made.count} rows of features.")
        source.splits = split_rows(path, made, column)
    return source


def _checked_features(path: Path, name: str, array: Array) -> int:
    """How many rows of features there are."""
    if len(array.shape) not in (2, 3) or array.dtype.kind != "f" or 0 in array.shape:
        raise UserError(
            f"{path}: {name} has {array.dtype} features of shape {array.shape}: floats (N, D) are needed, in Python "
            f"{name.rpartition('/')[2]}.reshape(N, D).astype('float32')."
        )
    return array.shape[0]


def _labels(path: Path, split: str, arrays: Mapping[str, Array], name: str | None, rows: int) -> np.ndarray | list[Any]:
    """int64 (rows,), or a list of texts."""
    if name is None:
        return np.full(rows, -1, dtype=np.int64)
    array = arrays[name]
    if array.dtype.kind in "USO":
        return np.asarray(array.load()).reshape(-1).tolist()
    if len(array.shape) == 1 and (error := length_mismatch(path, split, rows, array.shape[0], None)):
        raise error
    return label_column(array.load(), rows, f"{path}: {name}", array.fill)


def _rows_of(whole: np.ndarray) -> Callable[[int, int], np.ndarray]:
    return lambda start, stop: whole[start:stop]


def _roles(path: Path, arrays: Mapping[str, Array], options: Options) -> dict[str, dict[str, str]]:
    """Split -> what -> the array's name, for the splits that have features."""
    found: dict[str, dict[str, list[str]]] = {}
    parts = {name: _parts(name) for name in arrays}
    names = split_names({split for split, _ in parts.values()})
    for name, (split, stem) in parts.items():
        if role := _what(name, stem, arrays[name], options):
            found.setdefault(names[split], {}).setdefault(role, []).append(name)
    for what, given in (("features", options.features), ("labels", options.labels), ("ids", options.ids)):
        if given is not None and not any(what in one for one in found.values()):
            raise UserError(f"{path} has no array {given!r} for {what}: {nearest_names(given, list(arrays))}")
    if options.split is not None and not any("split" in one for one in found.values()):
        raise UserError(f"{path} has no array {options.split!r}: {nearest_names(options.split, list(arrays))}")
    whole = {split: one for split, one in found.items() if "features" in one}
    if not whole:
        raise UserError(f"{path} has no array of features (it has {', '.join(arrays)}): name it with --features NAME.")
    chosen: dict[str, dict[str, str]] = {}
    for split, one in whole.items():
        for what, several in one.items():
            if len(several) > 1 and what in ("features", "labels"):
                kind = "arrays of vectors" if what == "features" else "arrays of labels"
                raise UserError(f"{path} has several {kind} ({', '.join(several)}): name one with --{what} NAME.")
            name = min(several, key=lambda name: _rank(what, parts[name][1]))
            if arrays[name].problem is not None and what in ("features", "labels"):
                raise UserError(f"{path}: {name} {arrays[name].problem}.")
            chosen.setdefault(split, {})[what] = name
    for used in chosen.values():
        for what in [what for what, name in used.items() if arrays[name].problem is not None]:
            if getattr(options, what, None) is not None:
                raise UserError(f"{path}: {used[what]} {arrays[used[what]].problem}.")
            del used[what]
    return chosen


def _check_left_over(
    path: Path,
    arrays: Mapping[str, Array],
    roles: Mapping[str, Mapping[str, str]],
    options: Options,
    remarks: list[str],
) -> None:
    """What is not used is said; vectors that could as well be the features are asked about, unless one was named."""
    used = {name for found in roles.values() for name in found.values()}
    left = [name for name in arrays if name not in used]
    chosen = [arrays[one["features"]] for one in roles.values()]
    for name in left if options.features is None else ():
        array = arrays[name]
        if array.is_vectors and array.shape[0] in {one.shape[0] for one in chosen}:
            several = [one["features"] for one in roles.values() if arrays[one["features"]].shape[0] == array.shape[0]]
            raise UserError(
                f"{path} has several arrays of vectors ({', '.join([*several, name])}): name one with --features NAME."
            )
        if array.is_vectors and array.shape[1:] in {one.shape[1:] for one in chosen}:
            first = next(iter(roles.values()))["features"]
            raise UserError(
                f"{path}: {name} is as wide as the features and of no known split: rename it (X_train, X_val, X_test), "
                f"or leave it out with --features {first}."
            )
    objects = [name for name in left if arrays[name].problem is not None]
    if objects:
        why = "hold Python objects or cannot be read"
        remarks.append(f"left out, since they {why}: {', '.join(objects)} ({len(objects)})")
    rest = [name for name in left if name not in objects]
    if rest:
        remarks.append(f"not used: {', '.join(rest)} ({len(rest)})")


def _numbered(
    path: Path, labels: Mapping[str, Any], source: Source, options: Options
) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """Class numbers and names: of texts, or of numbers with the names that the file gives."""
    named = {split: column for split, column in labels.items() if isinstance(column, list)}
    if not named:
        names, unlabelled = source.class_names, options.unlabelled
        return class_numbers(path, labels, names, unlabelled, UNLABELLED, source.remarks)
    plain = {split: column.tolist() for split, column in labels.items() if split not in named and (column >= 0).any()}
    try:
        found, names = named_labels(named | plain, options, source.remarks)
    except UserError as error:
        raise UserError(f"{path}: {str(error).rstrip('.')}.") from error
    return {split: found.get(split, column) for split, column in labels.items()}, names


def _parts(name: str) -> tuple[str, str]:
    """`train_features`, `X_test`, `Valid/labels`, `labels` ... -> (split as written, what is left)."""
    group, _, leaf = name.rpartition("/")
    if group:
        return group, leaf
    for pattern in (r"([^_.\- ]+)[_.\- ](.+)", r"(.+)[_.\- ]([^_.\- ]+)"):
        if match := re.fullmatch(pattern, name):
            first, second = match.groups()
            if canonical_split(first):
                return first, second
            if canonical_split(second):
                return second, first
    return "train", name


def _what(name: str, stem: str, array: Array, options: Options) -> str | None:
    wanted = (
        ("features", options.features, FEATURES),
        ("labels", options.labels, LABELS),
        ("ids", options.ids, IDS),
        ("split", options.split, SPLIT),
        ("classes", None, _CLASSES),
    )
    for what, given, _ in wanted:
        if given is not None and same_name(given) in (same_name(name), same_name(stem)):
            return what
    for what, given, usual in wanted:
        if (
            given is None
            and stem.casefold() in usual
            and (what not in ("split", "classes") or array.dtype.kind in "USO")
        ):
            return what
    return None


def _rank(what: str, stem: str | None) -> int:
    usual, own = {"ids": IDS, "split": SPLIT, "classes": _CLASSES}.get(what, ()), (stem or "").casefold()
    return usual.index(own) if own in usual else -1


def _flat(arrays: Mapping[str, Array], name: str) -> list[Any]:
    return np.asarray(arrays[name].load()).reshape(-1).tolist()
