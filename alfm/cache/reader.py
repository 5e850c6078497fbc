"""Open a feature cache read-only: ours, those of AL-foundation-models, and any HDF5 file of the same shape.

A file from elsewhere is untrusted: links, shapes, dtypes and sizes are checked before memory is allocated. The file is
opened anew for every read and closed again, so no HDF5 handle crosses a fork; `locking="best-effort"` lets it be read
from network file systems without locks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from alfm.cache.labels import class_numbers, fill_value, label_column
from alfm.cache.layout import FORMAT, FORMAT_VERSION, plain, rows_not_finite
from alfm.cache.plain_rows import PlainRows, plain_rows
from alfm.datasets.labels import ASK
from alfm.errors import UserError, nearest_names

_CHECK_ROWS = 1 << 22
"""Values looked at together when features are checked for NaN: bounds the temporary memory."""
_MOST_COMPRESSION = 1100
"""Deflate cannot do better than 1032 : 1; what claims more is not a feature cache."""
_CONVERT = "python -m alfm.cache convert"


@dataclass(frozen=True)
class _Layout:
    """What one split holds, read from the headers alone."""

    rows: int
    views: int
    dim: int
    dtype: np.dtype
    has_views: bool
    has_ids: bool
    has_marks: bool = False


def open_cache(path: str | os.PathLike[str], unlabelled: Any = ASK) -> FeatureCache:
    """Open the cache at `path` and check everything that can be checked without reading the features.

    `unlabelled`: a number, besides -1, by which the labels of a cache without class names say that there is none; None:
    no other does; by default a number far above the classes that is usual for it is asked about.

    Raises `UserError`: no such file, damaged or not HDF5, no split, wrong shapes or dtypes, labels outside the classes.
    NaN and Inf are found when features are read.
    """
    return FeatureCache(path, unlabelled)


class FeatureCache:
    """Features, labels and ids of named splits, and where they come from.

    Attributes: `path`; `splits`, names with `train` first; `dim` (D); `attributes`, a dict of the file's attributes;
    `class_names`, list or None; `num_classes` (C); `remarks`, sentences for the person who reads it; `renumbered`:
    labels are not the numbers in the file: without class names gaps are closed over all splits (`class_names` are then
    the numbers that were there), and a fill value means unlabelled. `unlabelled`: see `open_cache`; `option`: how a
    message names it.
    """

    def __init__(self, path: str | os.PathLike[str], unlabelled: Any = ASK, option: str = "unlabelled") -> None:
        self.path = Path(path)
        self._places: dict[tuple[str, int, int, int], PlainRows | None] = {}
        if self.path.is_dir():
            raise UserError(f"{self.path} is a folder: name the cache file in it.")
        if not self.path.exists():
            if any(part.endswith(":") for part in self.path.parts):  # a path keeps one slash of s3://
                raise UserError(f"{self.path} was given as a URL: caches are read from a disk, so download it first.")
            raise UserError(f"There is no feature cache {self.path}: make one with python -m alfm.extract.")
        with self.file() as file:
            self.attributes: dict[str, Any] = {key: plain(value) for key, value in file.attrs.items()}
            self._check_version()
            self._layouts = {name: _check_split(file, name, self.path) for name in _split_names(file)}
            if not self._layouts:
                hint = f"; {_CONVERT} reads other layouts" if len(file) else ""
                raise UserError(f"{self.path} has no split: a cache needs train/features and train/labels{hint}.")
            self._stored_names = stored_class_names(file, self.path)
            labels = {name: _read_labels(file, name, self.path) for name in self._layouts}
            filled = any(_has_filled(file, name, self.path, labels[name]) for name in self._layouts)
        dims = {layout.dim for layout in self._layouts.values()}
        if len(dims) > 1:
            sizes = ", ".join(f"{name}: {layout.dim}" for name, layout in self._layouts.items())
            raise UserError(f"The splits of {self.path} differ in feature dimension ({sizes}).")
        self.dim = dims.pop()
        self.splits: list[str] = list(self._layouts)
        self.remarks: list[str] = []
        self._labels, self.class_names = class_numbers(
            self.path, labels, self._stored_names, unlabelled, option, self.remarks
        )
        self.renumbered = filled or (self.class_names is not None and self._stored_names is None)
        for column in self._labels.values():
            column.flags.writeable = False
        largest = max((int(column.max(initial=-1)) for column in self._labels.values()), default=-1)
        self.num_classes = len(self.class_names) if self.class_names is not None else largest + 1

    # ---- what is in it -------------------------------------------------------------------------------------------

    def num_rows(self, split: str) -> int:
        """N of one split."""
        return self._layout(split).rows

    def num_views(self, split: str) -> int:
        """V: stored augmented views per item, 1 for plain features."""
        return self._layout(split).views

    def dtype(self, split: str) -> np.dtype:
        """dtype of the stored features."""
        return self._layout(split).dtype

    def features(self, split: str) -> np.ndarray:
        """All features (N, D) of a split (view 0 where there are several), in the stored dtype.

        Raises `UserError` for NaN or Inf, a damaged file, or more than the machine's memory.
        """
        layout = self._layout(split)
        self._check_fits(split, layout.rows * layout.dim * layout.dtype.itemsize)
        return self._read(split, 0, layout.rows, 0)

    def views(self, split: str) -> np.ndarray:
        """All views (N, V, D) of a split, in the stored dtype; V is 1 for plain features."""
        layout = self._layout(split)
        self._check_fits(split, layout.rows * layout.views * layout.dim * layout.dtype.itemsize)
        return self._read(split, 0, layout.rows, None)

    def read_rows(self, split: str, start: int, stop: int, view: int | None = 0) -> np.ndarray:
        """Rows [start, stop) of a split from the file: (b, D) of one view, or (b, V, D) for `view=None`."""
        layout = self._layout(split)
        if not 0 <= start <= stop <= layout.rows:
            raise IndexError(f"rows [{start}, {stop}) of {split}, which has {layout.rows}")
        return self._read(split, start, stop, view)

    def take(self, split: str, rows: np.ndarray, view: int = 0) -> np.ndarray:
        """Features (n, D) of the given rows int64 (n,), in that order, duplicates allowed, from the file."""
        rows = np.asarray(rows, dtype=np.int64)
        layout = self._layout(split)
        if rows.size == 0:
            return np.empty((0, layout.dim), layout.dtype)
        if rows.min() < 0 or rows.max() >= layout.rows:
            raise IndexError(f"rows outside [0, {layout.rows}) of {split}")
        unique, inverse = np.unique(rows, return_inverse=True)
        out = np.empty((len(unique), layout.dim), layout.dtype)
        direct = self._direct(split)
        if direct is not None and direct.scattered(unique):
            with self._damage():
                out = direct.read(unique)
            bad = rows_not_finite(out)
            if bad.any():
                raise self._not_finite(split, int(unique[bad.argmax()]))
            return out[inverse]
        with self.file() as file:
            dataset = file[split]["features"]
            # neighbouring rows are read together: one call per row costs more than reading a small gap
            cuts = np.flatnonzero(np.diff(unique) > 64) + 1
            for first, last in zip([0, *cuts], [*cuts, len(unique)], strict=True):
                low, high = int(unique[first]), int(unique[last - 1]) + 1
                block = dataset[low:high, view] if layout.has_views else dataset[low:high]
                out[first:last] = block[unique[first:last] - low]
        bad = rows_not_finite(out)
        if bad.any():
            raise self._not_finite(split, int(unique[bad.argmax()]))
        return out[inverse]

    def labels(self, split: str) -> np.ndarray:
        """int64 (N,), -1 = unlabelled. Read-only."""
        self._layout(split)
        return self._labels[split]

    def stored_labels(self, split: str) -> np.ndarray:
        """int64 (N,): the numbers in the file, where `labels` may have closed gaps."""
        self._layout(split)
        with self.file() as file:
            return _read_labels(file, split, self.path)

    def ids(self, split: str) -> list[str] | None:
        """N ids, or None where the cache has none. See `alfm.datasets.ids` for file names that are not UTF-8."""
        if not self._layout(split).has_ids:
            return None
        with self.file() as file:
            raw = file[split]["ids"][:]
        return [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in raw.tolist()]

    def marks(self, split: str) -> list[str] | None:
        """N marks of the items' content (see `alfm.datasets.marks`), "" where there is none; None where the cache has
        none at all, as those of earlier versions and from elsewhere."""
        if not self._layout(split).has_marks:
            return None
        with self.file() as file:
            return [mark.decode("ascii", "replace") for mark in file[split]["marks"][:].tolist()]

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest that changes with the content: over the parts' checksums in our caches, else over the file."""
        digest = hashlib.blake2b(digest_size=16)
        shapes = [(name, dict(vars(layout))) for name, layout in self._layouts.items()]
        for _, shape in shapes:
            del shape["has_marks"]  # they change nothing that is computed from a cache
        digest.update(json.dumps([self._stored_names, shapes], default=str).encode())
        if self.attributes.get("format") == FORMAT:
            with self.file() as file:
                if all("checksums" in file[name] for name in self.splits):
                    for name in self.splits:
                        digest.update(b"".join(file[name]["checksums"][:].astype("S").tolist()))
                    return digest.hexdigest()
        with self.path.open("rb") as handle:
            while block := handle.read(1 << 22):
                digest.update(block)
        return digest.hexdigest()

    def __repr__(self) -> str:
        rows = ", ".join(f"{name} {layout.rows}" for name, layout in self._layouts.items())
        return f"FeatureCache({str(self.path)!r}, {rows}, D={self.dim}, C={self.num_classes})"

    # ---- how it is read ------------------------------------------------------------------------------------------

    @contextmanager
    def file(self) -> Iterator[h5py.File]:
        """The open file, for the length of a `with`; what HDF5 reports as damage becomes a `UserError`."""
        with self._damage(), h5py.File(self.path, "r", locking="best-effort") as file:
            yield file

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError, UnicodeDecodeError) as error:
            # h5py reports damage as any of these, depending on where in the file it meets it
            if isinstance(error, PermissionError):
                raise UserError(f"{self.path} may not be read: {error.strerror}.") from error
            raise UserError(
                f"{self.path} is damaged or not an HDF5 feature cache ({first_line(error)}): make it again with "
                "python -m alfm.extract ... force=true, or python -m alfm.cache convert ... --force."
            ) from error

    def _layout(self, split: str) -> _Layout:
        if split not in self._layouts:
            raise UserError(f"{self.path} has no split {split!r}: {nearest_names(split, list(self._layouts))}")
        return self._layouts[split]

    def _read(self, split: str, start: int, stop: int, view: int | None) -> np.ndarray:
        layout = self._layout(split)
        shape = (stop - start, layout.dim) if view is not None else (stop - start, layout.views, layout.dim)
        out = np.empty(shape, layout.dtype)
        step = max(1, _CHECK_ROWS // (out[:1].size or 1))
        direct = self._direct(split) if view is not None and stop > start else None
        if direct is not None:
            self._read_directly(split, direct, out, start, step)
            return out
        with self.file() as file:
            dataset = file[split]["features"]
            for low in range(start, stop, step):
                high = min(low + step, stop)
                if not layout.has_views:
                    block = dataset[low:high]
                    block = block if view is not None else block[:, None]
                else:
                    block = dataset[low:high] if view is None else dataset[low:high, view]
                block = block.astype(layout.dtype, copy=False)  # a big-endian file
                bad = rows_not_finite(block)
                if bad.any():
                    raise self._not_finite(split, low + int(bad.argmax()))
                out[low - start : high - start] = block
        return out

    def _read_directly(self, split: str, direct: PlainRows, out: np.ndarray, start: int, step: int) -> None:
        """Fill out (b, D) with consecutive rows, without a copy on the way."""
        for low in range(0, len(out), step):
            block = out[low : low + step]
            with self._damage():
                direct.read(np.arange(start + low, start + low + len(block)), block)
            bad = rows_not_finite(block)
            if bad.any():
                raise self._not_finite(split, start + low + int(bad.argmax()))

    def _direct(self, split: str) -> PlainRows | None:
        """Where the rows of a split lie, if they can be read without HDF5; found once while the file stays as it is."""
        with self._damage():
            status = self.path.stat()
            key = (split, status.st_ino, status.st_size, status.st_mtime_ns)
            if key not in self._places:
                with h5py.File(self.path, "r", locking="best-effort") as file:
                    self._places[key] = plain_rows(file[split]["features"], self.path)
            return self._places[key]

    def _not_finite(self, split: str, row: int) -> UserError:
        return UserError(f"{self.path} holds NaN or Inf in {split}/features, row {row}: embed that item again.")

    def _check_fits(self, split: str, needed: int) -> None:
        try:
            memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):
            return
        if needed > memory:
            raise UserError(
                f"{split} of {self.path} needs {needed / 2**30:.1f} GiB and this machine has {memory / 2**30:.1f}: "
                "read it in blocks (memory=file)."
            )

    def _check_version(self) -> None:
        version = self.attributes.get("format_version", FORMAT_VERSION)
        if self.attributes.get("format") == FORMAT and isinstance(version, int) and version > FORMAT_VERSION:
            known = f"this alfm reads up to {FORMAT_VERSION}"
            raise UserError(f"{self.path} has format version {version} and {known}: update alfm.")


