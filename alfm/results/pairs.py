"""Two strategies at a time: over what these two have in common, so that nobody else changes what is said of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from alfm.results.pairing import Curves, paired_curves
from alfm.results.replicates import REPLICATE, replicate_names, units

if TYPE_CHECKING:
    import pandas as pd


def gap(curves: Curves, a: str, b: str) -> tuple[np.ndarray, np.ndarray]:
    """By how much a's area under the budget curve over rounds is better than b's, float64 (n,) in the metric's unit;
    and each seed's unit by what these two picked, int64 (n,)."""
    areas = curves.sign * curves.areas()
    first, second = curves.strategies.index(a), curves.strategies.index(b)
    return areas[first] - areas[second], units_of_pair(curves, a, b)


def units_of_pair(curves: Curves, a: str, b: str, rounds: int | None = None) -> np.ndarray:
    """`Curves.units` by what these two picked, whoever else is there: int64 (n,)."""
    at = [curves.strategies.index(a), curves.strategies.index(b)]
    return units(curves.initial, *curves.picked[at, :, (rounds or len(curves.num_labeled)) - 1])


def curves_of(
    df: pd.DataFrame, pairs: Iterable[tuple[str, str]], metric: str, label: str
) -> Iterator[tuple[str, str, Curves]]:
    """For each pair of strategies curves that hold both, over exactly the replicates and rounds that both have.

    `df` as for `paired_curves`, which says what it refuses. Strategies that have the same are paired all at once. Two
    without a replicate in common are passed over; UserError where all pairs are such.
    """
    pairs = list(pairs)
    places = df[[label, "round", *(name for name in REPLICATE if name in df)]]
    grids = {name: frozenset(own.drop(columns=label).itertuples(index=False)) for name, own in places.groupby(label)}
    alike: dict[frozenset[tuple[object, ...]], Curves] = {}
    owned = {name: set(replicate_names(own)) for name, own in df.groupby(label)}
    for a, b in [pair for pair in pairs if owned[pair[0]] & owned[pair[1]]] or pairs:
        grid = grids[a]
        if grid != grids[b]:
            yield a, b, paired_curves(df[df[label].isin([a, b])], metric, label)
            continue
        if grid not in alike:
            alike[grid] = paired_curves(
                df[df[label].isin([name for name in grids if grids[name] == grid])], metric, label
            )
        yield a, b, alike[grid]
