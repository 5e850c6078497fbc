"""Which replicates there are, and which of them are observations of their own.

A replicate is what chance made of it: its initial set and its picks. Ten seeds that begin with the same items and
pick the same items are one curve drawn ten times, and no test may count it as ten. So seeds fall into units: those
with the same initial set, or, where all began with one set, those with the same picks. Runs that differ in their draw
alone (which initial partition, which pool) are one design: its replicates are the seeds of every draw.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

REPLICATE = ["draw", "seed"]
"""What replicates of one strategy are told apart by, and paired with those of another."""


def replicate_names(df: pd.DataFrame) -> list[int | str]:
    """Which replicate each row is of: the seed, or "draw/seed" where runs of several draws are here."""
    seeds: list[int] = df["seed"].tolist()
    if "draw" not in df or df["draw"].nunique() < 2:
        return list(seeds)
    return [f"{draw}/{seed}" for draw, seed in zip(df["draw"], seeds, strict=True)]


def on_one_axis(df: pd.DataFrame) -> pd.DataFrame:
    """Rounds of a design, with numbers of labels that all its draws share.

    A budget that is a share of the pool pays for other numbers where draws of the pool differ in size: there
    `num_labeled` becomes the rounded mean over draws, and the column `paid` keeps what it was. As it is where draws
    agree, and where strategies differ within one draw.
    """
    if "draw" not in df or df["draw"].nunique() < 2:
        return df
    each = df.groupby(["draw", "round"])["num_labeled"].agg(["min", "max"])
    mean = each["min"].groupby("round").mean().round().astype(int)
    same_within = (each["min"] == each["max"]).all()
    if not same_within or each["min"].groupby("round").nunique().max() < 2 or not mean.is_monotonic_increasing:
        return df
    return df.assign(paid=df["num_labeled"], num_labeled=df["round"].map(mean))


def counted(replicates: int, draws: int = 1) -> str:
    """How many there are, in words: "1 seed", "12 seeds", "15 replicates of 5 draws"."""
    if draws > 1:
        return f"{replicates} replicates of {draws} draws"
    return "1 seed" if replicates == 1 else f"{replicates} seeds"


def units(initial: Iterable[str], *picked: Iterable[str]) -> np.ndarray:
    """Unit of each of n seeds, int64 (n,) in [0, number of units).

    initial: the fingerprint of each seed's initial set; picked: for every strategy compared, the fingerprint of each
    seed's picks. From one initial set the strategy with the fewest different picks decides.
    """
    starts = _numbered(initial)
    if starts.max() > 0:
        return starts
    return min(map(_numbered, picked), key=np.max)


def per_unit(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Mean over the seeds of each unit: (n, ...) -> (number of units, ...)."""
    if unit.max() + 1 == len(unit):
        return values
    return np.stack([values[unit == u].mean(axis=0) for u in range(unit.max() + 1)])


def _numbered(names: Iterable[str]) -> np.ndarray:
    """Equal names, equal numbers, in order of appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