# ---- checks, made on headers before anything is read ----------------------------------------------------------------


def _split_names(file: h5py.File) -> list[str]:
    names = []
    for name in file:
        check_link(file, name)
        group = file[name]
        if isinstance(group, h5py.Group) and "features" in group:
            names.append(name)
    return sorted(names, key=split_order)


def split_order(name: str) -> tuple[int, str]:
    """By which splits are sorted: train, val, test, and others by name."""
    return {"train": 0, "val": 1, "test": 2}.get(name, 3), name


def check_link(group: h5py.Group, name: str) -> None:
    """A link into another file could read anything the user can; a soft link may lead to one: both are refused."""
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
        where = f"{group.file.filename}: {group.name.rstrip('/')}/{name}"
        target = "into another file" if isinstance(link, h5py.ExternalLink) else f"to {link.path} (a soft link)"
        raise UserError(f"{where} points {target}, which is not followed.")


def checked_dataset(group: h5py.Group, name: str, path: Path) -> h5py.Dataset:
    """A dataset whose claims agree with the file's size; `UserError` for others, and for values in another file."""
    where = f"{path}: {group.name.strip('/')}/{name}"
    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset):
        raise UserError(f"{where} is not a dataset.")
    if dataset.is_virtual or dataset.external:
        raise UserError(f"{where} keeps its values in another file, which is not followed.")
    if dataset.shape is None:
        raise UserError(f"{where} is empty.")
    stored, claimed = dataset.id.get_storage_size(), int(np.prod(dataset.shape, dtype=object)) * dataset.dtype.itemsize
    compressed = dataset.chunks is not None and dataset.id.get_create_plist().get_nfilters() > 0
    if stored > path.stat().st_size or claimed > stored * (_MOST_COMPRESSION if compressed else 1):
        raise UserError(f"{where} claims {claimed} bytes and {stored} are stored: the file is incomplete or damaged.")
    return dataset


