"""What is said about labels: how many items have one, per class, and what a comparison should know about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

_NAMED = 12
"""Classes that are counted one by one."""


def label_counts(labels: Mapping[str, np.ndarray], classes: Sequence[str] | None) -> list[str]:
    """One line per split: how many of its items are labelled, and how many of every class (or their range).

    `labels`: int64 (N,) per split, -1 = unlabelled; `classes`: names by label, None: the numbers themselves.
    """
    return [f"{split}: {_counts(column, classes)}" for split, column in labels.items()]


def label_gaps(labels: Mapping[str, np.ndarray], classes: Sequence[str] | None) -> list[str]:
    """A sentence for every split but train with labelled items of classes that train has none of (arguments as above).

    Nothing is said where train has no labels at all: there is nothing to learn, and nothing to be wrong.
    """
    train = np.unique(labels["train"][labels["train"] >= 0]) if "train" in labels else np.empty(0)
    if not len(train):
        return []
    said = []
    for split, column in labels.items():
        strange = np.setdiff1d(column[column >= 0], train)
        if len(strange):
            items = int(np.isin(column, strange).sum())
            said.append(
                f"{split} has {_many(items, 'item')} of {_many(len(strange), 'class')} that train has none of "
                f"({_listed([_name(label, classes) for label in strange])}): no head can get them right"
            )
    return said


def _counts(column: np.ndarray, classes: Sequence[str] | None) -> str:
    labelled = column[column >= 0]
    if not len(labelled):
        return f"none of {len(column):,} items labelled"
    which = "all" if len(labelled) == len(column) else f"{len(labelled):,} of"
    numbers, counts = np.unique(labelled, return_counts=True)
    if len(numbers) <= _NAMED:
        each = ", ".join(f"{_name(n, classes)} {c:,}" for n, c in zip(numbers, counts, strict=True))
    else:
        low, high = numbers[counts.argmin()], numbers[counts.argmax()]
        each = (
            f"{len(numbers):,} classes, from {counts.min():,} ({_name(low, classes)}) "
            f"to {counts.max():,} ({_name(high, classes)})"
        )
    absent = len(classes or ()) - len(numbers)
    rest = f", {_many(absent, 'class')} without any" if absent > 0 else ""
    return f"{which} {len(column):,} items labelled ({each}{rest})"


def _name(label: int, classes: Sequence[str] | None) -> str:
    return str(classes[label]) if classes and label < len(classes) else str(label)


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f", and {len(names) - most:,} more" if len(names) > most else "")


def _many(count: int, what: str) -> str:
    return f"{count:,} {what if count == 1 else {'item': 'items', 'class': 'classes'}[what]}"
