"""Which of a cache's items a simulated pool holds: rare and frequent classes, and items that are in it more than once.

A pool is drawn by a seed of its own, so that all replicates of a run learn from the same one. Items that it leaves out
are in no feature, no norm and no neighbourhood. A copy of an item has a number of its own: that of the item plus the
number of items of the split, once for the first copy, twice for the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le

from alfm.errors import UserError
from alfm.options import Seed, checked
from alfm.streams import stream


@dataclass(frozen=True)
@checked
class PoolOptions:
    """`pool.`: what is made of the labelled items of a split.

    imbalance: the k-th of C classes, in an order that `seed` draws, has a share of what the first one has:
    `exponential` ratio^(-k / (C - 1)) (Cao et al. 2019, arXiv 1906.07413), `power_law` (k + 1)^-exponent; a ratio, the
    largest class over the smallest, stands for the exponent ln(ratio) / ln(C). The pool is the largest with that
    profile that the classes have items for, and every class keeps at least one. duplicates: copies, as a share of the
    pool.

    Raises UserError for options that contradict each other.
    """

    imbalance: Literal["exponential", "power_law"] | None = None
    ratio: Annotated[float, Ge(1), Le(10**9)] | None = None
    exponent: Annotated[float, Ge(0), Le(100)] | None = None
    seed: Seed = 0
    duplicates: Annotated[float, Ge(0), Le(100)] = 0.0

    def __post_init__(self) -> None:
        if self.imbalance is None:
            for name, value in (("ratio", self.ratio), ("exponent", self.exponent)):
                if value is not None:
                    raise UserError(
                        f"pool.{name}={value:g} says how rare classes are, of a pool that is left as it is: add "
                        f"pool.imbalance={'exponential or pool.imbalance=' if name == 'ratio' else ''}power_law."
                    )
        elif self.imbalance == "exponential" and self.exponent is not None:
            raise UserError(
                f"pool.exponent={self.exponent:g} is a power law's, and pool.imbalance=exponential: give pool.ratio=, "
                "the largest class over the smallest, or pool.imbalance=power_law."
            )
        elif self.ratio is not None and self.exponent is not None:
            raise UserError(
                f"pool.ratio={self.ratio:g} and pool.exponent={self.exponent:g} say the same thing twice: leave one out"
                "."
            )
        elif self.ratio is None and self.exponent is None:
            raise UserError(
                f"pool.imbalance={self.imbalance}: add pool.ratio=, the largest class over the smallest"
                f"{', or pool.exponent=' if self.imbalance == 'power_law' else ''}, such as pool.ratio=100."
            )
        if self.seed and self.as_it_is:
            raise UserError(
                f"pool.seed={self.seed} draws nothing, so that pools of other seeds are this one: add pool.imbalance= "
                "or pool.duplicates=, or leave it out."
            )

    @property
    def as_it_is(self) -> bool:
        """Is the pool what the cache holds?"""
        return self.imbalance is None and not self.duplicates

    def shares(self, classes: int) -> np.ndarray:
        """What each class has, from the most frequent to the rarest, as a share of the first: float64 (classes,)."""
        k = np.arange(classes)
        if self.imbalance == "exponential":
            return float(self.ratio or 1) ** (-k / max(classes - 1, 1))
        exponent = np.log(self.ratio) / np.log(classes) if self.ratio is not None else self.exponent
        return (k + 1.0) ** -float(exponent or 0)


@dataclass(frozen=True)
class Made:
    """A pool as it was made of items whose labels are known.

    numbers int64 (N,), ascending: cache rows, and beyond the `size` rows of the split copies of them. most, least:
    items of the largest and of the smallest class; left_out: items of the cache that are not in it; copies: items that
    are in it again; lone: classes that keep one item where the profile has none for them.
    """

    numbers: np.ndarray
    size: int
    most: int
    least: int
    left_out: int
    copies: int
    lone: int

    @property
    def rows(self) -> np.ndarray:
        """The cache row of every item, int64 (N,)."""
        return self.numbers % self.size

    @property
    def facts(self) -> dict[str, int]:
        """What a run says of its pool."""
        return {
            "items": len(self.numbers), "left_out": self.left_out, "copies": self.copies, "most": self.most,
            "least": self.least, "lone": self.lone,
        }  # fmt: skip


def made_pool(rows: np.ndarray, labels: np.ndarray, size: int, options: PoolOptions) -> Made:
    """The pool of labelled items: rows int64 (n,), ascending, of a split with `size` of them, and their labels."""
    keep, lone = np.arange(len(rows)), 0
    if options.imbalance is not None:
        keep, lone = _imbalanced(labels, options)
    counts = np.unique(labels[keep], return_counts=True)[1]
    numbers = rows[keep]
    copies = _copied(numbers, options)
    again = [one + size * (k + 1) for k, one in enumerate(copies)]
    return Made(
        np.concatenate([numbers, *again]), size, int(counts.max()), int(counts.min()), len(rows) - len(keep),
        sum(map(len, copies)), lone,
    )  # fmt: skip


def _imbalanced(labels: np.ndarray, options: PoolOptions) -> tuple[np.ndarray, int]:
    """Places in `labels` of the items that are kept, ascending, and how many classes keep one against the profile.

    A weaker imbalance of the same seed keeps the same items and more.
    """
    classes, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shares = np.empty(len(classes))
    shares[stream(options.seed, 0, "pool classes").permutation(len(classes))] = options.shares(len(classes))
    with np.errstate(divide="ignore", over="ignore"):
        most = (counts / shares).min()  # a class bounds the pool by what it has, the rarest the least
    wanted = np.rint(most * shares).astype(np.int64)
    shuffled = stream(options.seed, 0, "pool items").permutation(len(labels))
    order = shuffled[np.argsort(place[shuffled], kind="stable")]  # class by class, each in random order
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    keep = order[rank < np.maximum(wanted, 1)[place[order]]]
    return np.sort(keep), int((wanted < 1).sum())


def _copied(numbers: np.ndarray, options: PoolOptions) -> list[np.ndarray]:
    """Of which items there is a first copy, a second one, ..., each ascending."""
    whole, part = divmod(round(options.duplicates * len(numbers)), len(numbers))
    copies = [numbers] * whole
    if part:
        drawn = stream(options.seed, 0, "pool copies").choice(len(numbers), part, replace=False)
        copies.append(numbers[np.sort(drawn)])
    return copies