def _check_split(file: h5py.File, name: str, path: Path) -> _Layout:
    group = file[name]
    for key in group:
        check_link(group, key)
    if "labels" not in group:
        raise UserError(f"{path}: {name} has features but no labels; write -1 where a label is unknown.")
    features, labels = checked_dataset(group, "features", path), checked_dataset(group, "labels", path)
    where = f"{path}: {name}/features"
    if features.dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64):
        raise UserError(f"{where} has dtype {features.dtype}: float16, float32 or float64 is needed.")
    if features.ndim not in (2, 3) or 0 in features.shape[1:]:
        raise UserError(f"{where} has shape {features.shape}: (N, D), or (N, V, D) with views, is needed.")
    rows, dim = features.shape[0], features.shape[-1]
    if labels.dtype.kind not in "iubf":
        raise UserError(
            f"{path}: {name}/labels has dtype {labels.dtype}: integers are needed; {_CONVERT} reads class names."
        )
    if labels.shape not in ((rows,), (rows, 1), (1, rows)) and not (labels.ndim == 2 and labels.shape[0] == rows):
        turned = int(np.prod(labels.shape)) == dim
        hint = f"the features may be transposed, which {_CONVERT} reads" if turned else "one label per row is needed"
        raise UserError(f"{path}: {name}/labels has shape {labels.shape} beside {rows} rows of features: {hint}.")
    has_ids = "ids" in group
    if has_ids:
        ids = checked_dataset(group, "ids", path)
        text = h5py.check_string_dtype(ids.dtype) is not None or ids.dtype.kind in "SiU"
        if ids.shape != (rows,) or not text:
            found = f"shape {ids.shape} and dtype {ids.dtype}"
            raise UserError(f"{path}: {name}/ids has {found}: {rows} strings are needed.")
    views = features.shape[1] if features.ndim == 3 else 1
    has_marks = "marks" in group and file.attrs.get("format") == FORMAT  # elsewhere the word may mean anything
    if has_marks:
        marks = checked_dataset(group, "marks", path)
        if marks.shape != (rows,) or marks.dtype.kind != "S" or marks.dtype.itemsize > 64:
            found = f"shape {marks.shape} and dtype {marks.dtype}"
            raise UserError(f"{path}: {name}/marks has {found}: {rows} short strings are needed.")
    return _Layout(rows, views, dim, features.dtype.newbyteorder("="), features.ndim == 3, has_ids, has_marks)


