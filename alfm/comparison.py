"""Which runs may be compared with one another, and their numbers side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alfm.metrics import LOWER_IS_BETTER, area_under_budget_curve
from alfm.statistics import SETTING

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "random"


@dataclass(frozen=True)
class Setting:
    """Runs that may be compared: one data set, model, head and budget.

    `shared`: those with the cold start that most strategies have; `own`: the rest. Both carry the column `strategy`,
    which tells runs apart.
    """

    names: dict[str, str]
    start: str
    shared: pd.DataFrame
    own: pd.DataFrame

    @property
    def title(self) -> str:
        """For example "digits / pixels, logistic head, 1 + 1 labels per class a round, 20 rounds"."""
        names = self.names
        words = [" / ".join(filter(None, (names["dataset"], names["model"])))]
        words += [f"{names['classifier']} head" if names["classifier"] else "", names["budget"]]
        return ", ".join(filter(None, words))

    @property
    def start_title(self) -> str:
        """The title with the shared cold start named."""
        return ", ".join(filter(None, (self.title, f"{self.start} start" if self.start else "")))


def settings_of(df: pd.DataFrame) -> Iterator[Setting]:
    """Split what `load_runs` returns (or `simulate`, with a column `query_strategy` added) into settings."""
    missing = [name for name in (*SETTING, "init_strategy") if name not in df]
    df = df.assign(**dict.fromkeys(missing, ""))
    if "query_strategy" not in df:
        df = df.assign(query_strategy="strategy")
    for key, group in df.groupby(SETTING, sort=False):
        several = group.groupby(["query_strategy", "init_strategy"])["run"].nunique() if "run" in group else {}
        labels = group["query_strategy"].astype(object).copy()
        for (strategy, start), count in dict(several).items():
            if count > 1:  # the same strategy with other options: the folder's name tells which
                twins = (group["query_strategy"] == strategy) & (group["init_strategy"] == start)
                labels[twins] = group.loc[twins, "run"]
        group = group.assign(strategy=labels)
        by_start = group.groupby("init_strategy")["strategy"]
        rank = {s: (names.nunique(), REFERENCE in set(names)) for s, names in by_start}
        start = max(rank, key=rank.__getitem__)
        shared = group["init_strategy"] == start
        yield Setting(dict(zip(SETTING, map(str, key), strict=True)), str(start), group[shared], group[~shared])


def summary(df: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """One row per strategy of a setting: numbers, unrounded.

    Columns: strategy, init_strategy, seeds, then mean and std over seeds (NaN for one seed) of the metric at each
    quarter of the budget (`after <n>`: the first round with at least that quarter of the final labels), of the area
    under the budget curve over rounds and over labels; fit, query and eval seconds of all seeds together, and the
    peak memory in bytes.
    """
    import pandas as pd

    final = int(df["num_labeled"].max())
    budgets = np.sort(df["num_labeled"].unique())
    quarters = dict.fromkeys(int(budgets[np.searchsorted(budgets, final * q / 4)]) for q in (1, 2, 3, 4))
    rows = []
    for (strategy, start), run in df.groupby(["strategy", "init_strategy"], sort=False):
        curves = [one.sort_values("num_labeled") for _, one in run.groupby("seed")]
        row = {"strategy": strategy, "init_strategy": start, "seeds": len(curves)}
        columns = {f"after {n}": [v for c in curves for v in c.loc[c["num_labeled"] == n, metric]] for n in quarters}
        for over in ("rounds", "labels"):
            columns[f"AUBC over {over}"] = [
                area_under_budget_curve(c[metric].to_numpy(), c["num_labeled"].to_numpy(), over) for c in curves
            ]
        for name, values in columns.items():
            row[f"{name} mean"] = np.mean(values) if values else np.nan
            row[f"{name} std"] = np.std(values, ddof=1) if len(values) > 1 else np.nan
        for part in ("fit", "query", "eval"):  # each row holds the wall time of its whole batch of replicates
            row[f"{part} seconds"] = float((run[f"{part}_seconds"] / run["num_replicates"]).sum())
        row["peak memory bytes"] = int(run["peak_memory_bytes"].max())
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values("AUBC over rounds mean", ascending=metric in LOWER_IS_BETTER, kind="stable")
