"""Published data sets whose own on-disk format needs a few lines of reading."""

from __future__ import annotations

import os
from typing import Any

from alfm.datasets.base import Dataset
from alfm.datasets.folder import folder
from alfm.datasets.table import Row, from_rows
from alfm.errors import UserError


def cub200(root: str, name: str = "cub200", licence: str | None = None, **decode: Any) -> Dataset:
    """CUB-200-2011 (Wah et al. 2011) as published: images.txt, image_class_labels.txt, train_test_split.txt,
    classes.txt and images/ in `root`."""
    images = _pairs(os.path.join(root, "images.txt"))
    labels = _pairs(os.path.join(root, "image_class_labels.txt"))
    training = _pairs(os.path.join(root, "train_test_split.txt"))
    classes = list(_pairs(os.path.join(root, "classes.txt")).values())
    rows = []
    for number, (key, path) in enumerate(images.items()):
        if key not in labels or key not in training:
            raise UserError(f"{root}: image {key} of images.txt has no class or no split")
        split = "train" if training[key] == "1" else "test"
        record = {"path": path, "label": int(labels[key]) - 1}  # published labels count from 1
        rows.append(Row("images.txt", number, split, record))
    return from_rows(rows, os.path.join(root, "images"), name, classes=classes, licence=licence, **decode)


def tiny_imagenet(root: str, name: str = "tinyimagenet", licence: str | None = None, **decode: Any) -> Dataset:
    """Tiny ImageNet (Le & Yang 2015) as published: train/<class>/images/ and val/images/ with
    val/val_annotations.txt; `val` is the test split, since the published test labels are secret."""
    train = folder(root, splits={"train": "train"}, **decode).splits["train"]
    rows = [
        Row("train/", number, "train", {"path": item_id, "label": item_id.split("/")[1]})
        for number, item_id in enumerate(train.ids)
    ]
    annotations = _pairs(os.path.join(root, "val", "val_annotations.txt"), "\t")
    for number, (file, rest) in enumerate(annotations.items()):
        record = {"path": f"val/images/{file}", "label": rest.split("\t")[0]}
        rows.append(Row("val/val_annotations.txt", number, "test", record))
    return from_rows(rows, root, name, licence=licence, **decode)


def _pairs(path: str, separator: str = " ") -> dict[str, str]:
    """Lines "key<separator>rest" -> {key: rest}."""
    try:
        with open(path, encoding="utf-8") as lines:
            split = (line.rstrip("\n").partition(separator) for line in lines if line.strip())
            return {key: rest.strip() for key, _, rest in split}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; dataset.root must be the unpacked archive") from error