def _read_labels(file: h5py.File, name: str, path: Path) -> np.ndarray:
    dataset = file[name]["labels"]
    return label_column(dataset, len(file[name]["features"]), f"{path}: {name}/labels", fill_value(dataset))


def _has_filled(file: h5py.File, name: str, path: Path, labels: np.ndarray) -> bool:
    """Whether a fill value that could have been read as a class was not."""
    fill = fill_value(file[name]["labels"])
    if fill is None or not fill >= 0:
        return False
    plain = label_column(file[name]["labels"], len(labels), f"{path}: {name}/labels")
    return not np.array_equal(plain, labels)


def stored_class_names(file: h5py.File, path: Path) -> list[str] | None:
    """The attribute or dataset `class_names`, or None."""
    value = file.attrs.get("class_names")
    if value is None and "class_names" in file and isinstance(file["class_names"], h5py.Dataset):
        value = checked_dataset(file, "class_names", path)[:]
    if value is None:
        return None
    if isinstance(value, bytes | str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(f"{path}: the attribute class_names is not a list of names.") from error
    if not isinstance(value, list | np.ndarray):
        raise UserError(f"{path}: the attribute class_names is not a list of names.")
    names = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in list(value)]
    return names or None


def first_line(error: BaseException) -> str:
    """Of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
