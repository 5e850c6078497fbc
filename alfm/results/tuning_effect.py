"""What tuning changed: which options heads were given, and what it gained over runs that differ in nothing else."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def options_chosen(tuning: pd.DataFrame) -> pd.DataFrame:
    """From `load_tuning`: a row for each run, round and option [dataset, model, query_strategy, run, round, option,
    seeds, kept, least, median, most].

    kept: share of the seeds whose head kept its default, for whatever reason; least, median, most: of the values.
    """
    keys = ["dataset", "model", "query_strategy", "run", "round", "option"]
    kept = tuning["reason"].str.startswith("kept")
    grouped = tuning.assign(kept=kept.astype(float)).groupby(keys, sort=False)
    return grouped.agg(
        seeds=("seed", "nunique"), kept=("kept", "mean"), least=("value", "min"), median=("value", "median"),
        most=("value", "max"),
    ).reset_index()  # fmt: skip


def gain_of_tuning(runs: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """From `load_runs`: a row for each tuned run that has an untuned twin, which differs in nothing else
    [dataset, model, query_strategy, run, twin, seeds, gain, low, high].

    gain: mean difference of the areas over rounds, tuned less untuned, in points, paired by draw and seed; low, high:
    its 95 % t-interval, NaN for fewer than two seeds. Rounds that one of the two lacks are left out.
    """
    import pandas as pd
    from scipy.stats import t

    order = ["dataset", "model", "query_strategy", "run", "twin", "seeds", "gain", "low", "high"]
    if runs.empty:
        return pd.DataFrame(columns=order)
    bare = runs["conditions"].map(_without_tuning)
    same = ["dataset", "model", "cache", "query_strategy", "init_strategy", "query_options", "init_options", "stopping"]
    same = [name for name in (*same, "behaviour") if name in runs]
    draw = runs.get("draw", "")
    frame = runs.assign(_bare=bare.map(lambda both: both[0]), _tuned=bare.map(lambda both: both[1]), draw=draw)
    rows = []
    for _, group in frame.groupby([*same, "_bare"], sort=False, dropna=False):
        twins = group[~group["_tuned"]]
        for (run, _), own in group[group["_tuned"]].groupby(["run", "path"], sort=False):
            both = own.merge(twins, on=["draw", "seed", "round"], suffixes=("", "_twin"))
            if both.empty:
                continue
            both["_gain"] = 100 * (both[metric] - both[f"{metric}_twin"])
            gains = both.groupby(["draw", "seed"])["_gain"].mean().to_numpy()
            n, mean = len(gains), float(gains.mean())
            half = float(t.ppf(0.975, n - 1) * np.std(gains, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
            first = own.iloc[0]
            names = [first[name] for name in ("dataset", "model", "query_strategy")]
            twin = ", ".join(dict.fromkeys(both["run_twin"]))
            rows.append([*names, run, twin, n, mean, mean - half, mean + half])
    return pd.DataFrame(rows, columns=order)


def _without_tuning(conditions: str) -> tuple[str, bool]:
    """Conditions as if nothing had been tuned, and whether something was."""
    known = json.loads(conditions)
    tuned = known.pop("tune", None) is not None
    return json.dumps(known, sort_keys=True), tuned
