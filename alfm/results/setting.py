"""Which runs may be compared with one another, and their numbers side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alfm.metrics import METRICS, area_under_budget_curve
from alfm.results.conditions import NOT_STOPPED, differing, telling_words
from alfm.results.pairing import SETTING, check_metric
from alfm.results.pool_words import pool_words
from alfm.results.replicates import REPLICATE, on_one_axis, per_unit, units

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "random"
_IN_WORDS = ("budget.", "iterations.", "pool.", "oracle.")
"""Conditions that the column `budget` and `pool_words` say already."""


@dataclass(frozen=True)
class Setting:
    """Runs that may be compared: one data set, model, cache, head and budget, and all else that enters a run's hash.

    `names`: the values of `SETTING`; `head`, `rest`: the options of the head and the other conditions in which the
    report's settings differ, "strength=10", after what was made of pool and annotator (`pool_words`); `shared`: the
    runs with the cold start that most strategies have; `own`: those with another; `stopped`: those that stopping rules
    may end, which no curve is cut to. All carry the columns `strategy`, which tells runs apart by the options that
    differ, and `draw`; `paid` where draws pay for different numbers of labels (`on_one_axis`).
    """

    names: dict[str, str]
    head: str
    rest: str
    start: str
    shared: pd.DataFrame
    own: pd.DataFrame
    stopped: pd.DataFrame

    @property
    def title(self) -> str:
        """For example "digits / pixels, logistic head, 1 + 1 labels per class a round, 20 rounds"."""
        return ", ".join(filter(None, (self.data, self.rules)))

    @property
    def data(self) -> str:
        """For example "digits / pixels"."""
        return " / ".join(filter(None, (self.names["dataset"], self.names["model"])))

    @property
    def rules(self) -> str:
        """The title without the data, and without the cache."""
        head = f"{self.names['classifier']} head" if self.names["classifier"] else ""
        head += f" ({self.head})" if self.head else ""
        return ", ".join(filter(None, (head, self.names["budget"], self.rest)))

    @property
    def start_title(self) -> str:
        """The title with the shared cold start named."""
        return ", ".join(filter(None, (self.title, f"{self.start} start" if self.start else "")))


def settings_of(df: pd.DataFrame) -> Iterator[Setting]:
    """Split what `load_runs` or `simulate` returns into settings.

    Where one strategy or cold start was run with several sets of options, the columns `strategy` and `init_strategy`
    name those that differ, "margins (oversample=10)", in all settings alike.
    """
    df = _named(df)
    rest = telling_words(df["conditions"], without=("classifier.", *_IN_WORDS))
    heads = {
        str(name): telling_words(texts, within="classifier.") for name, texts in df.groupby("classifier")["conditions"]
    }
    caches = df.groupby(["dataset", "model"])["cache"].nunique()
    for key, rows in df.groupby(SETTING, sort=False):
        group = on_one_axis(rows)
        names = dict(zip(SETTING, map(str, key), strict=True))
        several = caches[names["dataset"], names["model"]] > 1
        made = pool_words(json.loads(names["conditions"] or "{}"), group["pool"])
        words = [made, rest[names["conditions"]], f"cache {names['cache'][:8]}" if several else ""]
        stopped = group["stopping"] != NOT_STOPPED
        by_start = (group if stopped.all() else group[~stopped]).groupby("init_strategy")["strategy"]
        rank = {s: (of.nunique(), REFERENCE in set(of)) for s, of in by_start}
        start = max(rank, key=rank.__getitem__)
        shared = group["init_strategy"] == start
        yield Setting(
            names, heads[names["classifier"]][names["conditions"]], ", ".join(filter(None, words)), str(start),
            group[shared & ~stopped], group[~shared & ~stopped], group[stopped],
        )  # fmt: skip


def apart(settings: Sequence[Setting]) -> list[str]:
    """A sentence for every data set and model whose runs are in several settings: by which keys they differ."""
    said = []
    for data in dict.fromkeys(setting.data for setting in settings):
        of = [setting.names for setting in settings if setting.data == data]
        keys = differing(names["conditions"] for names in of)
        for column in ("classifier", "cache"):
            if len(values := list(dict.fromkeys(names[column] for names in of))) > 1:
                keys[column] = [value[:8] for value in values] if column == "cache" else values
        if len(of) > 1:
            words = "; ".join(f"{key}: {' / '.join(values)}" for key, values in keys.items()) or "budget"
            said.append(f"{data}: runs that differ in these are not compared with one another: {words}.")
    return said


def under_test(df: pd.DataFrame) -> str:
    """What is compared, in words, for example "query strategies (margins: oversample)"."""
    varied = []
    for name, group in df.groupby("query_strategy", sort=False):
        if keys := differing(group["query_options"]):
            varied.append(f"{name}: {', '.join(keys)}")
    return "query strategies" + (f" ({'; '.join(varied)})" if varied else "")


def _named(df: pd.DataFrame) -> pd.DataFrame:
    """`df` with every column that settings need, and with `strategy` and `init_strategy` by the options that differ."""
    columns = [*SETTING, "query_strategy", "query_options", "init_strategy", "init_options", "behaviour", "stopping"]
    columns += ["draw", "pool"]
    df = df.assign(**{name: df[name].fillna("").astype(object) if name in df else "" for name in columns})
    df = df.reset_index(drop=True)
    df["stopping"] = df["stopping"].replace("", NOT_STOPPED)
    if (df["query_strategy"] == "").all():
        df["query_strategy"] = "strategy"
    for name, options, column in (
        ("query_strategy", "query_options", "strategy"),
        ("init_strategy", "init_options", "init_strategy"),
    ):
        words = {one: telling_words(texts) for one, texts in df.groupby(name)[options]}
        pairs = zip(df[name], df[options], strict=True)
        df[column] = [f"{one} ({said})" if (said := words[one][text]) else one for one, text in pairs]
    for _, group in df.groupby([*SETTING, "strategy", "init_strategy"]):
        for text, said in telling_words(group["behaviour"]).items():  # before and after a mend
            if said:
                mended = df.index.isin(group.index[group["behaviour"] == text])
                df.loc[mended, "strategy"] += f" ({said})"
    for place in ("run", "path"):  # the same options, and yet several runs: their folders tell them apart
        if place in df:
            same = [*SETTING, "strategy", "init_strategy", "stopping"]
            twins = df[df.duplicated([*same, *REPLICATE, "round"], keep=False)]
            double = df.set_index(same).index.isin(twins.set_index(same).index)
            df["strategy"] = df["strategy"].where(~double, df[place])
    return df


def summary(df: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """One row per strategy of a setting: numbers, unrounded.

    Columns: strategy, init_strategy, seeds (of all draws together), draws, units (how many of the seeds differ from the
    others in initial set or picks, see `replicates`), then mean over seeds and std over units (NaN for one) of the
    metric at each quarter of the budget (`after <n>`: the first round with at least that quarter of the final labels),
    of the area under the budget curve over rounds and over labels; fit, query and eval seconds of all seeds together,
    the peak memory in bytes; filled, the share of all picks that was drawn at random to complete a batch, and most
    filled, the largest such share of a round.
    """
    import pandas as pd

    check_metric(metric, df)
    final = int(df["num_labeled"].max())
    budgets = np.sort(df["num_labeled"].unique())
    quarters = dict.fromkeys(int(budgets[np.searchsorted(budgets, final * q / 4)]) for q in (1, 2, 3, 4))
    rows = []
    for (strategy, start), run in df.groupby(["strategy", "init_strategy"], sort=False):
        run = run.iloc[np.lexsort((run["num_labeled"], run.groupby(REPLICATE).ngroup()))]
        curves = [one for _, one in run.groupby(REPLICATE)]
        row = {"strategy": strategy, "init_strategy": start, "seeds": len(curves), "draws": run["draw"].nunique()}
        ends = run.groupby(REPLICATE).tail(1)
        row["units"] = int(units_of(ends).max()) + 1
        cells: dict[str, tuple[list[float], pd.DataFrame]] = {}
        for n in quarters:
            there = run[run["num_labeled"] == n]
            cells[f"after {n}"] = there[metric].tolist(), there
        for over in ("rounds", "labels"):
            areas = [area_under_budget_curve(c[metric].to_numpy(), c["num_labeled"].to_numpy(), over) for c in curves]
            cells[f"AUBC over {over}"] = areas, ends
        for name, (values, there) in cells.items():
            row[f"{name} mean"] = np.mean(values) if values else np.nan
            apart = per_unit(np.array(values), units_of(there)) if values else np.empty(0)
            row[f"{name} std"] = np.std(apart, ddof=1) if len(apart) > 1 else np.nan
        for part in ("fit", "query", "eval"):  # each row holds the wall time of its whole batch of replicates
            row[f"{part} seconds"] = float((run[f"{part}_seconds"] / run["num_replicates"]).sum())
        row["peak memory bytes"] = int(run["peak_memory_bytes"].max())
        row["filled"], row["most filled"] = _filled(curves)
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values("AUBC over rounds mean", ascending=not METRICS[metric].higher_is_better, kind="stable")


def units_of(rows: pd.DataFrame) -> np.ndarray:
    """Unit of each of a strategy's replicates in ONE round, int64 (n,); every one its own where picks are not known."""
    if "initial" in rows and "picked" in rows:
        return units(rows["initial"].tolist(), rows["picked"].tolist())
    return np.arange(len(rows))


def _filled(curves: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Share of a run's picks that came from completing batches at random, and the largest share of a round."""
    if "num_filled" not in curves[0]:
        return 0.0, 0.0
    paid = "paid" if "paid" in curves[0] else "num_labeled"
    picks = np.concatenate([np.diff(c[paid], prepend=0) for c in curves])
    filled = np.concatenate([c["num_filled"] for c in curves])
    return float(filled.sum() / picks.sum()), float((filled / picks).max())
