"""Which replicates may be compared: those that began with the same items under the same conditions, one by one, the
same seed of the same draw.

A difference in starting sets or in heads is not a difference in strategies. What cannot be paired is refused in a
sentence that names it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from alfm.errors import UserError, nearest_names
from alfm.metrics import METRICS, areas_over_rounds
from alfm.results.conditions import NOT_STOPPED, differing
from alfm.results.replicates import on_one_axis, replicate_names, units

if TYPE_CHECKING:
    import pandas as pd

# replicates with the same values here saw the same data under the same rules: all that enters a run's hash but the
# strategies under test
SETTING = ["dataset", "model", "cache", "classifier", "budget", "conditions"]
COLD_START = ["init_strategy", "init_options"]
_NLL_AGREES = 1e-3
_MOST_ITEMS = 10_000_000
SAME = 1e-12  # accuracies are counts over test sizes: a difference this small is rounding


@dataclass(frozen=True)
class Curves:
    """Learning curves of S strategies over the same n replicates and T rounds, beginning with the same items each.

    `seeds`: one entry per replicate, its seed, or where there are several draws "draw/seed"; `values` float64 (S, n, T)
    in the metric's unit; `num_labeled` int64 (T,); `initial` str (n,) and `picked` str (S, n, T): fingerprints of the
    initial set, and of the picks up to each round; `left_out`: draws that not all strategies have -> which lack them.
    """

    strategies: list[str]
    seeds: list[int | str]
    num_labeled: np.ndarray
    values: np.ndarray
    metric: str
    initial: np.ndarray
    picked: np.ndarray
    left_out: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def sign(self) -> int:
        """1 where a higher value is better, else -1."""
        return METRICS[self.metric].sign

    @property
    def sample_size(self) -> int:
        """How many units a comparison of all these strategies counts: the seeds, less those that repeat others."""
        return int(self.units().max()) + 1

    def of(self, strategy: str) -> np.ndarray:
        """One strategy's values, float64 (n, T). UserError for a strategy that is not here."""
        if strategy not in self.strategies:
            raise UserError(f"no runs of {strategy!r} to compare with: {nearest_names(strategy, self.strategies)}")
        return self.values[self.strategies.index(strategy)]

    def areas(self) -> np.ndarray:
        """Area under the budget curve over rounds, float64 (S, n)."""
        return areas_over_rounds(self.values)

    def units(self, rounds: int | None = None) -> np.ndarray:
        """Unit of each seed, int64 (n,), by what was picked in the first `rounds` rounds, or in all."""
        last = (rounds or len(self.num_labeled)) - 1
        return units(self.initial, *self.picked[:, :, last])


def check_metric(metric: str, df: pd.DataFrame) -> None:
    """UserError with the nearest names for a metric that is not known, or that none of these runs has measured."""
    if metric not in METRICS:
        raise UserError(f"no metric {metric!r}: {nearest_names(metric, list(METRICS))}")
    if metric not in df or df[metric].isna().all():
        there = ", ".join(name for name in METRICS if name in df and df[name].notna().any())
        raise UserError(f"these runs have not measured {metric}; choose another metric ({there})")


def paired_curves(df: pd.DataFrame, metric: str = "accuracy", label: str = "query_strategy") -> Curves:
    """Pair the runs of one setting (`SETTING`) by draw and seed.

    `df` as from `alfm.results.load_runs`; `label`: the column that tells the strategies apart. Seeds and draws that not
    all strategies have are left out, and so are rounds beyond the shortest replicate.

    Raises UserError for an unknown metric, NaN values, several settings at once, runs that stopping rules may end,
    runs with different options or two runs under one label, no common seed, for replicates of one seed that began
    with different items or label different numbers of items, and for those that began with the same items and yet
    measured something else.
    """
    check_metric(metric, df)
    for column in ("initial", "picked"):
        if column not in df or df[column].isna().any():
            raise UserError(f"runs without the column `{column}` cannot be paired; load them with alfm.load_runs")
    _one_setting(df)
    _whole_runs(df, label)
    _one_run_each(df, label)
    strategies = list(dict.fromkeys(df[label]))
    df = on_one_axis(df).assign(replicate=replicate_names(df))
    owners = df.groupby("replicate")[label].nunique()
    seeds = [one for one in dict.fromkeys(df["replicate"].tolist()) if owners[one] == len(strategies)]
    left_out = _draws_that_some_lack(df, label, strategies)
    if not seeds:
        of_draw, and_draws = (" of one draw", f" and draws (missing: {lacking(left_out)})") if left_out else ("", "")
        names = ", ".join(strategies)
        raise UserError(f"no seed{of_draw} is common to {names}; run them with the same seeds{and_draws}")
    df = df[df["replicate"].isin(seeds)].sort_values("round", kind="stable")
    _one_start_each(df, label)
    _same_beginnings(df, label)
    return replace(_curves(df, metric, label, strategies, seeds), left_out=left_out)


def _draws_that_some_lack(df: pd.DataFrame, label: str, strategies: list[str]) -> dict[str, list[str]]:
    """Where there are several draws: those that not all strategies have, and which of them lack each."""
    if "draw" not in df or df["draw"].nunique() < 2:
        return {}
    owners = {str(draw): set(of) for draw, of in df.groupby("draw", sort=False)[label]}
    absent = {draw: [name for name in strategies if name not in own] for draw, own in owners.items()}
    return {draw: names for draw, names in absent.items() if names}


def lacking(left_out: Mapping[str, list[str]]) -> str:
    """`Curves.left_out` in words: "partition=2: margins, typiclust"."""
    return "; ".join(f"{draw}: {', '.join(names)}" for draw, names in left_out.items())


