"""Any classification data set of torchvision, by its class name."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alfm.commands import typed
from alfm.datasets.assemble import fingerprint
from alfm.datasets.base import Dataset, ItemError
from alfm.datasets.deep import CONTAINER
from alfm.datasets.files import Files, decode_options
from alfm.datasets.hub import first_line
from alfm.datasets.ids import escape
from alfm.datasets.images import to_rgb
from alfm.datasets.intensity import settle
from alfm.errors import UserError, nearest_names
from alfm.options import checked

GREY = {"MNIST", "FashionMNIST", "KMNIST", "EMNIST", "QMNIST", "USPS"}
"""Grey throughout: their images stay one channel."""


@dataclass
class TorchvisionSplit:
    """One or more torchvision data sets, one after the other; labels int64 (N,)."""

    parts: list[Any]
    labels: np.ndarray
    ids: list[str]
    grey: bool
    decode: dict[str, Any] = field(default_factory=dict)
    """`intensity_range` and `intensity_clip` of `read_image`."""

    def __post_init__(self) -> None:
        self.starts = np.cumsum([0, *(len(part) for part in self.parts)])

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        """Some classes keep an imported module, which cannot be pickled: its name travels instead."""
        parts = [copy.copy(part) for part in self.parts]
        modules = []
        for part in parts:
            names = {key: value.__name__ for key, value in vars(part).items() if inspect.ismodule(value)}
            modules.append(names)
            for key in names:
                delattr(part, key)
        return {**vars(self), "parts": parts, "modules": modules}

    def __setstate__(self, state: dict[str, Any]) -> None:
        modules = state.pop("modules")
        self.__dict__.update(state)
        for part, names in zip(self.parts, modules, strict=True):
            for key, name in names.items():
                setattr(part, key, importlib.import_module(name))

    def load(self, index: int) -> Any:
        """A PIL image, as torchvision decodes it, in RGB (L where all images are grey)."""
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        try:
            image = self.parts[part][index - int(self.starts[part])][0]
            image.load()
            return image.convert("L") if self.grey else to_rgb(image, self.ids[index], **self.decode)
        except UserError:
            raise
        except Exception as error:  # decoders raise nearly anything
            raise ItemError(f"{self.ids[index]}: {str(error) or type(error).__name__}") from error


@checked
def torchvision_dataset(
    class_name: str,
    root: str,
    splits: Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]] | None = None,
    name: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    download: bool = True,
    licence: str | None = None,
    intensity_range: Any = None,
    intensity_clip: bool | None = None,
) -> Dataset:
    """`torchvision.datasets.<class_name>(root, **kwargs, **splits[split])` for every split.

    A split given as a list of arguments is their concatenation ([{split: train}, {split: val}]); without `splits`,
    train and test are asked for in the way the class has. Files that are not below `root` yet are downloaded there
    if `download`. Labels are read without decoding images where the class keeps them in the usual places.
    `intensity_range` and `intensity_clip`: see `read_image`.
    `UserError`: no such class or split, files that are not there, or that torchvision would read wrongly.
    """
    import torchvision.datasets as known

    cls = getattr(known, class_name, None)
    if not inspect.isclass(cls) or not issubclass(cls, known.VisionDataset):
        names = [n for n in known.__all__ if inspect.isclass(getattr(known, n))]
        raise UserError(f"dataset.class_name={class_name}: not in torchvision; {nearest_names(class_name, names)}")
    splits = splits or _usual_splits(cls)
    decode = decode_options("image", {"intensity_range": intensity_range, "intensity_clip": intensity_clip})
    built: dict[str, TorchvisionSplit] = {}
    classes: list[str] | None = None
    content: list[Any] = [class_name, sorted((kwargs or {}).items())]
    for split, wanted in splits.items():
        pieces = [wanted] if isinstance(wanted, Mapping) else list(wanted)
        parts = [_build(cls, root, {**(kwargs or {}), **piece}, download) for piece in pieces]
        labels = []
        for part in parts:
            column, theirs = _labels(part), _classes(part)
            classes = classes or theirs
            if theirs is not None and classes is not None and theirs != classes:  # each split has numbered its own
                column, classes = _renumbered(column, theirs, classes)
            labels.append(column)
        built[split] = TorchvisionSplit(
            parts, np.concatenate(labels), _ids(parts, split, root), class_name in GREY, decode
        )
        _check_depth(parts, root, class_name)
        content.append(sorted(map(str, pieces)))
        content.extend(part.data.tobytes() for part in parts if isinstance(getattr(part, "data", None), np.ndarray))
    top = max(int(part.labels.max(initial=-1)) for part in built.values())
    if classes is None or len(classes) <= top:
        classes = [str(label) for label in range(top + 1)] or None
    mark = fingerprint(built, classes, content, sorted(decode.items()))
    return Dataset(
        name or class_name.lower(),
        "image",
        built,
        classes,
        mark,
        licence,
        intensity_range=decode.get("intensity_range"),
    )


def _check_depth(parts: Sequence[Any], root: str, class_name: str) -> None:
    """`UserError` for files of more than 8 bits where torchvision's own loader would cut their values off."""
    for part in parts:
        files = _files(part) if hasattr(part, "loader") else None
        if files:
            whole = Files("", files, np.empty(0), "image", paths=files)
            reading = settle("image", {"all": whole}, {"intensity_range": None})
            if reading.range is not None and (reading.grey or reading.range != [0, CONTAINER]):
                raise UserError(
                    f"{class_name} of torchvision cuts off values beyond 8 bits, which images below {root} have: read "
                    f"them with dataset=image_folder {typed('dataset.root', root)}"
                )


