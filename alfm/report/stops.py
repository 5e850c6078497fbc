"""Where stopping rules would have ended runs, or did, and what that saved and cost.

A rule is judged by the labels it needs, those of its audit with them, and by the measure at its stop, each beside the
same replicate's whole budget. That it never fired is an outcome of its own and enters no mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alfm.metrics import METRICS, Scale
from alfm.report.cells import SHARE, Table, TableCell
from alfm.results.conditions import telling_words
from alfm.results.replicates import REPLICATE, counted
from alfm.results.setting import Setting
from alfm.results.verdicts import ENDED, Verdict, read_verdicts

if TYPE_CHECKING:
    import pandas as pd

OBSERVED, STOPPED = "observed", "stopped"
_WHOLE = Scale(digits=0)
_SAME = ["query_strategy", "query_options", "init_strategy", "init_options", *REPLICATE]
"""What a run that rules ended shares with one that went on."""


def stops_of(setting: Setting, metric: str) -> pd.DataFrame:
    """One row per run, seed and rule, of all that rules have said of a setting; empty where none has watched.

    Columns: strategy, init_strategy, draw, seed, rule (with the options that differ), how (`OBSERVED`, or `STOPPED` for
    a replicate that rules could end), fired, round, labels (with those of an audit) and the metric there, whole labels
    and whole metric: of the whole budget; saved: share of its labels; given up: how much better the metric is there;
    reason. NaN where a rule never fired, and where no whole run of the same seed is here.
    """
    import pandas as pd

    whole = pd.concat([setting.shared, setting.own])
    last = whole.sort_values("round").groupby(_SAME, sort=False).tail(1)
    ends = {tuple(row[name] for name in _SAME): row for _, row in last.iterrows()}
    parts = ((whole, OBSERVED), (setting.stopped, STOPPED))
    rows = [row for part, how in parts if "path" in part for row in _rows(part, how, ends, metric)]
    table = pd.DataFrame(rows)
    if len(table):
        words = {rule: telling_words(texts) for rule, texts in table.groupby("rule")["options"]}
        said = [words[rule][text] for rule, text in zip(table["rule"], table["options"], strict=True)]
        table["rule"] = [f"{rule} ({w})" if w else rule for rule, w in zip(table["rule"], said, strict=True)]
    return table


def stop_tables(setting: Setting, metric: str) -> tuple[list[Table], dict[str, pd.DataFrame]]:
    """The table of a setting, where rules have watched, and the full one behind it."""
    stops = stops_of(setting, metric)
    if not len(stops):
        return [], {}
    several = stops["init_strategy"].nunique() > 1
    groups = stops.groupby(["strategy", "init_strategy", "rule", "how"], sort=False)
    rows = [_table_row(key, group, metric, several) for key, group in groups]
    start = [] if not several else ["start"]
    header = ["strategy", "rule", *start, "fired", "never", "labels", "saved", metric, "given up", "at most"]
    title = f"Stopping rules: {setting.title if several else setting.start_title}"
    return [Table(title, header, rows, _notes(stops, metric), words=2)], {"stopping": stops}


def rules_table(stops: pd.DataFrame, metric: str, data: str) -> Table:
    """A row for each rule, over all strategies: what `stop_tables` shows for each."""
    rows = [
        [
            TableCell(f"{rule}, ended" if how == STOPPED else rule),
            *_table_row(("", "", rule, how), own, metric, False)[2:],
        ]
        for (rule, how), own in stops.groupby(["rule", "how"], sort=False)
    ]
    header = ["rule", "fired", "never", "labels", "saved", metric, "given up", "at most"]
    return Table(f"Stopping rules over all strategies: {data}", header, rows, _notes(stops, metric))


def _table_row(key: tuple[Any, ...], group: pd.DataFrame, metric: str, several: bool) -> list[TableCell]:
    strategy, start, rule, how = key
    fired = group[group["fired"]]
    scale = METRICS[metric].scale
    points = Scale(scale.factor, scale.digits, sign="+")
    mean = {name: fired[name].mean() if len(fired) else None for name in ("labels", "saved", metric, "given up")}
    return [
        TableCell(strategy),
        TableCell(f"{rule}, ended" if how == STOPPED else rule),
        *([TableCell(start)] if several else []),
        TableCell(len(fired)),
        TableCell(len(group) - len(fired)),
        TableCell(mean["labels"], _WHOLE),
        TableCell(mean["saved"], SHARE),
        TableCell(mean[metric], scale),
        TableCell(mean["given up"], points),
        TableCell(fired["given up"].max() if len(fired) else None, points),
    ]


def _notes(stops: pd.DataFrame, metric: str) -> list[str]:
    unit = METRICS[metric].scale.unit
    count = counted(len(stops[REPLICATE].drop_duplicates()), stops["draw"].nunique())
    notes = [
        f"Where each rule would stop, of {count}: fired and never count them, means are over those in which it fired. "
        "labels: paid for by then, with what an audit asked for. saved: share of the whole budget's labels. "
        f"{metric}{f' in {unit}' if unit else ''} there; given up: by how much it is better after the whole budget, "
        "mean and at most."
    ]
    if (stops["how"] == STOPPED).any():
        notes.append(
            "ended: the rule did end these replicates; given up is told where the strategy's whole run is here too."
        )
    return notes


def _rows(
    part: pd.DataFrame, how: str, ends: dict[tuple[Any, ...], pd.Series], metric: str
) -> Iterator[dict[str, Any]]:
    """See `stops_of`; `rule` and `options` as they stand in the verdicts."""
    for path, run in part.groupby("path", sort=False):
        replicates = {int(seed): own.sort_values("round") for seed, own in run.groupby("seed", sort=False)}
        for verdict in read_verdicts(Path(str(path))):
            own = replicates.get(verdict.seed)
            if own is None or verdict.reason == ENDED:
                continue
            last = own.iloc[-1]
            whole = ends.get(tuple(last[name] for name in _SAME)) if how == STOPPED else last
            yield {
                **{name: last[name] for name in ("strategy", "init_strategy", *REPLICATE)},
                **{"rule": verdict.rule, "options": verdict.options, "how": how},
                **_judged(verdict, own, whole, metric),
                "reason": verdict.reason,
            }


def _judged(verdict: Verdict, own: pd.DataFrame, whole: pd.Series | None, metric: str) -> dict[str, Any]:
    labels, value = np.nan, np.nan
    there = own[own["round"] == verdict.round]
    if len(there):
        labels, value = float(there["num_labeled"].iloc[0]) + verdict.charged, float(there[metric].iloc[0])
    whole_labels, whole_value = (
        (np.nan, np.nan) if whole is None else (float(whole["num_labeled"]), float(whole[metric]))
    )
    return {
        "fired": verdict.round is not None,
        "round": verdict.round,
        "labels": labels,
        metric: value,
        "whole labels": whole_labels,
        f"whole {metric}": whole_value,
        "saved": 1 - labels / whole_labels,
        "given up": METRICS[metric].sign * (whole_value - value),
    }
