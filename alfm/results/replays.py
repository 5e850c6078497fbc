"""Which runs repeat another run's picks, and which run that is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alfm.metrics import METRICS
from alfm.results.pairing import check_metric
from alfm.results.replicates import REPLICATE, units
from alfm.results.statistics import mean_interval

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["labels", "seeds", "original", "replayed", "difference", "low", "high"]


@dataclass(frozen=True)
class Replayed:
    """What a replay's configuration says of the run that it replays; run: the name of its folder."""

    dataset: str
    model: str
    run: str


def replayed(query_options: str) -> Replayed | None:
    """Of a run with these `query_options` (a column of `load_runs`); None for one that picks for itself."""
    node = json.loads(query_options or "{}")
    of: Any = node.get("of") if isinstance(node, Mapping) else None
    if not isinstance(of, Mapping) or not {"dataset", "model", "run"} <= of.keys():
        return None
    return Replayed(*(str(of[name]) for name in ("dataset", "model", "run")))


def beside_original(original: pd.DataFrame, replay: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A replay beside its original at each quarter of the labels, seed by seed; without rows where no seed is in both.

    original, replay: rounds of ONE run each. Columns: labels, seeds, original, replayed (means, in the metric's unit),
    difference (how much better the replay is, in points) with its paired 95 % t-interval, NaN for one unit.
    """
    import pandas as pd

    check_metric(metric, original)
    keys = [*(name for name in REPLICATE if name in original), "num_labeled"]
    both = original.merge(replay, on=keys, suffixes=("", " again")).dropna(subset=[metric, f"{metric} again"])
    rows = []
    if len(both):
        budgets = np.sort(both["num_labeled"].unique())
        quarters = dict.fromkeys(int(budgets[np.searchsorted(budgets, budgets[-1] * q / 4)]) for q in (1, 2, 3, 4))
        for labels in quarters:
            there = both[both["num_labeled"] == labels]
            first, second = (there[name].to_numpy(np.float64) for name in (metric, f"{metric} again"))
            unit = units(there["initial"], there["picked"])
            gap, half = mean_interval(100 * METRICS[metric].sign * (second - first), unit=unit)
            ends = float(gap - half), float(gap + half)
            rows.append((labels, len(there), float(first.mean()), float(second.mean()), float(gap), *ends))
    return pd.DataFrame(rows, columns=COLUMNS)
