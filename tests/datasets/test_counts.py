"""What is said about labels."""

from __future__ import annotations

import numpy as np

from alfm.datasets.counts import label_counts, label_gaps


def test_labelled_items_are_counted_per_class() -> None:
    labels = {"train": np.array([0, 0, 1, -1]), "test": np.array([1, 1]), "val": np.array([-1])}
    assert label_counts(labels, ["cat", "dog", "owl"]) == [
        "train: 3 of 4 items labelled (cat 2, dog 1, 1 class without any)",
        "test: all 2 items labelled (dog 2, 2 classes without any)",
        "val: none of 1 items labelled",
    ]
    many = {"train": np.repeat(np.arange(77), np.arange(77) + 1)}
    assert label_counts(many, None) == ["train: all 3,003 items labelled (77 classes, from 1 (0) to 77 (76))"]


def test_classes_that_train_does_not_have_are_named() -> None:
    names = ["cat", "dog", "owl"]
    labels = {"train": np.array([0, 1, -1]), "test": np.array([1, 2, 2])}
    said = "test has 2 items of 1 class that train has none of (owl): no head can get them right"
    assert label_gaps(labels, names) == [said]
    assert label_gaps(labels | {"test": np.array([0, -1])}, names) == []
    assert label_gaps({"train": np.array([-1]), "test": np.array([0])}, names) == []
    assert label_gaps({"pool": np.array([0])}, None) == []
