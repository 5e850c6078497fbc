"""Published data sets whose own on-disk format needs a few lines of reading."""

from __future__ import annotations

import os
from typing import Unpack

from alfm.datasets.base import Dataset
from alfm.datasets.files import Decode
from alfm.datasets.folder import folder
from alfm.datasets.table import Rows, from_rows
from alfm.errors import UserError
from alfm.options import checked


@checked
def cub200(root: str, name: str = "cub200", licence: str | None = None, **decode: Unpack[Decode]) -> Dataset:
    """CUB-200-2011 (Wah et al. 2011) as published: images.txt, image_class_labels.txt, train_test_split.txt,
    classes.txt and images/ in `root`."""
    images = _pairs(os.path.join(root, "images.txt"))
    labels = _pairs(os.path.join(root, "image_class_labels.txt"))
    training = _pairs(os.path.join(root, "train_test_split.txt"))
    classes = list(_pairs(os.path.join(root, "classes.txt")).values())
    for key in images:
        if not labels.get(key, "").isdecimal() or training.get(key) not in ("0", "1"):
            raise UserError(f"{root}: image {key} of images.txt has no class or no split in the files beside it")
        if not 1 <= int(labels[key]) <= len(classes):
            raise UserError(f"{root}: image {key} has class {labels[key]}, and classes.txt has {len(classes)}")
    found = Rows(
        tables=["images.txt"] * len(images),
        rows=list(range(len(images))),
        splits=["train" if training[key] == "1" else "test" for key in images],
        cells=list(images.values()),
        labels=[int(labels[key]) - 1 for key in images],  # published labels count from 1
    )
    return from_rows(found, os.path.join(root, "images"), name, classes=classes, licence=licence, **decode)


@checked
def tiny_imagenet(
    root: str, name: str = "tinyimagenet", licence: str | None = None, **decode: Unpack[Decode]
) -> Dataset:
    """Tiny ImageNet (Le & Yang 2015) as published: train/<class>/images/ and val/images/ with
    val/val_annotations.txt; `val` is the test split, since the published test labels are secret."""
    train = folder(root, splits={"train": "train"}, **decode).splits["train"]
    validation = _pairs(os.path.join(root, "val", "val_annotations.txt"), "\t")
    found = Rows(
        tables=["train/"] * len(train) + ["val/val_annotations.txt"] * len(validation),
        rows=[*range(len(train)), *range(len(validation))],
        splits=["train"] * len(train) + ["test"] * len(validation),
        cells=[*train.ids, *(f"val/images/{file}" for file in validation)],
        labels=[item_id.split("/")[1] for item_id in train.ids] + [r.split("\t")[0] for r in validation.values()],
    )
    return from_rows(found, root, name, licence=licence, **decode)


def _pairs(path: str, separator: str = " ") -> dict[str, str]:
    """Lines "key<separator>rest" -> {key: rest}."""
    try:
        with open(path, encoding="utf-8-sig") as lines:
            split = (line.rstrip("\n").partition(separator) for line in lines if line.strip())
            return {key: rest.strip() for key, _, rest in split}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; dataset.root must be the unpacked archive") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}): it is not the published file") from error