def _curves(df: pd.DataFrame, metric: str, label: str, strategies: list[str], seeds: list[int | str]) -> Curves:
    """Rounds of replicates that can be paired, up to the end of the shortest."""
    told = df[list(dict.fromkeys([label, "replicate", "num_labeled", metric, "initial", "picked"]))]
    cells = {key: cell for key, cell in told.groupby([label, "replicate"])}
    rounds = min(len(cell) for cell in cells.values())
    budget, first = cells[strategies[0], seeds[0]]["num_labeled"].to_numpy()[:rounds], strategies[0]
    values = np.empty((len(strategies), len(seeds), rounds))
    picked = np.empty(values.shape, dtype=object)
    for i, seed in enumerate(seeds):
        own = cells[first, seed]["num_labeled"].to_numpy()[:rounds]
        for s, strategy in enumerate(strategies):
            cell = cells[strategy, seed]
            if (cell["num_labeled"].to_numpy()[:rounds] != own).any():
                raise UserError(f"{strategy} and {first} label different numbers of items: same budget=, please")
            values[s, i] = cell[metric].to_numpy()[:rounds]
            picked[s, i] = cell["picked"].to_numpy()[:rounds]
        if (own != budget).any():
            raise UserError(
                f"seeds {seeds[0]} and {seed} of {first} label different numbers of items: same budget=, please"
            )
    if np.isnan(values).any():
        raise UserError(f"{metric} is NaN in some rounds, so the runs cannot be compared by it; choose another metric")
    initial = np.array([cells[strategies[0], seed]["initial"].iloc[0] for seed in seeds], dtype=object)
    return Curves(strategies, seeds, budget.astype(np.int64), values, metric, initial, picked)


def _one_setting(df: pd.DataFrame) -> None:
    """UserError that shows by which keys the runs differ in what should be equal."""
    for column in SETTING:
        if column not in df or df[column].nunique(dropna=False) < 2:
            continue
        keys = {column: list(map(str, df[column].unique()))}
        if column == "conditions":
            keys = differing(df[column].fillna(""))
        words = "; ".join(f"{key} ({' / '.join(values)})" for key, values in keys.items())
        raise UserError(f"runs of different {words} cannot be paired; compare them one at a time")


def _whole_runs(df: pd.DataFrame, label: str) -> None:
    """UserError where a stopping rule may have ended runs: the others' curves are not cut to theirs."""
    if "stopping" in df and (ended := ~df["stopping"].fillna("").isin(["", NOT_STOPPED])).any():
        names = ", ".join(dict.fromkeys(map(str, df.loc[ended, label])))
        raise UserError(
            f"stopping rules may have ended {names} early, so that it is compared at its stop and not by its curve: "
            "leave it out, or run it with stopping.mode=observe"
        )


def _one_run_each(df: pd.DataFrame, label: str) -> None:
    """UserError where one label stands for several runs, or for several sets of options."""
    for name, group in df.groupby(label, sort=False):
        for column in ("query_strategy", "query_options", "behaviour"):
            if column in group and group[column].nunique(dropna=False) > 1:
                texts = group[column].fillna("")
                keys = {column: list(map(str, texts.unique()))} if column == "query_strategy" else differing(texts)
                words = "; ".join(f"{key}: {' / '.join(values)}" for key, values in keys.items())
                raise UserError(f"{name!r} stands for runs that differ ({words}); tell them apart with label='run'")
        if group.assign(replicate=replicate_names(group)).duplicated(["replicate", "round"]).any():
            raise UserError(f"there are several runs of {name!r}; tell them apart with label='run' or label='path'")


def _one_start_each(df: pd.DataFrame, label: str) -> None:
    """UserError where replicates of one seed and draw began with different items."""
    for seed, group in df.groupby("replicate"):
        if group["initial"].nunique() > 1:
            first = group.groupby("initial")[label].first()
            raise UserError(
                f"{first.iloc[0]} and {first.iloc[1]} began seed {seed} with different items and cannot be paired; "
                "run both with the same init_strategy"
            )


def _same_beginnings(df: pd.DataFrame, label: str) -> None:
    """UserError where runs that began with the same items measured something else after them.

    The same items of the same cache under the same head give the same first round, up to what other devices and
    versions do to the last digits: one test item in accuracy, 1e-3 in nll.
    """
    first = df.groupby([label, "replicate"], sort=False).head(1).reset_index(drop=True)
    tolerances = {"nll": _NLL_AGREES}
    if "accuracy" in df:
        tolerances = {"accuracy": 1 / _test_items(df["accuracy"]), **tolerances}
    for seed, group in first.groupby("replicate", sort=False):
        for metric, tolerance in tolerances.items():
            if metric not in group:
                continue
            values = group[metric]
            if values.max() - values.min() > tolerance + SAME:
                low, high = group.loc[values.idxmin()], group.loc[values.idxmax()]
                who = " and ".join(f"{row[label]}{_folder(row, label)}" for row in (low, high))
                raise UserError(
                    f"{who} began seed {seed} with the same items, but their first rounds differ ({metric} "
                    f"{low[metric]:.4f} and {high[metric]:.4f}), so something else than the strategy differs; run both "
                    "again in one environment with force=true"
                )


def _folder(row: pd.Series, label: str) -> str:
    """Where a run lies, unless its label is that already."""
    return f" ({row['run']})" if "run" in row and row["run"] != row[label] else ""


def _test_items(accuracies: Iterable[float]) -> float:
    """Size of the test split, which accuracies are counts over: their common denominator, or 1000 if they have none."""
    size = 1
    for value in {float(a) for a in accuracies if a == a}:
        size = math.lcm(size, Fraction(value).limit_denominator(_MOST_ITEMS).denominator)
        if size > _MOST_ITEMS:
            return 1000
    return size
