"""One number per strategy over several caches: how much it gains over random, and how often.

Agarwal et al. 2021 (arXiv 2108.13264): the interquartile mean over all seeds of all caches, here of the GAIN over
random, since accuracies of different data sets have no common scale; the probability of improvement over random; both
with intervals from a stratified bootstrap, which draws seeds within each cache. Strategies are paired by seed, so a
draw takes the same seeds for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from alfm.errors import UserError
from alfm.results.pairing import SAME, Curves
from alfm.results.replicates import per_unit
from alfm.results.statistics import MIN_SEEDS

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["strategy", "caches", "iqm", "low", "high", "improvement", "improvement_low", "improvement_high"]


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean of what lies between the lowest and the highest quarter, over the last axis: float64 (..., n) -> (...).

    Of n values n // 4 are cut off at either end.
    """
    scores = np.sort(scores, axis=-1)
    cut = scores.shape[-1] // 4
    return scores[..., cut : scores.shape[-1] - cut].mean(axis=-1)


def probability_of_improvement(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """How probable it is that a run of the first is better than one of the second: per cache the share of all pairs of
    runs (n,) and (m,) in which it is, ties half, and the mean over caches."""
    return float(np.mean([_wins(x, y).mean() for x, y in zip(first, second, strict=True)]))


def aggregate(
    curves_by_cache: Mapping[str, Curves], reference: str = "random", draws: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Every strategy that all caches have, against the reference, the best first.

    Columns: strategy, caches (how many), iqm (of the gain in area under the budget curve over rounds, in points, over
    the units of all caches: one with more of them counts more), improvement (probability of improvement over the
    reference), and the 95 % percentile interval of each from so many `draws`; NaN where a cache has fewer than
    `MIN_SEEDS` units, since few seeds drawn again and again look surer than they are.

    Raises UserError where a cache has no runs of the reference, or no strategy is in all of them.
    """
    import pandas as pd

    caches = list(curves_by_cache.values())
    for curves in caches:
        curves.of(reference)
    shared = [name for name in caches[0].strategies if all(name in one.strategies for one in caches)] if caches else []
    if len(shared) < 2:
        raise UserError(f"no strategy but {reference} has runs on all {len(caches)} caches; run one on all of them")
    areas = [_areas(curves, shared) for curves in caches]
    base = shared.index(reference)
    chosen = [_resampled(own.shape[1], draws, seed, i) for i, own in enumerate(areas)]
    told = min(own.shape[1] for own in areas) >= MIN_SEEDS
    rows = []
    for i, name in enumerate(shared):
        if i == base:
            continue
        gains = [own[i] - own[base] for own in areas]
        iqm = interquartile_mean(np.concatenate(gains))
        wins = [_wins(own[i], own[base]) for own in areas]
        improvement = float(np.mean([one.mean() for one in wins]))
        ends = [np.nan] * 4
        if told:
            pooled = np.concatenate([gain[at] for gain, at in zip(gains, chosen, strict=True)], axis=1)
            rates = np.mean([_drawn_pairs(one, at) for one, at in zip(wins, chosen, strict=True)], axis=0)
            ends = [*_ends(interquartile_mean(pooled)), *np.clip(_ends(rates), 0.0, 1.0)]
        rows.append((name, len(caches), 100 * float(iqm), 100 * ends[0], 100 * ends[1], improvement, *ends[2:]))
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.sort_values("iqm", ascending=False, kind="stable", ignore_index=True)


def _areas(curves: Curves, strategies: Sequence[str]) -> np.ndarray:
    """Of each unit, higher is better: float64 (S, units)."""
    unit, areas = curves.units(), curves.sign * curves.areas()
    return np.stack([per_unit(areas[curves.strategies.index(name)], unit) for name in strategies])


def _wins(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """1 where a run of x (n,) is better than one of y (m,), 0.5 where neither is: float64 (n, m)."""
    gap = np.subtract.outer(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
    return np.where(np.abs(gap) < SAME, 0.5, gap > 0)


def _resampled(n: int, draws: int, seed: int, cache: int) -> np.ndarray:
    """Which of a cache's n units each draw takes, int64 (draws, n)."""
    return np.random.default_rng([seed, cache]).integers(n, size=(draws, n))


def _drawn_pairs(wins: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Mean of `wins` (n, n) over the pairs of units that each draw (draws, n) took: (draws,).

    A seed that is drawn twice meets itself more often than one of n seeds does, which is no news of the strategies:
    draws are a mean of (diagonal - all) / n too high, and that is taken off.
    """
    n = len(wins)
    counts = np.zeros((len(chosen), n))
    np.add.at(counts, (np.arange(len(chosen))[:, None], chosen), 1.0)
    drawn = np.einsum("dn,nm,dm->d", counts, wins, counts, optimize=True) / n**2
    return drawn - (np.diagonal(wins).mean() - wins.mean()) / n


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