def _usual_splits(cls: type) -> dict[str, dict[str, Any]]:
    parameters = inspect.signature(cls).parameters
    if "train" in parameters:
        return {"train": {"train": True}, "test": {"train": False}}
    if "split" in parameters:
        return {"train": {"split": "train"}, "test": {"split": "test"}}
    return {"train": {}}


def _build(cls: type, root: str, arguments: dict[str, Any], download: bool) -> Any:
    """What is on disk is used as it is; only what is missing is downloaded."""
    if "download" not in inspect.signature(cls).parameters:
        attempts: list[dict[str, bool]] = [{}]
    else:
        attempts = [{"download": False}, {"download": True}] if download else [{"download": False}]
    failure: Exception
    for attempt in attempts:
        try:
            part = cls(root, **arguments, **attempt)
            files = _files(part)
            if files and not os.path.exists(files[0]):
                raise FileNotFoundError(f"{files[0]} is missing")
            return part
        except (TypeError, ValueError) as error:
            failure = error
            if not attempt.get("download"):  # wrong arguments; while downloading, a site that is gone
                raise UserError(f"torchvision {cls.__name__}{arguments}: {error}") from error
        except Exception as error:  # each class says "not there" and "no network" in its own way
            failure = error
    raise UserError(
        f"torchvision {cls.__name__} is not below {root} and could not be downloaded there "
        f"({first_line(failure)}); put its files there as torchvision lays them out, or set dataset.root"
    ) from failure


def _labels(part: Any) -> np.ndarray:
    """int64 (N,), from where the class keeps them; the last resort decodes every image once."""
    if type(part).__name__ == "PCAM":  # kept in a file of its own
        import h5py

        with h5py.File(part._base_folder / part._FILES[part._split]["targets"][0]) as file:
            return file["y"][:].reshape(-1).astype(np.int64)
    values: Any = None
    for attribute in ("targets", "labels", "_labels", "y"):
        values = getattr(part, attribute, None)
        if values is not None and len(values) == len(part):
            break
        values = None
    if values is None and type(part).__name__ == "INaturalist" and part.target_type == ["full"]:
        values = [category for category, _ in part.index]
    if values is None:
        pairs = getattr(part, "_samples", None) or getattr(part, "samples", None)
        values = [pair[1] for pair in pairs] if pairs else [part[index][1] for index in range(len(part))]
    array = np.asarray([-1 if value is None else value for value in values])
    if array.ndim != 1 or array.dtype.kind not in "iub":
        raise UserError(f"torchvision {type(part).__name__} does not have one class per image")
    return array.astype(np.int64)


def _files(part: Any) -> list[str] | None:
    """The image files in the order of the items, for the classes that keep such a list."""
    if type(part).__name__ == "INaturalist":
        part.index.sort()  # torchvision takes the order in which the file system lists them
        return [os.path.join(part.root, part.all_categories[category], file) for category, file in part.index]
    for attribute in ("_image_files", "_images", "imgs", "_samples", "samples"):
        values = getattr(part, attribute, None)
        if isinstance(values, list) and len(values) == len(part) and values:
            files = [value[0] if isinstance(value, tuple) else value for value in values]
            if all(isinstance(file, (str, os.PathLike)) for file in files):
                return [os.fspath(file) for file in files]
    return None


def _ids(parts: Sequence[Any], split: str, root: str) -> list[str]:
    """Paths below `root` where there are files, else split and number."""
    ids: list[str] = []
    for part in parts:
        files = _files(part)
        if files:
            ids.extend(escape(os.path.relpath(file, root)) for file in files)
        else:
            ids.extend(f"{split}/{number:06d}" for number in range(len(ids), len(ids) + len(part)))
    return ids


def _renumbered(labels: np.ndarray, names: list[str], classes: list[str]) -> tuple[np.ndarray, list[str]]:
    """Labels by `names` -> labels by `classes`, which new names are added to."""
    if len(set(names)) < len(names) or len(set(classes)) < len(classes) or labels.max(initial=-1) >= len(names):
        raise UserError(f"the splits differ in their classes, which are not unique or not complete: {names[:5]}, ...")
    classes = [*classes, *(name for name in names if name not in classes)]
    place = np.array([classes.index(name) for name in names], dtype=np.int64)
    return np.where(labels >= 0, place[labels], -1), classes


def _classes(part: Any) -> list[str] | None:
    for attribute in ("classes", "categories", "all_categories"):
        names = getattr(part, attribute, None)
        if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
            return list(names)
    return None
