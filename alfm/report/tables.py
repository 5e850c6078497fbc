"""What is said of finished runs, as tables.

One per setting (data set, model, head with its options, budget, splits and all else but the strategies), for the
cold start that most of its strategies share; runs with another cold start are shown in a second one and never enter a
test. Seeds that picked the same items count once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alfm.errors import UserError
from alfm.metrics import METRICS, Scale
from alfm.report.cells import MEGABYTES, SECONDS, SHARE, Table, TableCell
from alfm.report.significance import enough_seeds, statistics_table
from alfm.report.stops import stop_tables
from alfm.results.replicates import counted
from alfm.results.setting import REFERENCE, Setting, summary, under_test
from alfm.results.statistics import MIN_SEEDS, average_ranks, paired_curves

if TYPE_CHECKING:
    import pandas as pd

_MIN_BLOCKS = 5  # settings from which ranks over them are shown


def summary_table(df: pd.DataFrame, metric: str, title: str, show_start: bool = False) -> Table:
    """`summary` for reading: the metric at each quarter of the budget, its areas, and what they cost."""
    numbers = summary(df, metric)
    even = np.allclose(
        numbers["AUBC over rounds mean"], numbers["AUBC over labels mean"], rtol=0, atol=5e-5, equal_nan=True
    )
    places = [c.removesuffix(" mean") for c in numbers if c.endswith(" mean")]
    if even:
        places.remove("AUBC over labels")
    heads = [p.replace("over rounds", "").strip() if even else p for p in places]
    shown = {
        "start": show_start,
        "seeds": numbers["seeds"].nunique() > 1,  # else said once, below
        "differ": bool((numbers["units"] < numbers["seeds"]).any()),
        "filled": bool((numbers["filled"] > 0).any()),
    }
    extra = [name for name, there in shown.items() if there]
    rows = [_summary_row(row, extra, places, METRICS[metric].scale) for row in numbers.to_dict("records")]
    header = ["strategy", *extra, *heads, "fit+query+eval s", "MB"]
    return Table(title, header, rows, _summary_notes(df, numbers, metric, even, extra))


def _summary_row(row: Mapping[Any, Any], extra: Sequence[str], places: Sequence[str], scale: Scale) -> list[TableCell]:
    about = {
        "start": TableCell(row["init_strategy"]),
        "seeds": TableCell(row["seeds"]),
        "differ": TableCell(_different(row)),
        "filled": TableCell(row["filled"] or None, SHARE),
    }
    return [
        TableCell(row["strategy"]),
        *(about[name] for name in extra),
        *(TableCell(row[f"{place} mean"], scale, spread=row[f"{place} std"]) for place in places),
        TableCell(tuple(row[f"{part} seconds"] for part in ("fit", "query", "eval")), SECONDS),
        TableCell(row["peak memory bytes"], MEGABYTES),
    ]


def _summary_notes(df: pd.DataFrame, numbers: pd.DataFrame, metric: str, even: bool, extra: Sequence[str]) -> list[str]:
    count = numbers["seeds"].iloc[0]
    seeds = "seeds" if "seeds" in extra else counted(count, numbers["draws"].iloc[0])
    unit = METRICS[metric].scale.unit
    notes = [
        f"{metric}{f' in {unit}' if unit else ''} after n labels, mean ±std over {seeds}. AUBC: area under the budget "
        f"curve{' over rounds (over labels it is the same)' if even else ''}. Seconds: all seeds together. MB: peak "
        "memory."
    ]
    if "filled" in extra:
        most = numbers.loc[numbers["most filled"].idxmax()]
        notes.append(
            f"filled: share of the picks drawn at random because the strategy left them open; most in one round: "
            f"{most['strategy']}, {SHARE.text(most['most filled'])}."
        )
    if "differ" in extra:
        notes.append(
            "differ: how many of the seeds picked different items from start to end; 'one start': all seeds began with "
            "the same items and picked the same, so they are one curve and have no ±. Means are over all seeds, ± and "
            f"tests count what differs. {_remedy(df)}"
        )
    return notes


def _different(row: Mapping[Any, Any]) -> str:
    if row["units"] == row["seeds"]:
        return str(row["seeds"])
    return "one start" if row["units"] == 1 else f"{row['units']} of {row['seeds']}"


def _remedy(df: pd.DataFrame) -> str:
    """What lets the seeds of runs that repeat one another differ; a command for runs that `al_train` made."""
    if (df["draw"] != "").any() or "index_sets" in set(df["init_strategy"]):
        return "Remedy: more draws (index_sets.partition, pool.seed)."
    if set(df["init_strategy"]) <= {REFERENCE}:
        return "Remedy: other seeds."
    if "path" not in df:
        return f'Remedy: one random start for all, init_strategy="random", and at least {MIN_SEEDS} seeds.'
    names = ",".join(dict.fromkeys(df["query_strategy"]))
    seeds = sorted(set(df["seed"]))
    seeds += [seed for seed in range(1, 2 * MIN_SEEDS) if seed not in seeds][: max(0, MIN_SEEDS - len(seeds))]
    sweep = "-m " if "," in names else ""
    return (
        f"Remedy: one random start for all, python -m alfm.al_train {sweep}query_strategy={names} init_strategy=random "
        f"'seeds=[{','.join(map(str, seeds))}]', with the other settings as they were."
    )


def rank_tables(settings: Sequence[Setting], metric: str) -> list[Table]:
    """Ranks over data sets and backbones (shared starts, mean area over the common seeds) of the strategies that all of
    them have, for every head, budget and start that enough of them share.

    Only settings that tests can speak of are blocks; there is no table below `_MIN_BLOCKS` of them or three strategies,
    where Friedman's test has nothing to say.
    """
    blocks: dict[str, dict[str, dict[str, float]]] = {}
    for setting in settings:
        if areas := _areas(setting, metric):
            rules = ", ".join(filter(None, (setting.rules, f"{setting.start} start" if setting.start else "")))
            blocks.setdefault(rules, {})[setting.names["cache"] or setting.data] = areas
    tables = (_rank_table(rules, own, metric) for rules, own in blocks.items() if len(own) >= _MIN_BLOCKS)
    return [table for table in tables if table is not None]


def _areas(setting: Setting, metric: str) -> dict[str, float]:
    """Strategy -> mean area under the budget curve; empty where tests have nothing to say."""
    try:
        curves = paired_curves(enough_seeds(setting.shared)[0], metric, "strategy")
    except UserError:  # said where the setting is shown
        return {}
    if curves.sample_size < MIN_SEEDS:
        return {}
    return dict(zip(curves.strategies, curves.areas().mean(axis=1).tolist(), strict=True))


def _rank_table(rules: str, blocks: Mapping[str, Mapping[str, float]], metric: str) -> Table | None:
    import pandas as pd

    scores = pd.DataFrame(blocks).T.dropna(axis=1)
    if scores.shape[1] < 3:
        return None
    ranks = average_ranks(scores, METRICS[metric].higher_is_better)
    note = (
        f"Mean rank by AUBC ({metric}) over {ranks.num_blocks} settings that differ in their data only; Friedman p = "
        f"{ranks.friedman_p:.2g}, Nemenyi critical difference {ranks.critical_difference:.1f}: closer strategies are "
        "not told apart."
    )
    rows = [[TableCell(str(name)), TableCell(rank, Scale(digits=2))] for name, rank in ranks.average.items()]
    return Table(f"Ranks of query strategies over settings: {rules}", ["strategy", "rank"], rows, [note])


def tables_of(setting: Setting, metric: str) -> tuple[list[Table], dict[str, pd.DataFrame]]:
    """A setting's printed tables, and full ones by file name: of tests (from ten seeds that differ on) and stops."""
    stops, full = stop_tables(setting, metric)
    if not len(setting.shared):
        return [*summary_tables(setting, metric), *stops], full
    tables = summary_tables(setting, metric)
    try:
        found = statistics_table(setting, metric)
    except UserError as reason:
        tables[0].notes.append(f"No tests: {reason}.")
        found = None
    if found is None:
        return [*tables, *stops], full
    return [tables[0], found[0], *tables[1:], *stops], {**found[1], **full}


def summary_tables(setting: Setting, metric: str) -> list[Table]:
    """The shared start's table and, where there are some, that of the other cold starts; titles name what is tested.

    None where rules could end all runs.
    """
    tables = []
    if len(setting.shared):
        what = under_test(setting.shared)
        tables.append(summary_table(setting.shared, metric, f"{what[0].upper()}{what[1:]}: {setting.start_title}"))
    if len(setting.own):
        title = f"Other cold starts, not comparable by tests: {under_test(setting.own)}, {setting.title}"
        tables.append(summary_table(setting.own, metric, title, show_start=True))
    return tables
