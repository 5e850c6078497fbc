"""Backbones beside one another: runs on several caches of the same items, one strategy's for each."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from alfm.metrics import METRICS, area_under_budget_curve
from alfm.results.matrix import COLUMNS, of_gaps
from alfm.results.pairing import check_metric
from alfm.results.replicates import units
from alfm.results.same_items import Begun

if TYPE_CHECKING:
    import pandas as pd

NEAR = 0.95
"""Of the ceiling: what counts as being there."""


def backbones(runs: Mapping[str, pd.DataFrame], metric: str, ceilings: Mapping[str, float]) -> pd.DataFrame:
    """A row for each backbone, the best area first.

    runs: by backbone, rounds of one strategy (column `strategy`) in one setting; ceilings: what all labels reach, of
    those where it is known. Columns: backbone, strategy, seeds, labels (the most), area (under the budget curve over
    rounds) and final, means over seeds in the metric's unit; ceiling; share: of the ceiling after the last round;
    near: labels after which the mean curve is at `NEAR` of the ceiling; all NaN without one, or with a metric of which
    less is better; near also where that was not reached.
    """
    import pandas as pd

    rows = []
    for name, df in runs.items():
        check_metric(metric, df)
        ends = df.sort_values("num_labeled").drop_duplicates(["draw", "seed"], keep="last")
        ceiling = ceilings.get(name, np.nan) if METRICS[metric].higher_is_better else np.nan
        curve = df.groupby("num_labeled")[metric].mean()
        there = curve.index[curve >= NEAR * ceiling]
        final = float(ends[metric].mean())
        rows.append(
            {
                "backbone": name, "strategy": str(df["strategy"].iloc[0]), "seeds": len(ends),
                "labels": int(df["num_labeled"].max()), "area": float(np.mean([*_areas(df, metric).values()])),
                "final": final, "ceiling": ceiling, "share": final / ceiling,
                "near": float(there[0]) if len(there) else np.nan,
            }
        )  # fmt: skip
    ascending = not METRICS[metric].higher_is_better
    return pd.DataFrame(rows).sort_values("area", ascending=ascending, kind="stable", ignore_index=True)


def between_backbones(runs: Mapping[str, pd.DataFrame], metric: str, begun: Mapping[str, Begun | None]) -> pd.DataFrame:
    """Every two backbones, both ways, as `comparison_matrix` has strategies, and paired (bool).

    begun: which items each seed began with, None where that is not known. Seeds that began with the same items on both
    are paired; where there is none, the difference is one of means, units 0 and the rest NaN.
    """
    import pandas as pd

    areas = {name: _areas(df, metric) for name, df in runs.items()}
    ends = {name: _last(df) for name, df in runs.items()}
    found = []
    for a, b in combinations(runs, 2):
        first, second = begun.get(a) or {}, begun.get(b) or {}
        common = [key for key in areas[a] if key in areas[b] and key in first and first[key] == second.get(key)]
        common = [key for key in common if ends[a][key][0] == ends[b][key][0]]
        if common:
            starts = [repr(sorted(first[key])) for key in common]
            unit = units(starts, *([ends[name][key][1] for key in common] for name in (a, b)))
            gap = METRICS[metric].sign * np.array([areas[a][key] - areas[b][key] for key in common])
            found.append(of_gaps([(a, b, gap, unit)]).assign(paired=True))
        else:
            by_means = METRICS[metric].sign * float(np.mean([*areas[a].values()]) - np.mean([*areas[b].values()]))
            for one, other, by in ((a, b, 100 * by_means), (b, a, -100 * by_means)):
                row = {**dict.fromkeys(COLUMNS, np.nan), "a": one, "b": other, "units": 0, "difference": by}
                found.append(pd.DataFrame([row]).assign(paired=False))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=[*COLUMNS, "paired"])


def _areas(df: pd.DataFrame, metric: str) -> dict[tuple[str, int], float]:
    """(draw, seed) -> area under the budget curve over rounds, in the metric's unit."""
    found = {}
    for key, run in df.sort_values("num_labeled").groupby(["draw", "seed"], sort=False):
        found[key] = float(area_under_budget_curve(run[metric].to_numpy(), run["num_labeled"].to_numpy(), "rounds"))
    return found


def _last(df: pd.DataFrame) -> dict[tuple[str, int], tuple[tuple[int, ...], str]]:
    """(draw, seed) -> labels of every round, and the fingerprint of all picks."""
    found = {}
    for key, run in df.sort_values("num_labeled").groupby(["draw", "seed"], sort=False):
        found[key] = tuple(run["num_labeled"].tolist()), str(run["picked"].iloc[-1])
    return found
