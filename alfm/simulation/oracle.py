"""The simulated annotator: who is asked for labels, may be wrong, and may not know.

What is said of an item is a function of the replicate's seed and the item, whenever it is asked. Only what learners are
told goes through here: the test split, and the hidden labels that `oracle` strategies see, are what the cache says.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Lt

from alfm.errors import UserError
from alfm.options import PathName, checked, shown
from alfm.streams import stream

_SUM = 1e-3
"""How far a row of a confusion matrix, which people write down rounded, may be from 1."""


@dataclass(frozen=True)
@checked
class OracleOptions:
    """`oracle.`: what the simulated annotator gets wrong.

    noise: share of answers that name another class, each as likely as the others. confusion: a C x C matrix instead,
    a .npy, or .csv, .txt with a line for each true class in the cache's order: how often each class is said of it.
    abstain: share of items for which no answer comes; they are paid for, not learnt from, and not asked again.

    Raises UserError where noise and confusion are both given.
    """

    noise: Annotated[float, Ge(0), Lt(1)] = 0.0
    confusion: PathName | None = None
    abstain: Annotated[float, Ge(0), Lt(1)] = 0.0

    def __post_init__(self) -> None:
        if self.noise and self.confusion is not None:
            raise UserError(
                f"oracle.noise={self.noise:g} and oracle.confusion={shown(self.confusion)} both say which answers are "
                "wrong: leave one out."
            )

    @property
    def flawless(self) -> bool:
        """Is every answer the cache's label?"""
        return not self.noise and self.confusion is None and not self.abstain


class Annotator:
    """Answers about the items of a pool, to be asked by seed."""

    def __init__(
        self, labels: np.ndarray, numbers: np.ndarray, size: int, classes: int, options: OracleOptions
    ) -> None:
        """labels, numbers int64 (N,): the pool's true classes, and its items as `Made.numbers`; size: see there.

        Raises UserError for a confusion matrix that is none of these classes.
        """
        self.labels, self.numbers, self.size, self.options = labels, numbers, size, options
        self.matrix = None if options.confusion is None else read_confusion(options.confusion, classes)
        if self.matrix is None and options.noise:
            self.matrix = np.full((classes, classes), options.noise / (classes - 1))
            np.fill_diagonal(self.matrix, 1 - options.noise)

    @property
    def digest(self) -> int:
        """Of the confusion matrix, so that a file that has changed makes another run."""
        assert self.matrix is not None
        return int(hashlib.sha256(self.matrix.tobytes()).hexdigest()[:8], 16)

    def answers(self, seed: int) -> np.ndarray:
        """What is said of every item, int64 (N,), -1 for no answer."""
        said = self.labels
        if self.matrix is not None:
            said = self._said(self._draws(seed, "oracle answer"))
        if self.options.abstain:
            said = np.where(self._draws(seed, "oracle abstains") < self.options.abstain, -1, said)
        return said

    def _said(self, draws: np.ndarray) -> np.ndarray:
        """The class at each item's draw in its true class's row: that class first, then the others in order, so that
        more noise adds mistakes to those that are there."""
        assert self.matrix is not None
        C, found = len(self.matrix), np.empty(len(draws), dtype=np.int64)
        for true in np.unique(self.labels):
            order = np.array([true, *(other for other in range(C) if other != true)])
            here = np.flatnonzero(self.labels == true)
            place = np.searchsorted(np.cumsum(self.matrix[true, order]), draws[here], side="right")
            last = int(np.flatnonzero(self.matrix[true, order])[-1])  # rounding may leave a gap below 1
            found[here] = order[np.minimum(place, last)]
        return found

    def _draws(self, seed: int, purpose: str) -> np.ndarray:
        """A number in [0, 1) for every item, float64 (N,), whichever pool it is in; a copy has another."""
        copies = int(self.numbers.max()) // self.size + 1
        every = np.concatenate([stream(seed, copy, purpose).random(self.size) for copy in range(copies)])
        return every[self.numbers]


def read_confusion(path: str | Path, classes: int) -> np.ndarray:
    """A confusion matrix float64 (C, C) whose rows sum to 1. UserError, naming the file, for anything else."""
    file = Path(path).expanduser()
    try:
        if file.suffix == ".npy":
            matrix = np.load(file, allow_pickle=False)
        else:
            matrix = np.loadtxt(file, delimiter="," if file.suffix == ".csv" else None, ndmin=2)
        if matrix.dtype.kind not in "fiu":
            raise ValueError(f"it holds {matrix.dtype}")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"oracle.confusion={path} cannot be read as a matrix of numbers ({' '.join(str(error).split())}): give a "
            ".npy, or a .csv without a heading."
        ) from None
    matrix = matrix.astype(np.float64)
    if matrix.shape != (classes, classes):
        shape = " x ".join(map(str, matrix.shape))
        raise UserError(
            f"oracle.confusion={path} is {shape}, but the cache has {classes} classes: give {classes} rows, one for "
            f"each true class, of {classes} numbers."
        )
    if not np.isfinite(matrix).all() or matrix.min() < 0:
        row = int((~np.isfinite(matrix) | (matrix < 0)).any(1).argmax())
        raise UserError(
            f"oracle.confusion={path}: row {row + 1} holds a number that is no share: give numbers from 0 to 1."
        )
    sums = matrix.sum(1)
    if (off := np.abs(sums - 1) > _SUM).any():
        row = int(off.argmax())
        raise UserError(
            f"oracle.confusion={path}: row {row + 1} sums to {sums[row]:.6g}, and not to 1: divide each row by its sum."
        )
    return matrix / sums[:, None]
